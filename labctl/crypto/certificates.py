"""X.509 certificates and revocation lists as phase 1 needs them (RFC 5280; RFC 4945 for IKE).

Everything that can be wrong with an encoding is found when a certificate is parsed: afterwards its fields are plain
values. `certificate_path.py` says whether one is to be believed.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum
from ipaddress import IPv4Address, IPv6Address
from typing import TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtensionOID

from labctl.crypto.ecdsa import EcdsaPrivateKey, EcdsaPublicKey
from labctl.crypto.rsa import RsaPrivateKey, RsaPublicKey, SignatureError

# A certificate of a router has one or two thousand octets.
MAX_CERTIFICATE_OCTETS = 16_384

# Extensions whose meaning is looked at, or which restrict nothing that phase 1 does; an unknown one that is critical
# makes a certificate unusable (RFC 5280 4.2). What an extended key usage says is left to those who issue it (RFC 4945
# 5.1.3.12 only advises).
_UNDERSTOOD = {
    ExtensionOID.BASIC_CONSTRAINTS,
    ExtensionOID.KEY_USAGE,
    ExtensionOID.EXTENDED_KEY_USAGE,
    ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
    ExtensionOID.ISSUER_ALTERNATIVE_NAME,
    ExtensionOID.SUBJECT_KEY_IDENTIFIER,
    ExtensionOID.AUTHORITY_KEY_IDENTIFIER,
    ExtensionOID.CRL_DISTRIBUTION_POINTS,
    ExtensionOID.CERTIFICATE_POLICIES,
}

E = TypeVar("E", bound=x509.ExtensionType)

PublicKey = RsaPublicKey | EcdsaPublicKey
PrivateKey = RsaPrivateKey | EcdsaPrivateKey


class Refusal(Enum):
    """Why a certificate is not believed. The value is what its owner may be told: it names nobody."""

    MALFORMED = "the certificate is malformed"
    NO_AUTHORITY = "no such CA: the certificate's issuer is not trusted"
    BAD_SIGNATURE = "the signature on the certificate is wrong"
    EXPIRED = "the certificate has expired"
    NOT_YET_VALID = "the certificate is not yet valid"
    REVOKED = "the certificate is revoked"
    NO_CRL = "there is no CRL of the certificate's issuer"
    CRL_BAD_SIGNATURE = "the signature on the CRL is wrong"
    CRL_OUTDATED = "the CRL is outdated"
    CRL_NOT_YET_VALID = "the CRL is not yet valid"
    NOT_AN_AUTHORITY = "the certificate's issuer is not a CA"
    PATH_TOO_LONG = "the chain of CAs is longer than one of them allows"
    KEY_USAGE = "the certificate's key is not for signatures"
    KEY_TYPE = "the certificate's key does not fit the authentication method"
    IDENTITY = "the identity is not in the certificate"
    ENCODING = "certificates of this encoding are not supported"
    MISSING = "no certificate was sent"


class CertificateError(ValueError):
    """A certificate is not believed: `refusal` in general, `reason` with names and times."""

    def __init__(self, refusal: Refusal, reason: str) -> None:
        super().__init__(reason)
        self.refusal = refusal
        self.reason = reason


def moment(at: float) -> datetime.datetime:
    """Seconds since 1970 as a time. What no calendar has is the end of all calendars."""
    try:
        return datetime.datetime.fromtimestamp(at, datetime.UTC)
    except (OverflowError, ValueError, OSError):
        return datetime.datetime.max.replace(tzinfo=datetime.UTC)


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate that parses. Times are seconds since 1970."""

    der: bytes = field(repr=False)
    parsed: x509.Certificate = field(repr=False, compare=False)
    subject: str
    issuer: str
    subject_der: bytes = field(repr=False)
    issuer_der: bytes = field(repr=False)
    serial: int
    not_before: float
    not_after: float
    # subjectAltNames by kind; domain names in lower case.
    domains: tuple[str, ...] = ()
    mailboxes: tuple[str, ...] = ()
    addresses: tuple[IPv4Address | IPv6Address, ...] = ()
    # basicConstraints and keyUsage; None: the certificate does not say.
    is_authority: bool | None = None
    path_length: int | None = None
    signs: bool = True
    signs_certificates: bool = True
    signs_crls: bool = True

    @classmethod
    def parse(cls, der: bytes) -> Certificate:
        """From DER. Raises CertificateError."""
        if len(der) > MAX_CERTIFICATE_OCTETS:
            raise CertificateError(Refusal.MALFORMED, f"a certificate of {len(der)} octets")
        try:
            return _read(der)
        except CertificateError:
            raise
        except Exception as error:  # the library raises many kinds for hostile octets
            raise CertificateError(Refusal.MALFORMED, f"a certificate is malformed: {error}") from None

    def __str__(self) -> str:
        """How a log names it."""
        return self.subject or f"serial {self.serial:x}"

    @property
    def key(self) -> PublicKey:
        """What its owner signs with. Raises CertificateError for a kind that phase 1 does not know."""
        try:
            key = self.parsed.public_key()
            if isinstance(key, rsa.RSAPublicKey):
                return RsaPublicKey(key)
            if isinstance(key, ec.EllipticCurvePublicKey):
                return EcdsaPublicKey(key)
        except (SignatureError, UnsupportedAlgorithm, ValueError) as error:
            raise CertificateError(Refusal.KEY_TYPE, f"the key of {self}: {error}") from None
        raise CertificateError(Refusal.KEY_TYPE, f"the key of {self} is neither RSA nor ECDSA")

    def issued_by(self, issuer: Certificate) -> bool:
        """Is the signature on it of that issuer?"""
        try:
            self.parsed.verify_directly_issued_by(issuer.parsed)
        except (InvalidSignature, UnsupportedAlgorithm, ValueError, TypeError):
            return False
        return True

    def has_subject(self, der: bytes) -> bool:
        """Is this DER name the subject? The kind of string, case and spaces at the ends do not count."""
        try:
            name = x509.Name.from_bytes(der)
        except Exception:  # the library raises many kinds for hostile octets
            return False
        return bool(name.rdns) and _ordered(name) == _ordered(self.parsed.subject)

    def has_subject_attributes(self, name: DistinguishedName) -> bool:
        """Is each attribute of `name` in the subject?"""
        return name.attributes <= _attributes(self.parsed.subject)

    def in_domain(self, domain: str) -> bool:
        """Is a subjectAltName this domain name, or in it?"""
        wanted = domain.lower()
        return any(name == wanted or name.endswith(f".{wanted}") for name in self.domains)


