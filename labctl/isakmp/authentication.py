"""How peers prove in phase 1 who they are: pre-shared keys, RSA signatures (RFC 2409 5.1), ECDSA (RFC 4754).

`Credentials` is everything a party has for that: its pre-shared keys, and its trustpoints with certificates, keys, CAs
and CRLs, which can be replaced while exchanges run. Reference 2.5, 2.7; RFC 4945 for what certificates mean to IKE.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from ipaddress import IPv4Address, IPv6Address

from labctl import crypto
from labctl.configuration import Authentication, Hash, PreSharedKey, Trustpoint
from labctl.crypto import CertificateError, Refusal
from labctl.isakmp.errors import LocalError, NotifyType, PeerError
from labctl.isakmp.payloads import Certificate, CertificateRequest, Identification, IdType

# CERT and CR encoding: X.509 certificate for signatures; a CRL beside it is not looked at (reference 1.7).
X509_SIGNATURE, X509_CRL = 4, 7

# The most requests of a peer that are looked at; real ones name one or two CAs.
MAX_REQUESTS = 16


class Method(IntEnum):
    """Authentication method, attribute 3 of a transform (RFC 2409 appendix A, RFC 4754)."""

    PRE_SHARED_KEY = 1
    RSA_SIGNATURE = 3
    ECDSA_256 = 9
    ECDSA_384 = 10
    ECDSA_521 = 11

    @property
    def signs(self) -> bool:
        """True where certificates prove the identity."""
        return self is not Method.PRE_SHARED_KEY


METHODS = {
    Authentication.PRE_SHARE: (Method.PRE_SHARED_KEY,),
    Authentication.RSA_SIG: (Method.RSA_SIGNATURE,),
    Authentication.ECDSA_SIG: (Method.ECDSA_256, Method.ECDSA_384, Method.ECDSA_521),
}

# HASH_I and HASH_R of these are computed anew with the hash that belongs to the curve (reference 2.5).
CURVE_HASHES = {Method.ECDSA_256: Hash.SHA256, Method.ECDSA_384: Hash.SHA384, Method.ECDSA_521: Hash.SHA512}

# Refusals that tell of our own lists more than of the peer.
UNKNOWN = {Refusal.NO_CRL, Refusal.CRL_BAD_SIGNATURE, Refusal.CRL_OUTDATED, Refusal.CRL_NOT_YET_VALID}

_NOTIFY = {
    Refusal.NO_AUTHORITY: NotifyType.INVALID_CERT_AUTHORITY,
    Refusal.ENCODING: NotifyType.CERT_TYPE_UNSUPPORTED,
    Refusal.MISSING: NotifyType.CERTIFICATE_UNAVAILABLE,
    Refusal.IDENTITY: NotifyType.INVALID_ID_INFORMATION,
    Refusal.KEY_TYPE: NotifyType.CERT_TYPE_UNSUPPORTED,
}


class CertificateRefused(PeerError):
    """The peer's certificate, or what it signed, is not believed. `told` is what the peer may hear of it."""

    def __init__(self, refusal: Refusal, reason: str) -> None:
        super().__init__(reason, _NOTIFY.get(refusal, NotifyType.INVALID_CERTIFICATE))
        self.refusal = refusal
        self.told = refusal.value


class SignatureRefused(PeerError):
    """SIG_I or SIG_R is wrong: the peer does not have the key of its certificate."""

    notify = NotifyType.INVALID_SIGNATURE
    told = "the signature that proves the identity is wrong"


class CredentialMissing(PeerError):
    """We have nothing to prove ourselves with in the way that the peer asks for."""


def method_of(key: crypto.PrivateKey | crypto.RsaPublicKey | crypto.EcdsaPublicKey) -> Method:
    """The method that a key signs for."""
    if isinstance(key, (crypto.RsaPrivateKey, crypto.RsaPublicKey)):
        return Method.RSA_SIGNATURE
    public = key.public if isinstance(key, crypto.EcdsaPrivateKey) else key
    return next(method for method, name in CURVE_HASHES.items() if name is public.hash)


