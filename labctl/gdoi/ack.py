"""GROUPKEY-PUSH-ACK (RFC 8263): how a member acknowledges a rekey. In clear, authenticated under the KEK."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from labctl import crypto
from labctl.configuration import Hash
from labctl.gdoi.payloads import PARSERS, SequenceNumber
from labctl.isakmp.errors import InvalidHash, MalformedMessage, NotifyType, PeerError
from labctl.isakmp.header import HEADER_OCTETS, ExchangeType, Header, PayloadType
from labctl.isakmp.payloads import HashPayload, Identification, pack_chain, parse_chain
from labctl.isakmp.reader import Reader

LABEL = b"GROUPKEY-PUSH ACK\x00"


class AckType(IntEnum):
    """Values of KEK_ACK_REQUESTED. The LKH ones take a member's leaf key as base key."""

    KEK_SHA256 = 1
    LKH_SHA256 = 2
    KEK_SHA512 = 3
    LKH_SHA512 = 4

    @property
    def hash(self) -> Hash:
        """The hash of its prf."""
        return Hash.SHA256 if self in (AckType.KEK_SHA256, AckType.LKH_SHA256) else Hash.SHA512

    @property
    def key_bits(self) -> int:
        """L of the derivation: 512, or 1024 with SHA-512 (reference 4.8)."""
        return 512 if self.hash is Hash.SHA256 else 1024


class Unsolicited(PeerError):
    """Nobody asked for this acknowledgement."""

    notify = NotifyType.INVALID_COOKIE


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """A member's answer to the rekey with this sequence number."""

    spi: bytes
    sequence: int
    identity: Identification


def ack_key(kind: AckType, base_key: bytes, spi: bytes) -> bytes:
    """prf(base_key, "GROUPKEY-PUSH ACK" | 0 | SPI | L). `base_key` is the KEK's cipher key without IV."""
    return crypto.hmac(kind.hash, base_key, LABEL, spi, kind.key_bits.to_bytes(2, "big"))


def build(kind: AckType, base_key: bytes, ack: Acknowledgement) -> bytes:
    """The datagram."""
    covered = pack_chain([SequenceNumber(ack.sequence), ack.identity])
    hash_data = crypto.hmac(kind.hash, ack_key(kind, base_key, ack.spi), covered)
    body = pack_chain([HashPayload(hash_data)], PayloadType.SEQ) + covered
    header = Header(
        ack.spi[:8],
        ack.spi[8:],
        PayloadType.HASH,
        ExchangeType.GROUPKEY_PUSH_ACK,
        0,
        0,
        HEADER_OCTETS + len(body),
    )
    return header.pack() + body


def open_ack(data: bytes, kind: AckType, base_key: bytes) -> Acknowledgement:
    """A received acknowledgement, verified. Raises PeerError."""
    header = Header.parse(data)
    if header.exchange != ExchangeType.GROUPKEY_PUSH_ACK or header.flags or header.message_id:
        raise PeerError("not an acknowledgement of a rekey", NotifyType.INVALID_EXCHANGE_TYPE)
    chain = parse_chain(header.next_payload, Reader(data, HEADER_OCTETS), PARSERS)
    if len(chain) != 3:
        raise MalformedMessage("an acknowledgement holds HASH, SEQ and ID")
    proof, sequence, identity = (item.payload for item in chain)
    if not (
        isinstance(proof, HashPayload) and isinstance(sequence, SequenceNumber) and isinstance(identity, Identification)
    ):
        raise MalformedMessage("an acknowledgement holds HASH, SEQ and ID")
    covered = chain[1].whole + chain[2].whole
    expected = crypto.hmac(kind.hash, ack_key(kind, base_key, header.cookies), covered)
    if not crypto.equal(expected, proof.data):
        raise InvalidHash("the hash of the acknowledgement is wrong")
    return Acknowledgement(header.cookies, sequence.number, identity)
