"""RSA key pairs as PEM: what `crypto key export rsa` prints, and `crypto key import rsa` reads.

Encrypted PKCS #8 goes out (PBES2, RFC 8018); PKCS #8 and the older form with a `DEK-Info` line, which routers print,
come in.
"""

from __future__ import annotations

import re

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from labctl.crypto.rsa import RsaPrivateKey

# `crypto key generate rsa modulus`: less signs nothing any more, more takes minutes to make.
SMALLEST_MODULUS, LARGEST_MODULUS = 1024, 4096
# A PEM of the largest key is some 3,500 octets.
LONGEST_PEM = 65536

_BLOCK = re.compile(rb"-----BEGIN ([A-Z ]*)PRIVATE KEY-----.*?-----END \1PRIVATE KEY-----", re.DOTALL)


class PemError(ValueError):
    """The text holds no RSA key pair that can be read; the words are for the user."""


class WrongPassphrase(PemError):
    """The passphrase does not open it."""


def export_pem(private_key: bytes, passphrase: bytes) -> str:
    """The public key, then the private key under the passphrase, as PEM. `private_key` is PKCS #8 in DER."""
    key = RsaPrivateKey.from_der(private_key).key
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(passphrase),
    )
    return (public + private).decode()


def import_pem(text: bytes, passphrase: bytes) -> bytes:
    """The private key of the PEM text (its first; public keys are passed over) as PKCS #8 in DER.

    Raises WrongPassphrase, PemError.
    """
    block = _BLOCK.search(text[:LONGEST_PEM])
    if block is None:
        raise PemError("there is no private key in it")
    encrypted = block[1] == b"ENCRYPTED " or b"Proc-Type: 4,ENCRYPTED" in block[0].replace(b"\r", b"")
    try:
        key = serialization.load_pem_private_key(block[0] + b"\n", passphrase if encrypted else None)
    except Exception as error:  # the library raises several kinds for what it cannot read
        if encrypted:
            raise WrongPassphrase("the passphrase does not open it") from None
        raise PemError(f"its private key cannot be read: {error}") from None
    if not isinstance(key, rsa.RSAPrivateKey):
        raise PemError("its private key is not of RSA")
    if not SMALLEST_MODULUS <= key.key_size <= LARGEST_MODULUS:
        raise PemError(f"its modulus has {key.key_size} bits; {SMALLEST_MODULUS} to {LARGEST_MODULUS} are taken")
    return key.private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def public_key_of(private_key: bytes) -> bytes:
    """DER SubjectPublicKeyInfo: the `Key Data` of `show crypto key mypubkey rsa`."""
    return RsaPrivateKey.from_der(private_key).public.der


def modulus_bits(private_key: bytes) -> int:
    """The size of the pair."""
    return RsaPrivateKey.from_der(private_key).public.bits
