"""ECDSA as phase 1 uses it: r | s over a digest, by RFC 4754's own vector and by OpenSSL."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from pki_material import CURVES, key_pair

from labctl import crypto
from labctl.configuration import Hash
from labctl.crypto import EcdsaPrivateKey, EcdsaPublicKey, SignatureError

# RFC 4754 8.1.
PRIVATE = 0xDC51D3866A15BACDE33D96F992FCA99DA7E6EF0934E7097559C27F1614C88A7F
PUBLIC = (
    0x2442A5CC0ECD015FA3CA31DC8E2BBC70BF42D60CBCA20085E0822CB04235E970,
    0x6FC98BD7E50211A4A27102FA3549DF79EBCB4BF246B80945CDDFE7D509BBFD7D,
)
SIGNATURE = bytes.fromhex(
    "cb28e0999b9c7715fd0a80d8e47a77079716cbbf917dd72e97566ea1c066957c"
    "86fa3bb4e26cad5bf90b7f81899256ce7594bb1ea0c89212748bff3b3d5b0315"
)


def own_key(bits: int) -> EcdsaPrivateKey:
    key = key_pair(str(bits))
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return EcdsaPrivateKey(key)


def test_the_signature_of_rfc_4754_verifies() -> None:
    digest = crypto.digest(Hash.SHA256, b"abc")
    public = EcdsaPublicKey(ec.EllipticCurvePublicNumbers(*PUBLIC, ec.SECP256R1()).public_key())
    assert EcdsaPrivateKey(ec.derive_private_key(PRIVATE, ec.SECP256R1())).public.key == public.key
    public.verify(SIGNATURE, digest)
    for wrong in (SIGNATURE[:-1] + b"\x00", SIGNATURE[32:] + SIGNATURE[:32], bytes(64), SIGNATURE + b"\x00", b""):
        with pytest.raises(SignatureError):
            public.verify(wrong, digest)
    with pytest.raises(SignatureError):
        public.verify(SIGNATURE, crypto.digest(Hash.SHA256, b"abd"))


@pytest.mark.parametrize(("bits", "octets"), [(256, 64), (384, 96), (521, 132)])
def test_a_signature_has_the_length_of_its_curve_and_openssl_accepts_it(bits: int, octets: int, tmp_path: Path) -> None:
    key = own_key(bits)
    digest = crypto.digest(key.public.hash, b"message")
    signature = key.sign(digest)
    assert len(signature) == octets == key.public.signature_length
    key.public.verify(signature, digest)
    r, s = int.from_bytes(signature[: octets // 2], "big"), int.from_bytes(signature[octets // 2 :], "big")
    files = {
        "message": b"message",
        "signature": encode_dss_signature(r, s),
        "key": key.public.key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo),
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    name = {Hash.SHA256: "-sha256", Hash.SHA384: "-sha384", Hash.SHA512: "-sha512"}[key.public.hash]
    words = ["openssl", "dgst", name, "-verify", "key", "-signature", "signature", "message"]
    verdict = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert verdict.stdout.strip() == "Verified OK", verdict.stderr


def test_a_curve_that_phase_1_does_not_know_is_refused() -> None:
    assert set(CURVES) == {256, 384, 521}
    other = ec.generate_private_key(ec.SECP256K1())
    with pytest.raises(SignatureError, match="secp256k1"):
        EcdsaPrivateKey(other)
    with pytest.raises(SignatureError, match="secp256k1"):
        EcdsaPublicKey(other.public_key())
