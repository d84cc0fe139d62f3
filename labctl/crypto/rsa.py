"""RSA keys: EMSA-PKCS1-v1_5 signatures with DigestInfo (rekeys, RFC 6407 5.3.6.1) and without (RFC 2409 5.1)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import NoDigestInfo, Prehashed

from labctl.configuration import Hash
from labctl.crypto.hashes import ALGORITHMS, equal

PUBLIC_EXPONENT = 65537


class SignatureError(ValueError):
    """A signature does not verify, or a key cannot be read."""


# The same few keys verify every rekey: each is read once.
@lru_cache(maxsize=64)
def _load_public(data: bytes) -> rsa.RSAPublicKey:
    try:
        key = serialization.load_der_public_key(data)
    except Exception as error:  # the library raises several kinds for hostile octets
        raise SignatureError(f"not a public key: {error}") from None
    if not isinstance(key, rsa.RSAPublicKey):
        raise SignatureError("not an RSA public key")
    return key


@dataclass(frozen=True, slots=True)
class RsaPublicKey:
    """The public half."""

    key: rsa.RSAPublicKey

    @classmethod
    def from_der(cls, data: bytes) -> RsaPublicKey:
        """From a DER SubjectPublicKeyInfo. Raises SignatureError."""
        return cls(_load_public(data))

    @classmethod
    def from_numbers(cls, modulus: int, exponent: int) -> RsaPublicKey:
        """From its numbers: for test vectors."""
        return cls(rsa.RSAPublicNumbers(exponent, modulus).public_key())

    @property
    def der(self) -> bytes:
        """DER SubjectPublicKeyInfo, as KD carries it."""
        return self.key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)

    @property
    def bits(self) -> int:
        """Size of the modulus."""
        return self.key.key_size

    @property
    def signature_length(self) -> int:
        """Octets of a signature."""
        return (self.key.key_size + 7) // 8

    def verify(self, signature: bytes, name: Hash, digest: bytes, *, digest_info: bool = True) -> None:
        """Check a signature over a digest. Raises SignatureError."""
        try:
            if digest_info:
                self.key.verify(signature, digest, padding.PKCS1v15(), Prehashed(ALGORITHMS[name]))
                return
            content = self.key.recover_data_from_signature(signature, padding.PKCS1v15(), None)
        except (InvalidSignature, ValueError):
            raise SignatureError("the signature does not verify") from None
        if not equal(content, digest):
            raise SignatureError("the signature does not verify")


@dataclass(frozen=True, slots=True)
class RsaPrivateKey:
    """A key pair."""

    key: rsa.RSAPrivateKey

    @classmethod
    def from_der(cls, data: bytes) -> RsaPrivateKey:
        """PKCS #8 without a passphrase. Raises SignatureError."""
        try:
            key = serialization.load_der_private_key(data, password=None)
        except (ValueError, TypeError) as error:
            raise SignatureError(f"no private key: {error}") from None
        if not isinstance(key, rsa.RSAPrivateKey):
            raise SignatureError("the private key is not of RSA")
        return cls(key)

    @property
    def public(self) -> RsaPublicKey:
        """The public half."""
        return RsaPublicKey(self.key.public_key())

    def sign(self, name: Hash, digest: bytes, *, digest_info: bool = True) -> bytes:
        """Signature over a digest, as long as the modulus."""
        scheme = Prehashed(ALGORITHMS[name]) if digest_info else NoDigestInfo()
        return self.key.sign(digest, padding.PKCS1v15(), scheme)


def generate_rsa_key(bits: int = 2048) -> RsaPrivateKey:
    """A new key pair from the library's random source. Takes a tenth of a second or more: not for an event loop."""
    return RsaPrivateKey(rsa.generate_private_key(PUBLIC_EXPONENT, bits))


__all__ = ["RsaPrivateKey", "RsaPublicKey", "SignatureError", "generate_rsa_key"]
