"""Certificates, revocation lists and PEM of ours, as openssl sees them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from labctl.crypto import RsaPrivateKey
from labctl.crypto.authority import (
    Revoked,
    certificate_facts,
    certificate_pem,
    generate_key,
    issue_certificate,
    make_authority,
    revocation_list,
)
from labctl.crypto.certificate_path import Trust, parse_chain, verify_path
from labctl.crypto.certificates import CertificateError, Refusal
from labctl.crypto.rsa_pem import PemError, WrongPassphrase, export_pem, import_pem, public_key_of

# 2026-01-01 00:00 UTC.
NOW, DAY = 1767225600.0, 86400.0


def openssl(*words: str | Path, given: bytes = b"") -> str:
    done = subprocess.run(["openssl", *map(str, words)], input=given, capture_output=True, check=False)
    return (done.stdout + done.stderr).decode()


@pytest.fixture(
    scope="module", params=[("rsa", 2048), ("ecdsa", 256), ("ecdsa", 384)], ids=lambda item: f"{item[0]}-{item[1]}"
)
def authority(request: pytest.FixtureRequest) -> tuple[bytes, bytes]:
    key = generate_key(*request.param)
    return key, make_authority(key, "LAB_CA", 1, NOW - DAY, NOW + 100 * DAY)


@pytest.fixture(scope="module")
def certificate(authority: tuple[bytes, bytes]) -> bytes:
    key = generate_key("ecdsa", 256)
    names = ["ce1.lab.example"]
    return issue_certificate(authority, key, "CN=ce1,OU=members,O=lab", names, 2, (NOW - DAY, NOW + DAY))


def write(folder: Path, name: str, data: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


def verify(folder: Path, authority: bytes, certificate: bytes, *more: str | Path, at: float = NOW) -> str:
    ca = write(folder, "ca.pem", certificate_pem(authority))
    own = write(folder, "own.pem", certificate_pem(certificate))
    return openssl("verify", "-x509_strict", "-attime", str(int(at)), "-CAfile", ca, *more, own)


def test_openssl_trusts_what_an_authority_issued(
    authority: tuple[bytes, bytes], certificate: bytes, tmp_path: Path
) -> None:
    assert verify(tmp_path, authority[1], certificate).strip().endswith("own.pem: OK")
    text = openssl("x509", "-noout", "-text", "-inform", "DER", given=certificate)
    assert "CN = ce1" in text or "CN=ce1" in text
    assert "DNS:ce1.lab.example" in text
    assert "Digital Signature" in text and "CA:FALSE" in text


def test_openssl_sees_the_end_of_a_certificate(
    authority: tuple[bytes, bytes], certificate: bytes, tmp_path: Path
) -> None:
    assert "certificate has expired" in verify(tmp_path, authority[1], certificate, at=NOW + 2 * DAY)
    assert "not yet valid" in verify(tmp_path, authority[1], certificate, at=NOW - 2 * DAY)


def test_openssl_trusts_no_other_authority_of_the_same_name(certificate: bytes, tmp_path: Path) -> None:
    other = make_authority(generate_key("ecdsa", 256), "LAB_CA", 1, NOW - DAY, NOW + DAY)
    assert "OK" not in verify(tmp_path, other, certificate)


def test_openssl_finds_a_certificate_on_the_list(
    authority: tuple[bytes, bytes], certificate: bytes, tmp_path: Path
) -> None:
    def listed(name: str, *entries: Revoked) -> Path:
        made = revocation_list(authority, entries, 3, NOW - 60, NOW + DAY)
        return write(tmp_path, name, openssl("crl", "-inform", "DER", given=made))

    empty = listed("empty.pem")
    assert "OK" in verify(tmp_path, authority[1], certificate, "-crl_check", "-CRLfile", empty)
    full = listed("full.pem", Revoked(2, NOW - 30), Revoked(9, NOW))
    assert "certificate revoked" in verify(tmp_path, authority[1], certificate, "-crl_check", "-CRLfile", full)
    text = openssl("crl", "-noout", "-text", "-in", full)
    assert "X509v3 CRL Number" in text and "Serial Number: 09" in text


def test_a_path_that_is_looked_at_again_is_refused_for_what_is_wrong_now(
    authority: tuple[bytes, bytes], certificate: bytes
) -> None:
    def trust(*entries: Revoked) -> Trust:
        crl = revocation_list(authority, entries, 3, NOW - 60, NOW + DAY)
        return Trust.parse([authority[1]], [crl], check_revocation=True)

    path = verify_path(parse_chain([certificate]), trust(), NOW)
    assert path == verify_path(path, trust(), NOW)
    with pytest.raises(CertificateError) as caught:
        verify_path(path, trust(Revoked(2, NOW - 30)), NOW)
    assert caught.value.refusal is Refusal.REVOKED


def test_what_a_certificate_says_is_read_back(certificate: bytes) -> None:
    facts = certificate_facts(certificate)
    assert facts.subject == "CN=ce1,OU=members,O=lab"
    assert facts.issuer == "CN=LAB_CA"
    assert (facts.serial, facts.not_before, facts.not_after) == (2, NOW - DAY, NOW + DAY)
    assert (facts.fqdns, facts.key) == (("ce1.lab.example",), "ECDSA P-256")


@pytest.fixture(scope="module")
def pair() -> bytes:
    return generate_key("rsa", 2048)


def test_openssl_opens_an_exported_pair_with_its_passphrase_alone(pair: bytes, tmp_path: Path) -> None:
    exported = write(tmp_path, "pair.pem", export_pem(pair, b"cisco123"))
    assert "Key is valid" in openssl("pkey", "-check", "-noout", "-in", exported, "-passin", "pass:cisco123")
    assert "Key is valid" not in openssl("pkey", "-check", "-noout", "-in", exported, "-passin", "pass:cisco124")
    public = openssl("pkey", "-in", exported, "-passin", "pass:cisco123", "-pubout")
    assert exported.read_text().startswith(public.strip())


def test_an_exported_pair_comes_back_the_same(pair: bytes) -> None:
    again = import_pem(export_pem(pair, b"pass").encode(), b"pass")
    assert public_key_of(again) == public_key_of(pair) == RsaPrivateKey.from_der(pair).public.der


@pytest.mark.parametrize(
    "form",
    [
        ["rsa", "-traditional", "-des3", "-passout", "pass:secret99"],  # as routers print it
        ["pkcs8", "-topk8", "-v2", "aes-256-cbc", "-passout", "pass:secret99"],
        ["pkcs8", "-topk8", "-nocrypt"],
    ],
    ids=["3des", "pkcs8", "clear"],
)
def test_pairs_that_openssl_wrote_are_taken(pair: bytes, form: list[str], tmp_path: Path) -> None:
    clear = write(tmp_path, "clear.der", pair)
    pem = openssl(form[0], "-in", clear, "-inform", "DER", *form[1:])
    assert "PRIVATE KEY" in pem
    assert public_key_of(import_pem(pem.encode(), b"secret99")) == public_key_of(pair)
    if "-nocrypt" not in form:
        with pytest.raises(WrongPassphrase):
            import_pem(pem.encode(), b"secret98")


def test_what_is_no_rsa_pair_is_refused_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(PemError, match="no private key"):
        import_pem(b"-----BEGIN PUBLIC KEY-----\n-----END PUBLIC KEY-----\n", b"")
    with pytest.raises(PemError, match="cannot be read"):
        import_pem(b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", b"")
    curve = openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256")
    with pytest.raises(PemError, match="not of RSA"):
        import_pem(curve.encode(), b"")
    short = openssl("genrsa", "512")
    with pytest.raises(PemError):
        import_pem(short.encode(), b"")
