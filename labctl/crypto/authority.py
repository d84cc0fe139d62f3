"""A certification authority: key pairs, X.509 certificates and revocation lists (RFC 5280), for labs.

Everything goes in and out as DER, times as seconds since 1970, names as RFC 4514 text. What certificates of IKE carry
is RFC 4945 section 5: a subject, the domain name as subjectAltName, digitalSignature as key usage.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from labctl.crypto.rsa import PUBLIC_EXPONENT, SignatureError

_CURVES: dict[int, type[ec.EllipticCurve]] = {256: ec.SECP256R1, 384: ec.SECP384R1}
_PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


@dataclass(frozen=True, slots=True)
class CertificateFacts:
    """What a certificate says. `key` is for people: `RSA 2048`, `ECDSA P-256`."""

    subject: str
    issuer: str
    serial: int
    not_before: float
    not_after: float
    fqdns: tuple[str, ...]
    key: str


@dataclass(frozen=True, slots=True)
class Revoked:
    """An entry of a revocation list."""

    serial: int
    time: float


def generate_key(kind: str, bits: int) -> bytes:
    """PKCS #8 of a new `rsa` or `ecdsa` key pair. RSA takes a tenth of a second or more, without the GIL."""
    key = rsa.generate_private_key(PUBLIC_EXPONENT, bits) if kind == "rsa" else ec.generate_private_key(_CURVES[bits]())
    return key.private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def make_authority(key: bytes, name: str, serial: int, not_before: float, not_after: float) -> bytes:
    """The self-signed certificate of a CA called `name`."""
    private = _load(key)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = _builder(subject, subject, private.public_key(), serial, not_before, not_after)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_usage(authority=True), critical=True)
    return builder.sign(private, _hash(private)).public_bytes(serialization.Encoding.DER)


def issue_certificate(
    authority: tuple[bytes, bytes],
    key: bytes,
    subject: str,
    fqdns: Sequence[str],
    serial: int,
    validity: tuple[float, float],
) -> bytes:
    """A certificate for the holder of `key`, signed by an authority, which is its key and its certificate."""
    signer, issuer = _load(authority[0]), x509.load_der_x509_certificate(authority[1])
    name = x509.Name.from_rfc4514_string(subject)
    builder = _builder(issuer.subject, name, _load(key).public_key(), serial, *validity)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_usage(authority=False), critical=True)
    builder = builder.add_extension(
        x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False
    )
    if fqdns:
        names = x509.SubjectAlternativeName([x509.DNSName(fqdn) for fqdn in fqdns])
        builder = builder.add_extension(names, critical=False)
    return builder.sign(signer, _hash(signer)).public_bytes(serialization.Encoding.DER)


def revocation_list(
    authority: tuple[bytes, bytes], revoked: Sequence[Revoked], number: int, this_update: float, next_update: float
) -> bytes:
    """The authority's CRL, the `number`th (RFC 5280 5.2.3)."""
    signer, issuer = _load(authority[0]), x509.load_der_x509_certificate(authority[1])
    builder = x509.CertificateRevocationListBuilder(issuer.subject, _moment(this_update), _moment(next_update))
    for item in revoked:
        entry = x509.RevokedCertificateBuilder(item.serial, _moment(item.time)).build()
        builder = builder.add_revoked_certificate(entry)
    builder = builder.add_extension(x509.CRLNumber(number), critical=False)
    builder = builder.add_extension(
        x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False
    )
    return builder.sign(signer, _hash(signer)).public_bytes(serialization.Encoding.DER)


def certificate_facts(certificate: bytes) -> CertificateFacts:
    """Read a certificate that we made. Raises ValueError."""
    read = x509.load_der_x509_certificate(certificate)
    try:
        names = read.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        fqdns = tuple(names.get_values_for_type(x509.DNSName))
    except x509.ExtensionNotFound:
        fqdns = ()
    key = read.public_key()
    if isinstance(key, rsa.RSAPublicKey):
        words = f"RSA {key.key_size}"
    else:
        words = f"ECDSA P-{key.curve.key_size}" if isinstance(key, ec.EllipticCurvePublicKey) else "another"
    return CertificateFacts(
        read.subject.rfc4514_string(),
        read.issuer.rfc4514_string(),
        read.serial_number,
        read.not_valid_before_utc.timestamp(),
        read.not_valid_after_utc.timestamp(),
        fqdns,
        words,
    )


def certificate_pem(certificate: bytes) -> str:
    """The same certificate as PEM."""
    return x509.load_der_x509_certificate(certificate).public_bytes(serialization.Encoding.PEM).decode()


def _builder(
    issuer: x509.Name,
    subject: x509.Name,
    public: rsa.RSAPublicKey | ec.EllipticCurvePublicKey,
    serial: int,
    not_before: float,
    not_after: float,
) -> x509.CertificateBuilder:
    builder = x509.CertificateBuilder(issuer, subject, public, serial, _moment(not_before), _moment(not_after))
    return builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)


def _usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )


def _load(key: bytes) -> _PrivateKey:
    private = serialization.load_der_private_key(key, password=None)
    if not isinstance(private, (rsa.RSAPrivateKey, ec.EllipticCurvePrivateKey)):
        raise SignatureError("a private key of neither RSA nor ECDSA")
    return private


def _hash(key: _PrivateKey) -> hashes.SHA256 | hashes.SHA384:
    """As strong as the key that signs (RFC 5480 4)."""
    return hashes.SHA384() if isinstance(key, ec.EllipticCurvePrivateKey) and key.key_size > 256 else hashes.SHA256()


def _moment(seconds: float) -> datetime:
    # X.509 knows whole seconds.
    return datetime.fromtimestamp(int(seconds), UTC)
