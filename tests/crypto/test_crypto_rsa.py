"""RSA signatures of both kinds, keys as they travel, and openssl as the oracle."""

from __future__ import annotations

import contextlib
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from labctl import crypto
from labctl.configuration import Hash
from labctl.crypto import RsaPrivateKey, RsaPublicKey, SignatureError


@pytest.fixture(scope="module")
def key() -> RsaPrivateKey:
    return crypto.generate_rsa_key(2048)


KINDS = pytest.mark.parametrize("digest_info", [True, False])


@KINDS
@pytest.mark.parametrize("name", Hash)
def test_a_signature_verifies_and_only_over_its_digest(key: RsaPrivateKey, name: Hash, digest_info: bool) -> None:
    digest = crypto.digest(name, b"rekey")
    signature = key.sign(name, digest, digest_info=digest_info)
    assert len(signature) == key.public.signature_length == 256
    key.public.verify(signature, name, digest, digest_info=digest_info)
    with pytest.raises(SignatureError):
        key.public.verify(signature, name, crypto.digest(name, b"rekez"), digest_info=digest_info)


@KINDS
def test_one_kind_of_signature_does_not_pass_as_the_other(key: RsaPrivateKey, digest_info: bool) -> None:
    digest = crypto.digest(Hash.SHA256, b"rekey")
    signature = key.sign(Hash.SHA256, digest, digest_info=digest_info)
    with pytest.raises(SignatureError):
        key.public.verify(signature, Hash.SHA256, digest, digest_info=not digest_info)


def test_a_signature_without_digest_info_holds_the_bare_digest(key: RsaPrivateKey) -> None:
    """PKCS#1 type 1 block: 00 01 FF.. 00 and then nothing but HASH (RFC 2409 5.1)."""
    digest = crypto.digest(Hash.SHA1, b"HASH_I")
    signature = key.sign(Hash.SHA1, digest, digest_info=False)
    numbers = key.public.key.public_numbers()
    block = pow(int.from_bytes(signature, "big"), numbers.e, numbers.n).to_bytes(256, "big")
    assert block == b"\x00\x01" + b"\xff" * (256 - 3 - len(digest)) + b"\x00" + digest


@KINDS
def test_altered_cut_and_grown_signatures_are_refused(key: RsaPrivateKey, digest_info: bool) -> None:
    digest = crypto.digest(Hash.SHA256, b"rekey")
    good = key.sign(Hash.SHA256, digest, digest_info=digest_info)
    for bad in (b"", good[:-1], good + b"\x00", bytes([good[0] ^ 1]) + good[1:], bytes(256), b"\xff" * 256):
        with pytest.raises(SignatureError):
            key.public.verify(bad, Hash.SHA256, digest, digest_info=digest_info)


def test_the_signature_of_another_key_is_refused(key: RsaPrivateKey) -> None:
    digest = crypto.digest(Hash.SHA256, b"rekey")
    with pytest.raises(SignatureError):
        crypto.generate_rsa_key(2048).public.verify(key.sign(Hash.SHA256, digest), Hash.SHA256, digest)


def test_a_public_key_survives_the_way_through_der(key: RsaPrivateKey) -> None:
    again = RsaPublicKey.from_der(key.public.der)
    assert again.der == key.public.der
    assert again.bits == 2048
    # The reference's captures carry 294 octets for RSA-2048 too.
    assert len(again.der) == 294
    numbers = key.public.key.public_numbers()
    assert RsaPublicKey.from_numbers(numbers.n, numbers.e).der == again.der


def test_openssl_reads_our_public_key_and_accepts_our_signature(key: RsaPrivateKey, tmp_path: Path) -> None:
    message, signature, public = tmp_path / "message", tmp_path / "signature", tmp_path / "public.der"
    message.write_bytes(b"rekey")
    signature.write_bytes(key.sign(Hash.SHA256, crypto.digest(Hash.SHA256, b"rekey")))
    public.write_bytes(key.public.der)
    verdict = subprocess.run(
        ["openssl", "dgst", "-sha256", "-verify", public, "-keyform", "DER", "-signature", signature, message],
        capture_output=True,
        text=True,
        check=False,
    )
    assert verdict.stdout.strip() == "Verified OK", verdict.stderr


def test_a_key_that_is_not_rsa_is_refused() -> None:
    curve = ec.generate_private_key(ec.SECP256R1()).public_key()
    der = curve.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    with pytest.raises(SignatureError, match="not an RSA"):
        RsaPublicKey.from_der(der)


@given(st.binary(max_size=80))
def test_octets_of_any_kind_are_a_key_or_the_one_error(data: bytes) -> None:
    with contextlib.suppress(SignatureError):
        RsaPublicKey.from_der(data)


@given(st.data())
def test_a_mutated_key_is_a_key_or_the_one_error(key: RsaPrivateKey, data: st.DataObject) -> None:
    der = bytearray(key.public.der)
    for _ in range(data.draw(st.integers(1, 4))):
        der[data.draw(st.integers(0, len(der) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(SignatureError):
        RsaPublicKey.from_der(bytes(der[: data.draw(st.integers(0, len(der)))]))
