"""IKEv1 Main Mode with pre-shared keys or signatures (RFC 2409 5.1, 5.4; RFC 4754): one exchange, either side.

The machine, as states that wait for one message each:

    initiator:  WAIT_SA (2) -> WAIT_KE (4) -> WAIT_ID (6) -> done
    responder:  WAIT_KE (3) -> WAIT_ID (5) -> done          message 1 makes it

`MainMode.receive` takes a message that is not a duplicate and returns the answer; the endpoint retransmits, recognises
duplicates and owns the tables. A PeerError ends the exchange; a message that does not fit the state is one too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import TypeVar

from labctl import crypto
from labctl.configuration import Encryption, IsakmpPolicy
from labctl.isakmp import keys as schedule
from labctl.isakmp import proposals, vendor
from labctl.isakmp.attributes import pack_attributes, parse_attributes
from labctl.isakmp.authentication import CURVE_HASHES, MAX_REQUESTS, X509_SIGNATURE, Credentials, Method
from labctl.isakmp.datagram import Endpoint
from labctl.isakmp.errors import AuthenticationFailed, InvalidId, LocalError, MalformedMessage, NotifyType, PeerError
from labctl.isakmp.header import HEADER_OCTETS, ZERO_COOKIE, Doi, ExchangeType, Flag, Header
from labctl.isakmp.keys import Phase1Keys
from labctl.isakmp.payloads import (
    Certificate,
    CertificateRequest,
    Chained,
    HashPayload,
    Identification,
    KeyExchange,
    Nonce,
    Notification,
    Payload,
    Proposal,
    SecurityAssociation,
    Signature,
    VendorId,
    pack_chain,
    parse_chain,
)
from labctl.isakmp.reader import Reader
from labctl.isakmp.sa import Phase1Sa

NONCE_OCTETS = 32

# A responder cannot make an SA end sooner than after so many seconds (`lifetime` of an ISAKMP policy begins there).
MIN_LIFETIME = 60

# Protocol and port of a phase-1 identity (RFC 2407 4.6.2; reference 2.7): any port where the protocol is 0.
UDP = 17
IDENTITY_PORTS = (0, 500, 848)

# Certificates and signatures that one exchange looks at before it looks at no more: each takes a millisecond.
MAX_PROOFS = 4

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
    """What an exchange is held under: our policies, and what we prove ourselves with."""

    policies: Sequence[IsakmpPolicy]
    credentials: Credentials
    relaxed_doi: bool
    random: RandomSource
    initial_contact: bool = True


class MainMode:
    """One Main Mode exchange. Public for reading: `state`, `policy`, `lifetime`, `initial_contact`, `sa`."""

    def __init__(
        self, terms: Terms, local: Endpoint, peer: Endpoint, *, initiator: bool, cookie: bytes | None = None
    ) -> None:
        self.local = local
        self.peer = peer
        self.initiator = initiator
        self.state = State.WAIT_SA if initiator else State.WAIT_KE_OF_INITIATOR
        self.policy: IsakmpPolicy | None = None
        self.method = Method.PRE_SHARED_KEY
        self.lifetime = 0
        self.initial_contact = False
        # Shall message 5 say that we hold no other SA with the peer (RFC 2407 4.6.3.3)?
        self.says_initial_contact = terms.initial_contact
        self.sa: Phase1Sa | None = None
        self._terms = terms
        self._own_cookie = cookie or terms.random(8)
        while self._own_cookie == ZERO_COOKIE:
            self._own_cookie = terms.random(8)
        self._peer_cookie = ZERO_COOKIE
        self._doi: int = Doi.GDOI
        self._offered_lifetime = 0
        self._offer: SecurityAssociation | None = None
        self._offer_body = b""
        self._private: crypto.PrivateValue | None = None
        self._peer_public = b""
        self._nonce = terms.random(NONCE_OCTETS)
        self._keys: Phase1Keys | None = None
        self._iv = b""
        self._vendor_ids: set[bytes] = set()
        # CAs that the peer asks for certificates of, in DER.
        self._requested: dict[bytes, None] = {}
        self._usable = terms.credentials.usable(peer.address)
        self._proofs = 0

    @property
    def cookies(self) -> bytes:
        """CKY-I | CKY-R; the peer's half is zero until it has answered."""
        mine, theirs = self._own_cookie, self._peer_cookie
        return mine + theirs if self.initiator else theirs + mine

    @property
    def vendor_ids(self) -> frozenset[bytes]:
        """What the peer has said of itself so far."""
        return frozenset(self._vendor_ids)

    def first_message(self, *, doi: int = Doi.GDOI) -> bytes:
        """Message 1 of an initiator. Raises CredentialMissing."""
        self._doi = doi
        try:
            self._offer, self._offer_body = proposals.packed_offer(self._terms.policies, doi, self._usable)
        except proposals.CannotProve as error:
            raise self._terms.credentials.missing(error.wanted, self.peer.address) from None
        return self._clear([self._offer, *(VendorId(data) for data in vendor.OURS)])

    def answer_offer(self, header: Header, data: bytes) -> bytes:
        """A responder's message 2, from message 1. Raises PeerError."""
        self._peer_cookie = header.initiator_cookie
        chain = self._parse_clear(header, data)
        offered = leading_association(chain)
        self._note(chain)
        terms = self._terms
        try:
            choice = proposals.choose(terms.policies, offered, relaxed_doi=terms.relaxed_doi, usable=self._usable)
        except proposals.CannotProve as error:
            raise terms.credentials.missing(error.wanted, self.peer.address) from None
        self.policy, self.method, self.lifetime, self._doi = choice.policy, choice.method, choice.lifetime, choice.doi
        read = proposals.read_transform(choice.transform)
        self._offered_lifetime = 0 if read is None else read.lifetime
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
        self._note(chain)
        if header.responder_cookie == ZERO_COOKIE:
            raise PeerError("the responder cookie is zero", NotifyType.INVALID_COOKIE)
        self.policy, self.method, self.lifetime = proposals.accepted(
            self._terms.policies, known(self._offer), answer, self._usable
        )
        self._peer_cookie = header.responder_cookie
        self._private = crypto.generate_private_value(self.policy.group)
        self.state = State.WAIT_KE_OF_RESPONDER
        return self._clear(self._key_exchange_payloads())

    def _key_exchange_payloads(self) -> list[Payload]:
        """Messages 3 and 4. Whom we trust is nobody's business where no certificates are to come."""
        requests = self._terms.credentials.requests() if self.method.signs else []
        return [KeyExchange(known(self._private).public), Nonce(self._nonce), *requests]

    def _receive_key_exchange(self, header: Header, data: bytes) -> bytes:
        chain = self._parse_clear(header, data)
        self._note(chain)
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
        if self.method.signs:
            skeyid = schedule.skeyid_from_signatures(policy.hash, secret, *nonces)
        else:
            shared_key = known(self._terms.credentials.secret(self.peer.address))
            skeyid = schedule.skeyid_from_psk(policy.hash, shared_key, *nonces)
        octets = policy.key_bits // 8 if policy.encryption is Encryption.AES_CBC else schedule.TRIPLE_DES_KEY_OCTETS
        cipher = schedule.CIPHERS[policy.encryption]
        self._keys = schedule.derive(policy.hash, cipher, octets, skeyid, secret, self.cookies)
        self._iv = schedule.phase1_iv(self._keys, *self._publics())
        if self.initiator:
            self.state = State.WAIT_ID_OF_RESPONDER
            return self._sealed(self._identity_payloads())
        self.state = State.WAIT_ID_OF_INITIATOR
        return self._clear(self._key_exchange_payloads())

    def _receive_identity(self, header: Header, data: bytes, now: float) -> bytes | None:
        chain, identity = self._open(header, data)
        self._note(chain)
        body = next(item.body for item in chain if isinstance(item.payload, Identification))
        path = self._verify(chain, identity, self._expected_proof(body, of_initiator=not self.initiator), now)
        if identity.protocol not in (0, UDP) or (identity.protocol == UDP and identity.port not in IDENTITY_PORTS):
            raise InvalidId(f"an identity with protocol {identity.protocol} and port {identity.port}")
        self.initial_contact = any(
            isinstance(item.payload, Notification) and item.payload.kind == NotifyType.INITIAL_CONTACT for item in chain
        )
        if self.initiator:
            self._shorten(chain)
        keys = known(self._keys)
        self._iv = data[-keys.block :]
        answer = None if self.initiator else self._sealed(self._identity_payloads())
        self.state = State.DONE
        self.sa = self._association(identity, path, now)
        return answer

    def _association(self, identity: Identification, path: tuple[crypto.Certificate, ...], now: float) -> Phase1Sa:
        """The SA that the exchange has led to. It does not outlive a certificate that it rests on."""
        return Phase1Sa(
            self.initiator,
            self.cookies,
            self.local,
            self.peer,
            identity,
            known(self._keys),
            self._iv,
            self._doi,
            now,
            min(now + self.lifetime, self._terms.credentials.end_of(path)),
            frozenset(self._vendor_ids),
            policy=known(self.policy),
            certificates=path,
        )

    def _verify(
        self, chain: Sequence[Chained], identity: Identification, expected: bytes, now: float
    ) -> tuple[crypto.Certificate, ...]:
        """HASH or SIG of message 5 or 6. Returns the peer's certificates, none beside a key. Raises PeerError."""
        if not self.method.signs:
            if not crypto.equal(only(chain, HashPayload).data, expected):
                raise AuthenticationFailed("the hash that proves the identity is wrong: the pre-shared keys differ")
            return ()
        self._proofs += 1
        if self._proofs > MAX_PROOFS:
            raise PeerError("no more proofs are looked at in this exchange", NotifyType.AUTHENTICATION_FAILED)
        sent = [item.payload for item in chain if isinstance(item.payload, Certificate)]
        signature = only(chain, Signature).data
        return self._terms.credentials.verify(self.method, identity, sent, signature, expected, now)

    def refusing(self, message_6: bytes) -> Phase1Sa:
        """What an initiator that refuses message 6 tells so under: the responder takes phase 1 for done.

        It is good for nothing else: the peer is not who it should be.
        """
        sa = self._association(Identification.ipv4(self.peer.address), (), 0.0)
        return replace(sa, last_block=message_6[-known(self._keys).block :], expires=0.0)

    def _identity_payloads(self) -> list[Payload]:
        return [*self._proof(), *self._status_notifications()]

    def _proof(self) -> list[Payload]:
        """Our identity with HASH, or with certificates and SIG. Raises CredentialMissing."""
        if not self.method.signs:
            identity = Identification.ipv4(self.local.address)
            return [identity, HashPayload(self._expected_proof(identity.pack(), of_initiator=self.initiator))]
        signer = self._terms.credentials.signer(self.method, self._requested)
        digest = self._expected_proof(signer.identity.pack(), of_initiator=self.initiator)
        signature = Signature(signer.sign(known(self.policy).hash, digest))
        return [signer.identity, *signer.certificates, signature]

    def _status_notifications(self) -> list[Payload]:
        """What an initiator or a responder has to say beside its identity (RFC 2407 4.6.3)."""
        if self.initiator:
            if not self.says_initial_contact:
                return []
            return [Notification(NotifyType.INITIAL_CONTACT, Doi.IPSEC, spi=self.cookies)]
        if self.lifetime >= self._offered_lifetime:
            return []
        # The attributes of a transform go back as they came, so our shorter life is said here (RFC 2407 4.5.4).
        life = pack_attributes(proposals.life(self.lifetime))
        return [Notification(NotifyType.RESPONDER_LIFETIME, Doi.IPSEC, spi=self.cookies, data=life)]

    def _shorten(self, chain: Sequence[Chained]) -> None:
        """RESPONDER-LIFETIME: the responder's life is the shorter one. It never makes ours longer."""
        for item in chain:
            note = item.payload
            if isinstance(note, Notification) and note.kind == NotifyType.RESPONDER_LIFETIME:
                told = proposals.read_life(parse_attributes(Reader(note.data)))
                if told is not None and note.spi == self.cookies:
                    self.lifetime = min(self.lifetime, max(told, MIN_LIFETIME))

    def _expected_proof(self, identity_body: bytes, *, of_initiator: bool) -> bytes:
        """HASH_I or HASH_R: what proves the identity, or what is signed to prove it."""
        compute = schedule.hash_of_initiator if of_initiator else schedule.hash_of_responder
        keys = known(self._keys)
        keys = replace(keys, hash=CURVE_HASHES.get(self.method, keys.hash))
        return compute(keys, *self._publics(), self.cookies, self._offer_body, identity_body)

    def _publics(self) -> tuple[bytes, bytes]:
        mine = known(self._private).public
        return (mine, self._peer_public) if self.initiator else (self._peer_public, mine)

    def _note(self, chain: Sequence[Chained]) -> None:
        """What a peer may say in any message: vendor IDs, and the CAs that it wants certificates of."""
        self._vendor_ids.update(item.payload.data for item in chain if isinstance(item.payload, VendorId))
        for request in (item.payload for item in chain if isinstance(item.payload, CertificateRequest)):
            if request.encoding == X509_SIGNATURE and request.authority and len(self._requested) < MAX_REQUESTS:
                self._requested[request.authority] = None

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

    def _open(self, header: Header, data: bytes) -> tuple[tuple[Chained, ...], Identification]:
        """Messages 5 and 6 decrypted: the chain, with one proof in it, and the identity. Raises PeerError."""
        if not header.encrypted:
            raise PeerError("messages 5 and 6 are encrypted", NotifyType.INVALID_FLAGS)
        try:
            plaintext = schedule.unseal(known(self._keys), self._iv, data[HEADER_OCTETS:])
        except ValueError as error:
            raise MalformedMessage(str(error)) from None
        try:
            chain = parse_chain(header.next_payload, Reader(plaintext), padded=True)
            only(chain, Signature if self.method.signs else HashPayload)
            return chain, only(chain, Identification)
        except PeerError as error:
            # With another key the plaintext is noise, which seldom parses and never holds both (RFC 2409 5.4).
            text = "the message does not decrypt to an identity and its proof"
            if not self.method.signs:
                text += ": the pre-shared keys differ"
            raise AuthenticationFailed(text) from error

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
