"""IKEv1 Main Mode with pre-shared keys (RFC 2409 5.4): one exchange, either side.

The machine, as states that wait for one message each:

    initiator:  WAIT_SA (2) -> WAIT_KE (4) -> WAIT_ID (6) -> done
    responder:  WAIT_KE (3) -> WAIT_ID (5) -> done          message 1 makes it

`MainMode.receive` takes a message that is not a duplicate and returns the answer; the endpoint retransmits, recognises
duplicates and owns the tables. A PeerError ends the exchange; a message that does not fit the state is one too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import TypeVar

from labctl import crypto
from labctl.configuration import Encryption, IsakmpPolicy
from labctl.isakmp import keys as schedule
from labctl.isakmp import proposals, vendor
from labctl.isakmp.datagram import Endpoint
from labctl.isakmp.errors import AuthenticationFailed, InvalidId, LocalError, MalformedMessage, NotifyType, PeerError
from labctl.isakmp.header import HEADER_OCTETS, ZERO_COOKIE, Doi, ExchangeType, Flag, Header
from labctl.isakmp.keys import Phase1Keys
from labctl.isakmp.payloads import (
    Chained,
    HashPayload,
    Identification,
    KeyExchange,
    Nonce,
    Notification,
    Payload,
    Proposal,
    SecurityAssociation,
    VendorId,
    pack_chain,
    parse_chain,
)
from labctl.isakmp.reader import Reader
from labctl.isakmp.sa import Phase1Sa

NONCE_OCTETS = 32

# Protocol and port of a phase-1 identity (RFC 2407 4.6.2; reference 2.7): any port where the protocol is 0.
UDP = 17
IDENTITY_PORTS = (0, 500, 848)

T = TypeVar("T")
RandomSource = Callable[[int], bytes]


class State(Enum):
    """Which message the exchange waits for."""

    WAIT_SA = 2
    WAIT_KE_OF_INITIATOR = 3
    WAIT_KE_OF_RESPONDER = 4
    WAIT_ID_OF_INITIATOR = 5
    WAIT_ID_OF_RESPONDER = 6
    DONE = 0


@dataclass(frozen=True, slots=True)
class Terms:
    """What an exchange is held under: our policies, the key shared with this peer, our identity."""

    policies: Sequence[IsakmpPolicy]
    secret: bytes = field(repr=False)
    identity: Identification
    relaxed_doi: bool
    random: RandomSource
    initial_contact: bool = True


class MainMode:
    """One Main Mode exchange. Public for reading: `state`, `policy`, `lifetime`, `initial_contact`, `sa`."""

    def __init__(self, terms: Terms, local: Endpoint, peer: Endpoint, *, initiator: bool) -> None:
        self.local = local
        self.peer = peer
        self.initiator = initiator
        self.state = State.WAIT_SA if initiator else State.WAIT_KE_OF_INITIATOR
        self.policy: IsakmpPolicy | None = None
        self.lifetime = 0
        self.initial_contact = False
        self.sa: Phase1Sa | None = None
        self._terms = terms
        self._own_cookie = terms.random(8)
        while self._own_cookie == ZERO_COOKIE:
            self._own_cookie = terms.random(8)
        self._peer_cookie = ZERO_COOKIE
        self._doi: int = Doi.GDOI
        self._offer: SecurityAssociation | None = None
        self._offer_body = b""
        self._private: crypto.PrivateValue | None = None
        self._peer_public = b""
        self._nonce = terms.random(NONCE_OCTETS)
        self._keys: Phase1Keys | None = None
        self._iv = b""
        self._vendor_ids: set[bytes] = set()

    @property
    def cookies(self) -> bytes:
        """CKY-I | CKY-R; the peer's half is zero until it has answered."""
        mine, theirs = self._own_cookie, self._peer_cookie
        return mine + theirs if self.initiator else theirs + mine

    def first_message(self, *, doi: int = Doi.GDOI) -> bytes:
        """Message 1 of an initiator."""
        self._doi = doi
        self._offer = proposals.offer(self._terms.policies, doi)
        self._offer_body = self._offer.pack()
        return self._clear([self._offer, *(VendorId(data) for data in vendor.OURS)])

    def answer_offer(self, header: Header, data: bytes) -> bytes:
        """A responder's message 2, from message 1. Raises PeerError."""
        self._peer_cookie = header.initiator_cookie
        chain = self._parse_clear(header, data)
        offered = leading_association(chain)
        self._note_vendors(chain)
        choice = proposals.choose(self._terms.policies, offered, relaxed_doi=self._terms.relaxed_doi)
        self.policy, self.lifetime, self._doi = choice.policy, choice.lifetime, choice.doi
        self._offer_body = chain[0].body
        proposal = Proposal(choice.proposal.number, choice.proposal.protocol, b"", (choice.transform,))
        answer = SecurityAssociation(choice.doi, offered.situation, (proposal,))
        return self._clear([answer, *(VendorId(data) for data in vendor.OURS)])

    def receive(self, header: Header, data: bytes, now: float) -> bytes | None:
        """The next message of the exchange; returns our answer, None where there is none. Raises PeerError."""
        if self.state is State.WAIT_SA:
            return self._receive_choice(header, data)
        if self.state in (State.WAIT_KE_OF_INITIATOR, State.WAIT_KE_OF_RESPONDER):
            return self._receive_key_exchange(header, data)
        if self.state in (State.WAIT_ID_OF_INITIATOR, State.WAIT_ID_OF_RESPONDER):
            return self._receive_identity(header, data, now)
        raise PeerError("the exchange is over", NotifyType.INVALID_EXCHANGE_TYPE)

    def _receive_choice(self, header: Header, data: bytes) -> bytes:
        chain = self._parse_clear(header, data)
        answer = leading_association(chain)
        self._note_vendors(chain)
        if header.responder_cookie == ZERO_COOKIE:
            raise PeerError("the responder cookie is zero", NotifyType.INVALID_COOKIE)
        self.policy, self.lifetime = proposals.accepted(self._terms.policies, known(self._offer), answer)
        self._peer_cookie = header.responder_cookie
        self._private = crypto.generate_private_value(self.policy.group)
        self.state = State.WAIT_KE_OF_RESPONDER
        return self._clear([KeyExchange(self._private.public), Nonce(self._nonce)])

    def _receive_key_exchange(self, header: Header, data: bytes) -> bytes:
        chain = self._parse_clear(header, data)
        self._note_vendors(chain)
        public, nonce = only(chain, KeyExchange), only(chain, Nonce)
        policy = known(self.policy)
        if self._private is None:
            self._private = crypto.generate_private_value(policy.group)
        try:
            secret = self._private.exchange(public.data)
        except crypto.DiffieHellmanError as error:
            raise PeerError(str(error), NotifyType.INVALID_KEY_INFORMATION) from None
        self._peer_public = public.data
        nonces = (self._nonce, nonce.data) if self.initiator else (nonce.data, self._nonce)
        skeyid = schedule.skeyid_from_psk(policy.hash, self._terms.secret, *nonces)
        octets = policy.key_bits // 8 if policy.encryption is Encryption.AES_CBC else schedule.TRIPLE_DES_KEY_OCTETS
        cipher = schedule.CIPHERS[policy.encryption]
        self._keys = schedule.derive(policy.hash, cipher, octets, skeyid, secret, self.cookies)
        self._iv = schedule.phase1_iv(self._keys, *self._publics())
        if self.initiator:
            self.state = State.WAIT_ID_OF_RESPONDER
            return self._sealed(self._identity_payloads())
        self.state = State.WAIT_ID_OF_INITIATOR
        return self._clear([KeyExchange(self._private.public), Nonce(self._nonce)])

    def _receive_identity(self, header: Header, data: bytes, now: float) -> bytes | None:
        chain, identity, proof = self._open(header, data)
        body = next(item.body for item in chain if isinstance(item.payload, Identification))
        if not crypto.equal(proof.data, self._expected_proof(body, of_initiator=not self.initiator)):
            raise AuthenticationFailed("the hash that proves the identity is wrong: the pre-shared keys differ")
        if identity.protocol not in (0, UDP) or (identity.protocol == UDP and identity.port not in IDENTITY_PORTS):
            raise InvalidId(f"an identity with protocol {identity.protocol} and port {identity.port}")
        self.initial_contact = any(
            isinstance(item.payload, Notification) and item.payload.kind == NotifyType.INITIAL_CONTACT for item in chain
        )
        keys = known(self._keys)
        self._iv = data[-keys.block :]
        answer = None if self.initiator else self._sealed(self._identity_payloads())
        self.state = State.DONE
        self.sa = Phase1Sa(
            self.initiator,
            self.cookies,
            self.local,
            self.peer,
            identity,
            keys,
            self._iv,
            self._doi,
            now,
            now + self.lifetime,
            frozenset(self._vendor_ids),
        )
        return answer

    def _identity_payloads(self) -> list[Payload]:
        identity = self._terms.identity
        proof = HashPayload(self._expected_proof(identity.pack(), of_initiator=self.initiator))
        if not self.initiator or not self._terms.initial_contact:
            return [identity, proof]
        # We keep no SA with a peer beside a new one, so every phase 1 of ours is an initial contact.
        contact = Notification(NotifyType.INITIAL_CONTACT, Doi.IPSEC, spi=self.cookies)
        return [identity, proof, contact]

    def _expected_proof(self, identity_body: bytes, *, of_initiator: bool) -> bytes:
        compute = schedule.hash_of_initiator if of_initiator else schedule.hash_of_responder
        return compute(known(self._keys), *self._publics(), self.cookies, self._offer_body, identity_body)

    def _publics(self) -> tuple[bytes, bytes]:
        mine = known(self._private).public
        return (mine, self._peer_public) if self.initiator else (self._peer_public, mine)

    def _note_vendors(self, chain: Sequence[Chained]) -> None:
        self._vendor_ids.update(item.payload.data for item in chain if isinstance(item.payload, VendorId))

    def _parse_clear(self, header: Header, data: bytes) -> tuple[Chained, ...]:
        if header.encrypted:
            raise PeerError("a message that comes in clear is marked encrypted", NotifyType.INVALID_FLAGS)
        chain = parse_chain(header.next_payload, Reader(data, HEADER_OCTETS))
        if not chain:
            raise MalformedMessage("a message without payloads")
        return chain

    def _clear(self, payloads: Sequence[Payload]) -> bytes:
        body = pack_chain(payloads)
        return self._header(payloads[0].TYPE, 0, len(body)).pack() + body

    def _open(self, header: Header, data: bytes) -> tuple[tuple[Chained, ...], Identification, HashPayload]:
        """Messages 5 and 6 decrypted: the chain, the identity, its proof. Raises PeerError."""
        if not header.encrypted:
            raise PeerError("messages 5 and 6 are encrypted", NotifyType.INVALID_FLAGS)
        try:
            plaintext = schedule.unseal(known(self._keys), self._iv, data[HEADER_OCTETS:])
        except ValueError as error:
            raise MalformedMessage(str(error)) from None
        try:
            chain = parse_chain(header.next_payload, Reader(plaintext), padded=True)
            return chain, only(chain, Identification), only(chain, HashPayload)
        except PeerError as error:
            # With another key the plaintext is noise, which seldom parses and never holds both (RFC 2409 5.4).
            raise AuthenticationFailed(
                "the message does not decrypt to an identity and its proof: the pre-shared keys differ"
            ) from error

    def _sealed(self, payloads: Sequence[Payload]) -> bytes:
        keys = known(self._keys)
        ciphertext = schedule.seal(keys, self._iv, pack_chain(payloads))
        self._iv = ciphertext[-keys.block :]
        return self._header(payloads[0].TYPE, Flag.ENCRYPTION, len(ciphertext)).pack() + ciphertext

    def _header(self, first: int, flags: int, octets: int) -> Header:
        cookies = self.cookies
        return Header(cookies[:8], cookies[8:], first, ExchangeType.MAIN_MODE, flags, 0, HEADER_OCTETS + octets)


def known(value: T | None) -> T:
    """A value that the state guarantees. Raises LocalError: the machine was driven wrongly."""
    if value is None:
        raise LocalError("the exchange has not come so far")
    return value


def only(chain: Sequence[Chained], kind: type[T]) -> T:
    """The one payload of a kind. Raises MalformedMessage where there is none, or are several."""
    found = [item.payload for item in chain if isinstance(item.payload, kind)]
    if len(found) != 1:
        raise MalformedMessage(f"{len(found)} payloads of {kind.__name__} where one belongs")
    return found[0]


def leading_association(chain: Sequence[Chained]) -> SecurityAssociation:
    """SA: the first payload of messages 1 and 2, and the only one of its kind (RFC 2409 5). Raises MalformedMessage."""
    association = only(chain, SecurityAssociation)
    if chain[0].payload is not association:
        raise MalformedMessage("the message does not begin with SA")
    return association
