"""Certificates for tests, good ones and every kind of bad one: made with the library directly, not with ours."""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from labctl.configuration import Trustpoint

Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey

# The lab's wall clock at 0 of the parties' clock: 2030-01-01.
STARTED = 1_893_456_000.0
DAY = 86_400.0
CURVES = {256: ec.SECP256R1(), 384: ec.SECP384R1(), 521: ec.SECP521R1()}


@cache
def key_pair(kind: str, number: int = 0) -> Key:
    """`rsa`, or the bits of a curve; `number` tells several apart."""
    if kind == "rsa":
        return rsa.generate_private_key(65537, 2048)
    return ec.generate_private_key(CURVES[int(kind)])


def der(item: x509.Certificate | x509.CertificateRevocationList) -> bytes:
    return item.public_bytes(serialization.Encoding.DER)


def pkcs8(key: Key) -> bytes:
    return key.private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def time(at: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(STARTED + at, datetime.UTC)


def usage(**wanted: bool) -> x509.KeyUsage:
    names = (
        "digital_signature content_commitment key_encipherment data_encipherment key_agreement key_cert_sign crl_sign "
        "encipher_only decipher_only"
    )
    return x509.KeyUsage(**{name: wanted.get(name, False) for name in names.split()})


@dataclass
class Issued:
    """A certificate with its key, and those of the CAs above it that have to be sent along."""

    certificate: x509.Certificate
    key: Key
    above: tuple[bytes, ...] = ()

    @property
    def chain(self) -> tuple[bytes, ...]:
        return (der(self.certificate), *self.above)

    @property
    def subject(self) -> str:
        return self.certificate.subject.rfc4514_string()


@dataclass
class Authority:
    """A CA; one below another where `parent` is set. Times are seconds on the parties' clock."""

    name: str = "CN=LAB-CA,O=lab"
    kind: str = "rsa"
    number: int = 0
    parent: Authority | None = None
    begins: float = -DAY
    ends: float = 365 * DAY
    is_authority: bool | None = True
    path_length: int | None = None
    key_usage: x509.KeyUsage | None = field(default_factory=lambda: usage(key_cert_sign=True, crl_sign=True))
    serial: int = 1

    def __post_init__(self) -> None:
        self.key = key_pair(self.kind, 1000 + self.number)
        extensions: list[tuple[x509.ExtensionType, bool]] = []
        if self.is_authority is not None:
            length = self.path_length if self.is_authority else None
            extensions.append((x509.BasicConstraints(self.is_authority, length), True))
        if self.key_usage is not None:
            extensions.append((self.key_usage, True))
        issuer = self.parent or self
        self.certificate = sign(
            self.name, issuer.name, self.key, issuer.key, self.begins, self.ends, extensions, serial=1000 + self.number
        )

    @property
    def der(self) -> bytes:
        return der(self.certificate)

    @property
    def above(self) -> tuple[bytes, ...]:
        """This CA and those above it but the root: what a peer has to be sent."""
        return () if self.parent is None else (self.der, *self.parent.above)

    def issue(
        self,
        subject: str = "CN=ce1,OU=members,O=lab",
        *,
        fqdns: Sequence[str] = ("ce1.lab.example",),
        addresses: Sequence[str] = (),
        mailboxes: Sequence[str] = (),
        kind: str = "rsa",
        number: int = 0,
        begins: float = -DAY,
        ends: float = 300 * DAY,
        extensions: Sequence[tuple[x509.ExtensionType, bool]] = (),
        signed_with: Key | None = None,
    ) -> Issued:
        key = key_pair(kind, number)
        names: list[x509.GeneralName] = [x509.DNSName(name) for name in fqdns]
        names += [x509.IPAddress(ipaddress.ip_address(address)) for address in addresses]
        names += [x509.RFC822Name(name) for name in mailboxes]
        added = [(x509.SubjectAlternativeName(names), False)] if names else []
        self.serial += 1
        certificate = sign(
            subject, self.name, key, signed_with or self.key, begins, ends, [*added, *extensions], serial=self.serial
        )
        return Issued(certificate, key, self.above)

    def crl(
        self,
        *revoked: Issued | Authority,
        updated: float = -DAY,
        following: float | None = 30 * DAY,
        signed_with: Key | None = None,
        extensions: Sequence[tuple[x509.ExtensionType, bool]] = (),
    ) -> bytes:
        builder = x509.CertificateRevocationListBuilder().issuer_name(x509.Name.from_rfc4514_string(self.name))
        builder = builder.last_update(time(updated)).next_update(time(30 * DAY if following is None else following))
        for item in revoked:
            entry = x509.RevokedCertificateBuilder().serial_number(item.certificate.serial_number)
            builder = builder.add_revoked_certificate(entry.revocation_date(time(updated)).build())
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical)
        return der(builder.sign(signed_with or self.key, hashes.SHA256()))


def sign(
    subject: str,
    issuer: str,
    key: Key,
    signer: Key,
    begins: float,
    ends: float,
    extensions: Sequence[tuple[x509.ExtensionType, bool]],
    *,
    serial: int,
) -> x509.Certificate:
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name.from_rfc4514_string(subject))
        .issuer_name(x509.Name.from_rfc4514_string(issuer))
        .public_key(key.public_key())
        .serial_number(serial)
        .not_valid_before(time(begins))
        .not_valid_after(time(ends))
    )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    return builder.sign(signer, hashes.SHA256())


def trustpoint(
    authority: Authority,
    own: Issued | None = None,
    *,
    crls: Sequence[bytes] | None = None,
    fqdn: str | None = "ce1.lab.example",
    check_revocation: bool = True,
    name: str = "LAB-CA",
) -> Trustpoint:
    """A trustpoint with the CRLs of the authority and of those below it that the certificate needs."""
    return Trustpoint(
        name,
        (authority.der,),
        () if own is None else own.chain,
        b"" if own is None else pkcs8(own.key),
        (authority.crl(),) if crls is None else tuple(crls),
        check_revocation,
        fqdn,
    )