@dataclass(frozen=True, slots=True)
class DistinguishedName:
    """A name, or the part of one that a certificate must have."""

    text: str
    attributes: frozenset[tuple[str, str]]

    @classmethod
    def parse(cls, text: str) -> DistinguishedName:
        """From RFC 4514 (`CN=ce1,OU=members`). Raises ValueError."""
        name = x509.Name.from_rfc4514_string(text)
        if not name.rdns:
            raise ValueError("a distinguished name without attributes")
        return cls(text, _attributes(name))


@dataclass(frozen=True, slots=True)
class RevocationList:
    """A CRL that parses."""

    issuer_der: bytes = field(repr=False)
    this_update: float
    next_update: float
    parsed: x509.CertificateRevocationList = field(repr=False, compare=False)
    # Issuers, in DER, and whether the signature is of theirs: the same few are asked about again and again.
    _genuine: dict[bytes, bool] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def parse(cls, der: bytes) -> RevocationList:
        """From DER. Raises CertificateError: also for one without a next update, or with a rule we do not know."""
        try:
            crl = x509.load_der_x509_crl(der)
            critical = [item.oid.dotted_string for item in crl.extensions if item.critical]
            after = crl.next_update_utc
            if after is None or critical:
                problem = f"critical extension {critical[0]}" if critical else "no next update"
                raise CertificateError(Refusal.MALFORMED, f"a CRL is not usable: {problem}")
            return cls(crl.issuer.public_bytes(), crl.last_update_utc.timestamp(), after.timestamp(), crl)
        except CertificateError:
            raise
        except Exception as error:  # as above
            raise CertificateError(Refusal.MALFORMED, f"a CRL is malformed: {error}") from None

    def issued_by(self, issuer: Certificate) -> bool:
        """Is the signature on it of that issuer, who may sign CRLs?"""
        if issuer.der not in self._genuine:
            self._genuine[issuer.der] = issuer.signs_crls and self._signed_by(issuer)
        return self._genuine[issuer.der]

    def _signed_by(self, issuer: Certificate) -> bool:
        try:
            key = issuer.parsed.public_key()
            if not isinstance(key, (rsa.RSAPublicKey, ec.EllipticCurvePublicKey)):
                return False
            return self.parsed.is_signature_valid(key)
        except (InvalidSignature, UnsupportedAlgorithm, ValueError, TypeError):
            return False

    def revokes(self, certificate: Certificate) -> bool:
        """Is the certificate's serial number on it?"""
        return self.parsed.get_revoked_certificate_by_serial_number(certificate.serial) is not None


