"""Is a certificate to be believed? The path from it to an authority that is trusted (RFC 5280 6), at a given time.

Not looked at: policies and name constraints (a critical one makes a certificate unusable). An authority that is trusted
has to be within its own validity too, as routers and OpenSSL have it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from labctl.crypto.certificates import Certificate, CertificateError, Refusal, RevocationList, moment

# The most certificates of one chain, the leaf among them; real ones have two or three.
MAX_CHAIN = 8

# Signatures on certificates that one path may cost: CAs of one name in a circle would cost any number.
MAX_SIGNATURE_CHECKS = 24


@dataclass(frozen=True, slots=True)
class Trust:
    """Whom to believe: `authorities`, their `crls` and those of CAs below them; no CRL, no belief, if asked for."""

    authorities: tuple[Certificate, ...]
    crls: tuple[RevocationList, ...] = ()
    check_revocation: bool = True

    @classmethod
    def parse(cls, authorities: Sequence[bytes], crls: Sequence[bytes], *, check_revocation: bool) -> Trust:
        """From DER. Raises CertificateError."""
        return cls(
            tuple(Certificate.parse(item) for item in authorities),
            tuple(RevocationList.parse(item) for item in crls),
            check_revocation,
        )


def parse_chain(chain: Sequence[bytes]) -> tuple[Certificate, ...]:
    """Certificates in DER, the leaf first. Raises CertificateError."""
    if not chain:
        raise CertificateError(Refusal.MISSING, "no certificate was sent")
    if len(chain) > MAX_CHAIN:
        raise CertificateError(Refusal.PATH_TOO_LONG, f"a chain of {len(chain)} certificates, {MAX_CHAIN} at most")
    return tuple(Certificate.parse(item) for item in chain)


def verify_path(chain: Sequence[Certificate], trust: Trust, at: float) -> tuple[Certificate, ...]:
    """The path from `chain[0]` to a trusted authority; the rest of `chain` are CAs between, in any order.

    `at` is seconds since 1970. Raises CertificateError: what is wrong with the path that comes nearest.
    """
    leaf = chain[0]
    problem = CertificateError(Refusal.NO_AUTHORITY, f"{leaf} is issued by {leaf.issuer}, which is no CA of ours")
    for path in _Search(chain[1:], trust.authorities).paths((leaf,)):
        try:
            _check(path, trust, at)
        except CertificateError as error:
            problem = error
        else:
            return path
    raise problem


class _Search:
    """Every path of signatures that verify, within a budget."""

    def __init__(self, between: Sequence[Certificate], authorities: Sequence[Certificate]) -> None:
        # Who is trusted is no CA between: a path that was found before, and is looked at again, ends with one.
        self._between = [item for item in between if item not in authorities]
        self._authorities = authorities
        self._checks = MAX_SIGNATURE_CHECKS
        self._forged: Certificate | None = None

    def paths(self, path: tuple[Certificate, ...]) -> Iterator[tuple[Certificate, ...]]:
        """Paths that go on from this one. Raises CertificateError if there was but a wrong signature."""
        found = False
        for item in self._from(path):
            found = True
            yield item
        if not found and self._forged is not None:
            text = f"the signature on {self._forged} is not of {self._forged.issuer}"
            raise CertificateError(Refusal.BAD_SIGNATURE, text)

    def _from(self, path: tuple[Certificate, ...]) -> Iterator[tuple[Certificate, ...]]:
        last = path[-1]
        for authority in self._authorities:
            if self._signed(last, authority):
                yield (*path, authority)
        for issuer in self._between:
            if issuer not in path and self._signed(last, issuer):
                yield from self._from((*path, issuer))

    def _signed(self, certificate: Certificate, issuer: Certificate) -> bool:
        if certificate.issuer_der != issuer.subject_der or not self._checks:
            return False
        self._checks -= 1
        good = certificate.issued_by(issuer)
        if not good:
            self._forged = certificate
        return good


def _check(path: Sequence[Certificate], trust: Trust, at: float) -> None:
    leaf = path[0]
    if not leaf.signs:
        raise CertificateError(Refusal.KEY_USAGE, f"the key of {leaf} is not for signatures")
    for below, authority in enumerate(path[1:]):
        _check_authority(authority, below)
    for certificate in path:
        _check_validity(certificate, at)
    if trust.check_revocation:
        for certificate, issuer in itertools.pairwise(path):
            _check_revocation(certificate, issuer, trust.crls, at)


def _check_authority(authority: Certificate, below: int) -> None:
    """`below` CAs stand between it and the leaf."""
    if not authority.is_authority:
        raise CertificateError(Refusal.NOT_AN_AUTHORITY, f"{authority} is not a CA")
    if not authority.signs_certificates:
        raise CertificateError(Refusal.NOT_AN_AUTHORITY, f"the key of {authority} is not for certificates")
    if authority.path_length is not None and below > authority.path_length:
        text = f"{authority} allows {authority.path_length} CAs below it, there are {below}"
        raise CertificateError(Refusal.PATH_TOO_LONG, text)


def _check_validity(certificate: Certificate, at: float) -> None:
    if at < certificate.not_before:
        text = f"{certificate} is not valid before {moment(certificate.not_before):%Y-%m-%d %H:%M:%S} UTC"
        raise CertificateError(Refusal.NOT_YET_VALID, text)
    if at > certificate.not_after:
        text = f"{certificate} has expired at {moment(certificate.not_after):%Y-%m-%d %H:%M:%S} UTC"
        raise CertificateError(Refusal.EXPIRED, text)


def _check_revocation(certificate: Certificate, issuer: Certificate, crls: Sequence[RevocationList], at: float) -> None:
    named = [crl for crl in crls if crl.issuer_der == issuer.subject_der]
    if not named:
        raise CertificateError(Refusal.NO_CRL, f"there is no CRL of {issuer}, which issued {certificate}")
    genuine = [crl for crl in named if crl.issued_by(issuer)]
    if not genuine:
        raise CertificateError(Refusal.CRL_BAD_SIGNATURE, f"the signature on the CRL is not of {issuer}")
    # What was revoked once stays so, however old the list is that says it.
    if any(crl.revokes(certificate) for crl in genuine):
        raise CertificateError(Refusal.REVOKED, f"{certificate} is revoked by {issuer}")
    if any(crl.this_update <= at <= crl.next_update for crl in genuine):
        return
    newest = max(genuine, key=lambda crl: crl.this_update)
    if at < newest.this_update:
        text = f"the CRL of {issuer} is not valid before {moment(newest.this_update):%Y-%m-%d %H:%M:%S} UTC"
        raise CertificateError(Refusal.CRL_NOT_YET_VALID, text)
    text = f"the CRL of {issuer} was to be renewed by {moment(newest.next_update):%Y-%m-%d %H:%M:%S} UTC"
    raise CertificateError(Refusal.CRL_OUTDATED, text)
