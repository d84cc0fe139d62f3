"""GROUPKEY-PUSH (RFC 6407 4): built, signed and encrypted by a key server; opened in the order of reference 4.3.

What is signed: "rekey" | header with the length before encryption padding | SEQ..KD (reference 4.2, choice).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from labctl import crypto
from labctl.configuration import Encryption
from labctl.gdoi.payloads import PARSERS, GdoiSa, KeyDownload, SequenceNumber
from labctl.gdoi.policy import KeyEncryptionKey
from labctl.isakmp.errors import MalformedMessage, NotifyType, PeerError
from labctl.isakmp.header import HEADER_OCTETS, VERSION, ExchangeType, Flag, Header, PayloadType
from labctl.isakmp.payloads import Delete, Payload, Signature, pack_chain, parse_chain
from labctl.isakmp.payloads.chain import GENERIC_OCTETS, Parser
from labctl.isakmp.reader import Reader

SIGNED_PREFIX = b"rekey"
VERSION_OCTET = 17

CIPHERS = {Encryption.AES_CBC: crypto.BlockCipher.AES, Encryption.TRIPLE_DES: crypto.BlockCipher.TRIPLE_DES}


class ReplayedRekey(PeerError):
    """The sequence number is not above the last one."""


class BadSignature(PeerError):
    """The signature does not verify."""

    notify = NotifyType.INVALID_SIGNATURE


@dataclass(frozen=True, slots=True)
class Push:
    """What a rekey says. `sa` and `keys` are absent together in one that only deletes."""

    sequence: int
    deletes: tuple[Delete, ...] = ()
    sa: GdoiSa | None = None
    keys: KeyDownload | None = None

    def payloads(self) -> list[Payload]:
        """In the order of RFC 6407 4: SEQ, D, SA, KD."""
        found: list[Payload] = [SequenceNumber(self.sequence), *self.deletes]
        found += [item for item in (self.sa, self.keys) if item is not None]
        return found


def build(push: Push, kek: KeyEncryptionKey, signing_key: crypto.RsaPrivateKey) -> bytes:
    """The datagram of a rekey under `kek`: signed, then padded and encrypted with the KEK's static IV."""
    body = pack_chain(push.payloads(), PayloadType.SIG)
    signature_octets = GENERIC_OCTETS + signing_key.public.signature_length
    header = Header(
        kek.spi[:8],
        kek.spi[8:],
        PayloadType.SEQ,
        ExchangeType.GROUPKEY_PUSH,
        Flag.ENCRYPTION,
        0,
        HEADER_OCTETS + len(body) + signature_octets,
    )
    digest = crypto.digest(kek.signature_hash, SIGNED_PREFIX, header.pack(), body)
    plaintext = body + pack_chain([Signature(signing_key.sign(kek.signature_hash, digest))])
    cipher = CIPHERS[kek.encryption]
    plaintext += bytes(-len(plaintext) % crypto.block_size(cipher))
    ciphertext = crypto.cbc_encrypt(cipher, kek.key, kek.iv, plaintext)
    return header.with_length(HEADER_OCTETS + len(ciphertext)).pack() + ciphertext


def decrypt(data: bytes, kek: KeyEncryptionKey) -> tuple[Header, bytes]:
    """Steps 1 and 3 of reference 4.3: check the header, decrypt. Raises PeerError."""
    header = Header.parse(data)
    cipher = CIPHERS[kek.encryption]
    if data[VERSION_OCTET] != VERSION:
        # The signature covers the header: one of another minor version would have to be checked as it came.
        raise PeerError("a rekey of another ISAKMP version", NotifyType.INVALID_MINOR_VERSION)
    octets = len(data) - HEADER_OCTETS
    if header.exchange != ExchangeType.GROUPKEY_PUSH or header.cookies != kek.spi:
        raise PeerError("no rekey under this KEK", NotifyType.INVALID_COOKIE)
    if header.flags != Flag.ENCRYPTION or header.message_id != 0:
        raise PeerError("a rekey has the flag E alone and message ID 0", NotifyType.INVALID_FLAGS)
    if octets <= 0 or octets % crypto.block_size(cipher):
        raise MalformedMessage(f"{octets} octets are not whole blocks")
    return header, crypto.cbc_decrypt(cipher, kek.key, kek.iv, data[HEADER_OCTETS:])


def verify(
    header: Header,
    plaintext: bytes,
    kek: KeyEncryptionKey,
    *,
    sig_raw_digest: bool = False,
    parsers: dict[int, Parser] = PARSERS,
) -> Push:
    """Steps 3 to 5: parse, sequence number above the KEK's floor, signature. Raises PeerError; changes nothing.

    `sig_raw_digest` also accepts the signature form of the reference implementation, a digest without DigestInfo.
    """
    reader = Reader(plaintext)
    chain = parse_chain(header.next_payload, reader, parsers, padded=True)
    padding = reader.rest()
    if any(padding) or len(padding) >= crypto.block_size(CIPHERS[kek.encryption]):
        raise MalformedMessage("the padding of a rekey is not zero, or a whole block and more")
    if not chain:
        raise MalformedMessage("a rekey without payloads")
    *told, signature = chain
    push = _read([item.payload for item in told])
    if not isinstance(signature.payload, Signature):
        raise MalformedMessage("a rekey ends with its signature")
    if push.sequence <= kek.sequence:
        raise ReplayedRekey(f"sequence number {push.sequence}, last was {kek.sequence}")
    body = b"".join(item.whole for item in told)
    unpadded = HEADER_OCTETS + len(body) + len(signature.whole)
    # The RFC leaves open whether the signed length counts padding: ours first, then as received.
    for length in (unpadded, header.length):
        digest = crypto.digest(kek.signature_hash, SIGNED_PREFIX, header.with_length(length).pack(), body)
        for digest_info in (True, False) if sig_raw_digest else (True,):
            try:
                key = crypto.RsaPublicKey.from_der(kek.signature_key)
                key.verify(signature.payload.data, kek.signature_hash, digest, digest_info=digest_info)
            except crypto.SignatureError:
                continue
            return push
    raise BadSignature("the signature of the rekey does not verify")


def _read(payloads: Sequence[Payload]) -> Push:
    if not payloads or not isinstance(payloads[0], SequenceNumber):
        raise MalformedMessage("a rekey begins with SEQ")
    deletes = [item for item in payloads if isinstance(item, Delete)]
    rest = list(payloads[1 + len(deletes) :])
    if list(payloads[1 : 1 + len(deletes)]) != deletes:
        raise MalformedMessage("the Deletes of a rekey stand behind SEQ")
    if not rest and deletes:
        return Push(payloads[0].number, tuple(deletes))
    if len(rest) == 2 and isinstance(rest[0], GdoiSa) and isinstance(rest[1], KeyDownload):
        return Push(payloads[0].number, tuple(deletes), rest[0], rest[1])
    raise MalformedMessage("a rekey holds SEQ, Deletes, then SA and KD")


def open_push(data: bytes, kek: KeyEncryptionKey, *, sig_raw_digest: bool = False) -> Push:
    """A received rekey, in full. Raises PeerError."""
    header, plaintext = decrypt(data, kek)
    return verify(header, plaintext, kek, sig_raw_digest=sig_raw_digest)


# `open_push` as a member takes it.
Opener = Callable[[bytes, KeyEncryptionKey], Push]