def load_private_key(der: bytes) -> PrivateKey:
    """PKCS #8 without a passphrase, RSA or ECDSA. Raises SignatureError."""
    try:
        key = serialization.load_der_private_key(der, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise SignatureError(f"no private key: {error}") from None
    if isinstance(key, rsa.RSAPrivateKey):
        return RsaPrivateKey(key)
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return EcdsaPrivateKey(key)
    raise SignatureError("the private key is neither RSA nor ECDSA")


def name_of(der: bytes) -> str:
    """A DER name as RFC 4514 writes it; nothing if it is none."""
    try:
        return x509.Name.from_bytes(der).rfc4514_string()
    except Exception:  # the library raises many kinds for hostile octets
        return ""


def belongs(private: PrivateKey, certificate: Certificate) -> bool:
    """Is the certificate about this private key?"""
    form = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return private.public.key.public_bytes(*form) == certificate.key.key.public_bytes(*form)


def _attributes(name: Iterable[x509.NameAttribute[str | bytes]]) -> frozenset[tuple[str, str]]:
    """Attributes of a name as they are compared: case and spaces at the ends do not count (RFC 5280 7.1)."""
    return frozenset((item.oid.dotted_string, str(item.value).strip().casefold()) for item in name)


def _ordered(name: x509.Name) -> list[frozenset[tuple[str, str]]]:
    return [_attributes(part) for part in name.rdns]


def _extension(extensions: x509.Extensions, kind: type[E]) -> E | None:
    try:
        return extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def _read(der: bytes) -> Certificate:
    parsed = x509.load_der_x509_certificate(der)
    extensions = parsed.extensions
    unknown = [item.oid.dotted_string for item in extensions if item.critical and item.oid not in _UNDERSTOOD]
    if unknown:
        raise CertificateError(
            Refusal.MALFORMED, f"a certificate has the critical extension {unknown[0]}, not known here"
        )
    constraints = _extension(extensions, x509.BasicConstraints)
    usage = _extension(extensions, x509.KeyUsage)
    names = _extension(extensions, x509.SubjectAlternativeName)
    addresses = [] if names is None else names.get_values_for_type(x509.IPAddress)
    return Certificate(
        der=der,
        parsed=parsed,
        subject=parsed.subject.rfc4514_string(),
        issuer=parsed.issuer.rfc4514_string(),
        subject_der=parsed.subject.public_bytes(),
        issuer_der=parsed.issuer.public_bytes(),
        serial=parsed.serial_number,
        not_before=parsed.not_valid_before_utc.timestamp(),
        not_after=parsed.not_valid_after_utc.timestamp(),
        domains=() if names is None else tuple(name.lower() for name in names.get_values_for_type(x509.DNSName)),
        mailboxes=() if names is None else tuple(names.get_values_for_type(x509.RFC822Name)),
        addresses=tuple(item for item in addresses if isinstance(item, (IPv4Address, IPv6Address))),
        is_authority=None if constraints is None else constraints.ca,
        path_length=None if constraints is None else constraints.path_length,
        signs=usage is None or usage.digital_signature or usage.content_commitment,
        signs_certificates=usage is None or usage.key_cert_sign,
        signs_crls=usage is None or usage.crl_sign,
    )
