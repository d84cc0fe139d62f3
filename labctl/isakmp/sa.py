"""An established phase-1 SA: protects and opens the exchanges that run under it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

from labctl import crypto
from labctl.configuration import IsakmpPolicy
from labctl.isakmp import keys as schedule
from labctl.isakmp.datagram import Endpoint
from labctl.isakmp.errors import InvalidHash, MalformedMessage
from labctl.isakmp.header import HEADER_OCTETS, ExchangeType, Flag, Header, PayloadType
from labctl.isakmp.keys import Phase1Keys
from labctl.isakmp.payloads import Chained, HashPayload, Identification, Payload, pack_chain, pack_payload, parse_chain
from labctl.isakmp.payloads.chain import Parser
from labctl.isakmp.reader import Reader

# IV chains kept for exchanges under one SA; a peer that opens more loses the oldest.
MAX_EXCHANGES = 16


@dataclass(frozen=True, slots=True)
class Opened:
    """A decrypted message of a protected exchange, before its HASH is checked.

    `hash` is the HASH payload's data; `covered` the octets that hashes cover: everything behind the HASH payload up to
    the end of the last one, padding excluded; `payloads` what stands there.
    """

    header: Header
    hash: bytes
    covered: bytes
    payloads: tuple[Chained, ...]
    next_iv: bytes


@dataclass(slots=True)
class Phase1Sa:
    """One phase-1 SA. Times are seconds on the caller's clock.

    `certificates` are the path from the peer's own to a CA of ours: its subject and names, and `peer_identity` among
    them, are proved. Without one the pre-shared key proves `peer.address`: `peer_identity` is but what the peer says.
    """

    initiator: bool
    cookies: bytes
    local: Endpoint
    peer: Endpoint
    peer_identity: Identification
    keys: Phase1Keys
    last_block: bytes
    doi: int
    established: float
    expires: float
    peer_vendor_ids: frozenset[bytes] = frozenset()
    policy: IsakmpPolicy | None = None
    ivs: OrderedDict[int, bytes] = field(default_factory=OrderedDict)
    certificates: tuple[crypto.Certificate, ...] = ()

    @property
    def certificate(self) -> crypto.Certificate | None:
        """The peer's own certificate."""
        return self.certificates[0] if self.certificates else None

    @property
    def proven_identity(self) -> str:
        """Who the peer has proved to be, for a log."""
        if self.certificates:
            return str(self.certificates[0])
        return f"pre-shared key of {self.peer.address}"

    def same_party(self, other: Phase1Sa) -> bool:
        """Do both SAs have one and the same peer, whatever port it speaks from?

        It takes the identity and what proves it. Certificates prove it; under a pre-shared key a peer can claim any
        identity, but not another's address.
        """
        mine, theirs = self.peer_identity, other.peer_identity
        same = (mine.kind, mine.data) == (theirs.kind, theirs.data)
        proved = bool(self.certificates and other.certificates)
        return same and (proved or self.peer.address == other.peer.address)

    def prf(self, *parts: bytes) -> bytes:
        """prf(SKEYID_a, parts): every HASH of later exchanges (RFC 2409 5.5, RFC 6407 3.2)."""
        return crypto.hmac(self.keys.hash, self.keys.skeyid_a, *parts)

    def protect(self, exchange: int, message_id: int, payloads: Sequence[Payload], *prefix: bytes) -> bytes:
        """A whole message: HDR*, HASH, payloads, with HASH = prf(SKEYID_a, prefix | payloads).

        The IV chain of `message_id` goes on from it.
        """
        first = payloads[0].TYPE if payloads else PayloadType.NONE
        covered = pack_chain(payloads) if payloads else b""
        plaintext = pack_payload(HashPayload(self.prf(*prefix, covered)), first) + covered
        ciphertext = schedule.seal(self.keys, self._iv(message_id), plaintext)
        self._advance(message_id, ciphertext[-self.keys.block :])
        header = Header(
            self.cookies[:8],
            self.cookies[8:],
            PayloadType.HASH,
            exchange,
            Flag.ENCRYPTION,
            message_id,
            HEADER_OCTETS + len(ciphertext),
        )
        return header.pack() + ciphertext

    def open(self, header: Header, data: bytes, parsers: dict[int, Parser] | None = None) -> Opened:
        """Decrypt and parse a message. Changes nothing: `accept` does, once the HASH has been checked.

        Raises PeerError.
        """
        if not header.encrypted:
            raise MalformedMessage("a message of a protected exchange is in clear")
        ciphertext = data[HEADER_OCTETS:]
        try:
            plaintext = schedule.unseal(self.keys, self._iv(header.message_id), ciphertext)
        except ValueError as error:
            raise MalformedMessage(str(error)) from None
        if header.next_payload != PayloadType.HASH:
            raise MalformedMessage("the first payload is not HASH")
        reader = Reader(plaintext)
        chain = parse_chain(header.next_payload, reader, parsers, padded=True)
        first = chain[0].payload
        if not isinstance(first, HashPayload):
            raise MalformedMessage("the first payload is not HASH")
        covered = plaintext[len(chain[0].whole) : reader.position]
        return Opened(header, first.data, covered, chain[1:], ciphertext[-self.keys.block :])

    def verify(self, opened: Opened, *prefix: bytes) -> None:
        """Check HASH = prf(SKEYID_a, prefix | covered) and go on with the IV chain. Raises InvalidHash."""
        if not crypto.equal(opened.hash, self.prf(*prefix, opened.covered)):
            raise InvalidHash("the HASH of the message is wrong")
        self._advance(opened.header.message_id, opened.next_iv)

    def informational(self, message_id: int, payload: Payload) -> bytes:
        """HDR*, HASH(1), N or D (RFC 2409 5.7)."""
        return self.protect(ExchangeType.INFORMATIONAL, message_id, (payload,), message_id.to_bytes(4, "big"))

    def forget(self, message_id: int) -> None:
        """Drop the IV chain of an exchange that is over."""
        self.ivs.pop(message_id, None)

    def _iv(self, message_id: int) -> bytes:
        known = self.ivs.get(message_id)
        return known if known is not None else schedule.exchange_iv(self.keys, self.last_block, message_id)

    def _advance(self, message_id: int, block: bytes) -> None:
        self.ivs[message_id] = block
        self.ivs.move_to_end(message_id)
        while len(self.ivs) > MAX_EXCHANGES:
            self.ivs.popitem(last=False)
