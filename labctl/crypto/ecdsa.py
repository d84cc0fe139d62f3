"""ECDSA keys for phase 1 (RFC 4754): a signature is r | s, each as long as the curve's order.

The library draws a signature's secret number from its own random source, for the reason that `diffie_hellman.py` gives.
"""

from __future__ import annotations

from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, decode_dss_signature, encode_dss_signature

from labctl.configuration import Hash
from labctl.crypto.hashes import ALGORITHMS
from labctl.crypto.rsa import SignatureError

# The hash that RFC 4754 ties to each curve, and the octets of r and of s.
CURVES = {"secp256r1": (Hash.SHA256, 32), "secp384r1": (Hash.SHA384, 48), "secp521r1": (Hash.SHA512, 66)}


@dataclass(frozen=True, slots=True)
class EcdsaPublicKey:
    """The public half, on one of `CURVES`."""

    key: ec.EllipticCurvePublicKey

    def __post_init__(self) -> None:
        """Raises SignatureError for another curve."""
        if self.key.curve.name not in CURVES:
            raise SignatureError(f"curve {self.key.curve.name} is none of phase 1")

    @property
    def hash(self) -> Hash:
        """What is signed is a digest of this hash."""
        return CURVES[self.key.curve.name][0]

    @property
    def signature_length(self) -> int:
        """Octets of a signature."""
        return 2 * CURVES[self.key.curve.name][1]

    def verify(self, signature: bytes, digest: bytes) -> None:
        """Check r | s over a digest. Raises SignatureError."""
        if len(signature) != self.signature_length:
            raise SignatureError(f"a signature of {len(signature)} octets instead of {self.signature_length}")
        half = len(signature) // 2
        r, s = int.from_bytes(signature[:half], "big"), int.from_bytes(signature[half:], "big")
        try:
            self.key.verify(encode_dss_signature(r, s), digest, ec.ECDSA(Prehashed(ALGORITHMS[self.hash])))
        except (InvalidSignature, ValueError):
            raise SignatureError("the signature does not verify") from None


@dataclass(frozen=True, slots=True)
class EcdsaPrivateKey:
    """A key pair on one of `CURVES`."""

    key: ec.EllipticCurvePrivateKey

    def __post_init__(self) -> None:
        """Raises SignatureError for another curve."""
        EcdsaPublicKey(self.key.public_key())

    @property
    def public(self) -> EcdsaPublicKey:
        """The public half."""
        return EcdsaPublicKey(self.key.public_key())

    def sign(self, digest: bytes) -> bytes:
        """r | s over a digest of the curve's hash."""
        name, octets = CURVES[self.key.curve.name]
        r, s = decode_dss_signature(self.key.sign(digest, ec.ECDSA(Prehashed(ALGORITHMS[name]))))
        return r.to_bytes(octets, "big") + s.to_bytes(octets, "big")