@dataclass(frozen=True, slots=True)
class Signer:
    """One trustpoint with a certificate of ours: who we are, and the key that proves it."""

    chain: tuple[crypto.Certificate, ...]
    key: crypto.PrivateKey = field(repr=False)
    method: Method
    identity: Identification

    @property
    def certificates(self) -> list[Certificate]:
        """CERT payloads: our own first, CAs between behind it."""
        return [Certificate(X509_SIGNATURE, item.der) for item in self.chain]

    def sign(self, name: Hash, digest: bytes) -> bytes:
        """SIG over HASH_I or HASH_R, which takes the place of a digest."""
        if isinstance(self.key, crypto.RsaPrivateKey):
            return self.key.sign(name, digest, digest_info=False)
        return self.key.sign(digest)

    def known_to(self, authorities: Collection[bytes]) -> bool:
        """Does the chain lead to a CA of these DER names?"""
        return any(item.issuer_der in authorities for item in self.chain)


@dataclass(frozen=True, slots=True)
class _Point:
    """A trustpoint that has been read."""

    trust: crypto.Trust
    signer: Signer | None


class Credentials:
    """What one party proves itself with, and whom it believes.

    `started` is the wall clock, in seconds since 1970, at the moment that the caller's clock calls 0.
    """

    def __init__(
        self, pre_shared_keys: Sequence[PreSharedKey] = (), trustpoints: Sequence[Trustpoint] = (), started: float = 0.0
    ) -> None:
        self._secrets = {key.peer: key.secret for key in pre_shared_keys}
        self._points = [_read(item) for item in trustpoints]
        self._started = started

    def set_trustpoints(self, trustpoints: Sequence[Trustpoint]) -> None:
        """Replace every trustpoint. Raises LocalError, changing nothing, for one that cannot be read."""
        self._points = [_read(item) for item in trustpoints]

    # What we have.

    def secret(self, peer: IPv4Address) -> bytes | None:
        """The key that is shared with a peer."""
        return self._secrets.get(peer)

    def usable(self, peer: IPv4Address) -> frozenset[Method]:
        """How we can prove ourselves to a peer."""
        found = {point.signer.method for point in self._points if point.signer is not None}
        return frozenset(found | ({Method.PRE_SHARED_KEY} if peer in self._secrets else set()))

    def missing(self, wanted: Collection[Authentication], peer: IPv4Address) -> CredentialMissing:
        """The words for a peer, or a policy of ours, that asks for what we do not have."""
        if Authentication.PRE_SHARE in wanted:
            text = f"no pre-shared key for {peer} is configured here"
            return CredentialMissing(text, NotifyType.INVALID_KEY_INFORMATION)
        if not wanted:
            return CredentialMissing("no ISAKMP policy is configured here", NotifyType.NO_PROPOSAL_CHOSEN)
        names = " or ".join(sorted(item.value for item in wanted))
        return CredentialMissing(f"no certificate for {names} is configured here", NotifyType.CERTIFICATE_UNAVAILABLE)

    def requests(self) -> list[CertificateRequest]:
        """CR payloads: the names of our CAs."""
        names = [authority.subject_der for point in self._points for authority in point.trust.authorities]
        return [CertificateRequest(X509_SIGNATURE, name) for name in dict.fromkeys(names)]

    def signer(self, method: Method, requested: Collection[bytes]) -> Signer:
        """The trustpoint to use: one below a CA that the peer asked for, else the first. Raises CredentialMissing.

        A certificate that the peer did not ask for is sent all the same: its refusal says more than our silence.
        """
        fitting = [point.signer for point in self._points if point.signer and point.signer.method is method]
        if not fitting:
            raise CredentialMissing(
                f"no certificate for {method.name} is configured here any more", NotifyType.CERTIFICATE_UNAVAILABLE
            )
        return next((signer for signer in fitting if signer.known_to(requested)), fitting[0])

    # What the peer has.

    def verify(
        self,
        method: Method,
        identity: Identification,
        sent: Sequence[Certificate],
        signature: bytes,
        digest: bytes,
        now: float,
    ) -> tuple[crypto.Certificate, ...]:
        """The path from the peer's certificate to a CA of ours, once everything about it holds.

        `digest` is HASH_I or HASH_R of the peer. Raises PeerError.
        """
        chain = _chain_of(sent)
        try:
            key = chain[0].key
        except CertificateError as error:
            raise CertificateRefused(error.refusal, error.reason) from None
        if method_of(key) is not method:
            text = f"the key of {chain[0]} is for {method_of(key).name}, agreed is {method.name}"
            raise CertificateRefused(Refusal.KEY_TYPE, text)
        # Before the path: what follows is about the owner of the key, not about anybody who has seen the certificate.
        try:
            if isinstance(key, crypto.RsaPublicKey):
                key.verify(signature, Hash.SHA256, digest, digest_info=False)
            else:
                key.verify(signature, digest)
        except crypto.SignatureError as error:
            raise SignatureRefused(f"the signature that proves the identity of {chain[0]} is wrong: {error}") from None
        path = self.path_of(chain, now)
        _check_identity(identity, chain[0])
        return path

    def path_of(self, chain: Sequence[crypto.Certificate], now: float) -> tuple[crypto.Certificate, ...]:
        """The path from a certificate to a CA of ours. Raises CertificateRefused."""
        problem = CertificateError(Refusal.NO_AUTHORITY, f"no CA is trusted here, {chain[0]} is issued by one")
        for point in self._points:
            try:
                return crypto.verify_path(chain, point.trust, self._started + now)
            except CertificateError as error:
                # Of several trustpoints, the one that knows the issuer has more to say.
                if problem.refusal is Refusal.NO_AUTHORITY:
                    problem = error
        raise CertificateRefused(problem.refusal, problem.reason)

    def end_of(self, path: Sequence[crypto.Certificate]) -> float:
        """When the first certificate of a path ends, on the caller's clock."""
        return min((item.not_after for item in path), default=float("inf")) - self._started


def _chain_of(sent: Sequence[Certificate]) -> tuple[crypto.Certificate, ...]:
    octets = [item.data for item in sent if item.encoding == X509_SIGNATURE]
    other = next((item.encoding for item in sent if item.encoding not in (X509_SIGNATURE, X509_CRL)), None)
    if not octets and other is not None:
        raise CertificateRefused(Refusal.ENCODING, f"a certificate of encoding {other}")
    try:
        return crypto.parse_chain(octets)
    except CertificateError as error:
        raise CertificateRefused(error.refusal, error.reason) from None


def _check_identity(identity: Identification, certificate: crypto.Certificate) -> None:
    """The identity is the subject, or one of the subjectAltNames (RFC 4945 3.1). Raises PeerError."""
    if not _is_named(identity, certificate):
        text = f"the identity {identity} is not in the certificate of {certificate}"
        raise CertificateRefused(Refusal.IDENTITY, text)


def _is_named(identity: Identification, certificate: crypto.Certificate) -> bool:
    if identity.kind == IdType.DER_ASN1_DN:
        return certificate.has_subject(identity.data)
    if identity.kind == IdType.FQDN:
        return identity.data.decode("ascii", "replace").lower() in certificate.domains
    if identity.kind == IdType.USER_FQDN:
        return identity.data.decode("ascii", "replace") in certificate.mailboxes
    if identity.kind == IdType.IPV4_ADDR:
        return IPv4Address(identity.data) in certificate.addresses
    if identity.kind == IdType.IPV6_ADDR:
        return IPv6Address(identity.data) in certificate.addresses
    return False


def _read(trustpoint: Trustpoint) -> _Point:
    """Raises LocalError: a trustpoint is ours, whatever is wrong with it is our caller's to know."""
    try:
        trust = crypto.Trust.parse(
            trustpoint.authorities, trustpoint.crls, check_revocation=trustpoint.check_revocation
        )
        if not trustpoint.chain:
            return _Point(trust, None)
        chain = crypto.parse_chain(trustpoint.chain)
        key = crypto.load_private_key(trustpoint.private_key)
        if not crypto.belongs(key, chain[0]):
            raise crypto.SignatureError(f"the private key is not that of {chain[0]}")
    except (CertificateError, crypto.SignatureError) as error:
        raise LocalError(f"trustpoint {trustpoint.name}: {error}") from None
    return _Point(trust, Signer(chain, key, method_of(key), _identity(trustpoint, chain[0])))


def _identity(trustpoint: Trustpoint, certificate: crypto.Certificate) -> Identification:
    if trustpoint.fqdn is None:
        return Identification(IdType.DER_ASN1_DN, certificate.subject_der)
    return Identification(IdType.FQDN, trustpoint.fqdn.encode("ascii", "replace"))
