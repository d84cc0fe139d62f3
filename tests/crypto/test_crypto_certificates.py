"""Certificates, chains and CRLs: judged as OpenSSL judges them, and unmoved by hostile octets."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from hypothesis import given, settings
from hypothesis import strategies as st
from pki_material import DAY, STARTED, Authority, Issued, key_pair, pkcs8, time, usage

from labctl import crypto
from labctl.crypto import Certificate, CertificateError, Refusal, RevocationList, Trust
from labctl.crypto.certificate_path import MAX_CHAIN, MAX_SIGNATURE_CHECKS
from labctl.crypto.certificates import MAX_CERTIFICATE_OCTETS

CA = Authority()
OTHER = Authority("CN=OTHER-CA,O=elsewhere", number=1)
# Another key under the same name.
IMPOSTOR = Authority("CN=LAB-CA,O=lab", number=8)
REGION = Authority("CN=REGION-CA,O=lab", number=2, parent=CA)
CITY = Authority("CN=CITY-CA,O=lab", number=3, parent=REGION)
NO_CA = Authority("CN=NO-CA,O=lab", number=4, parent=CA, is_authority=False)
SILENT = Authority("CN=SILENT,O=lab", number=9, parent=CA, is_authority=None, key_usage=None)
NO_CERTIFICATES = Authority("CN=CRL-CA,O=lab", number=5, parent=CA, key_usage=usage(crl_sign=True))
NO_CRLS = Authority("CN=CERT-CA,O=lab", number=10, parent=CA, key_usage=usage(key_cert_sign=True))
NARROW = Authority("CN=NARROW-CA,O=lab", number=6, parent=CA, path_length=0)
BELOW = Authority("CN=BELOW,O=lab", number=7, parent=NARROW)
OLD = Authority("CN=OLD-CA,O=lab", number=11, begins=-90 * DAY, ends=-DAY)
OLD_REGION = Authority("CN=OLD-REGION,O=lab", number=12, parent=CA, begins=-90 * DAY, ends=-DAY)
CURVED = Authority("CN=CURVED-CA,O=lab", kind="384", number=13)
ANCIENT = Authority("CN=ANCIENT-CA,O=lab", number=14, is_authority=None, key_usage=None)
LEAF = CA.issue()

# What: the certificate, whom to trust, the CRLs, and what is wrong with it.
CASES: dict[str, tuple[Issued, Authority, Sequence[bytes], Refusal | None]] = {
    "a good certificate": (LEAF, CA, [CA.crl()], None),
    "a good one beside revoked ones": (LEAF, CA, [CA.crl(CA.issue(), CA.issue())], None),
    "one below two CAs": (CITY.issue(), CA, [CA.crl(), REGION.crl(), CITY.crl()], None),
    "one of an ECDSA CA": (CURVED.issue(kind="256"), CURVED, [CURVED.crl()], None),
    "an ECDSA key": (CA.issue(kind="521"), CA, [CA.crl()], None),
    "an old and a new CRL": (LEAF, CA, [CA.crl(updated=-60 * DAY, following=-30 * DAY), CA.crl()], None),
    "a trusted CA that does not say it is one": (
        ANCIENT.issue(),
        ANCIENT,
        [ANCIENT.crl()],
        Refusal.NOT_AN_AUTHORITY,
    ),
    "another CA": (OTHER.issue(), CA, [CA.crl()], Refusal.NO_AUTHORITY),
    "the right name, another key": (IMPOSTOR.issue(), CA, [CA.crl()], Refusal.BAD_SIGNATURE),
    "expired": (CA.issue(ends=-1), CA, [CA.crl()], Refusal.EXPIRED),
    "not yet valid": (CA.issue(begins=1), CA, [CA.crl()], Refusal.NOT_YET_VALID),
    "revoked": (LEAF, CA, [CA.crl(LEAF)], Refusal.REVOKED),
    "below a revoked CA": (REGION.issue(), CA, [CA.crl(REGION), REGION.crl()], Refusal.REVOKED),
    "no CRL": (LEAF, CA, [], Refusal.NO_CRL),
    "a CRL of somebody else": (LEAF, CA, [OTHER.crl()], Refusal.NO_CRL),
    "no CRL of the CA between": (REGION.issue(), CA, [CA.crl()], Refusal.NO_CRL),
    "an outdated CRL": (LEAF, CA, [CA.crl(updated=-9 * DAY, following=-1)], Refusal.CRL_OUTDATED),
    "a CRL of tomorrow": (LEAF, CA, [CA.crl(updated=1)], Refusal.CRL_NOT_YET_VALID),
    "a CRL with a wrong signature": (LEAF, CA, [CA.crl(signed_with=OTHER.key)], Refusal.CRL_BAD_SIGNATURE),
    "a CRL of a CA that may not sign any": (
        NO_CRLS.issue(),
        CA,
        [CA.crl(), NO_CRLS.crl()],
        Refusal.CRL_BAD_SIGNATURE,
    ),
    "an issuer that says it is no CA": (NO_CA.issue(), CA, [CA.crl(), NO_CA.crl()], Refusal.NOT_AN_AUTHORITY),
    "an issuer that does not say it is one": (SILENT.issue(), CA, [CA.crl(), SILENT.crl()], Refusal.NOT_AN_AUTHORITY),
    "a CA whose key is not for certificates": (
        NO_CERTIFICATES.issue(),
        CA,
        [CA.crl(), NO_CERTIFICATES.crl()],
        Refusal.NOT_AN_AUTHORITY,
    ),
    "a CA below one that allows none": (
        BELOW.issue(),
        CA,
        [CA.crl(), NARROW.crl(), BELOW.crl()],
        Refusal.PATH_TOO_LONG,
    ),
    "a CA that has expired": (OLD.issue(), OLD, [OLD.crl()], Refusal.EXPIRED),
    "a CA between that has expired": (OLD_REGION.issue(), CA, [CA.crl(), OLD_REGION.crl()], Refusal.EXPIRED),
}

# How `openssl verify` puts it: X509_V_ERR numbers.
OPENSSL = {
    Refusal.NO_AUTHORITY: (20, 2),
    Refusal.BAD_SIGNATURE: (7,),
    Refusal.EXPIRED: (10,),
    Refusal.NOT_YET_VALID: (9,),
    Refusal.REVOKED: (23,),
    Refusal.NO_CRL: (3,),
    Refusal.CRL_OUTDATED: (12,),
    Refusal.CRL_NOT_YET_VALID: (11,),
    # A CRL that nobody signed who may: its issuer is not to be found, or it may not sign, or the signature is wrong.
    Refusal.CRL_BAD_SIGNATURE: (8, 33, 35),
    Refusal.NOT_AN_AUTHORITY: (24, 79, 32, 20),
    Refusal.PATH_TOO_LONG: (25,),
}


def pem(items: Sequence[bytes], what: str = "CERTIFICATE") -> bytes:
    load: Callable[[bytes], x509.Certificate | x509.CertificateRevocationList]
    load = x509.load_der_x509_certificate if what == "CERTIFICATE" else x509.load_der_x509_crl
    return b"".join(load(item).public_bytes(serialization.Encoding.PEM) for item in items)


def openssl_says(folder: Path, own: Issued, authority: Authority, crls: Sequence[bytes]) -> str:
    """The output of `openssl verify` at the lab's time."""
    files = {
        "leaf": pem(own.chain[:1]),
        "between": pem(own.above),
        "ca": pem([authority.der]),
        "crls": pem(crls, "CRL"),
    }
    for name, content in files.items():
        (folder / name).write_bytes(content)
    words = ["openssl", "verify", "-attime", str(int(STARTED)), "-crl_check_all", "-no-CApath", "-no-CAstore"]
    words += ["-CAfile", str(folder / "ca")]
    words += ["-untrusted", str(folder / "between")] if own.above else []
    words += ["-CRLfile", str(folder / "crls")] if crls else []
    done = subprocess.run([*words, str(folder / "leaf")], capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def judge(own: Issued, authority: Authority, crls: Sequence[bytes]) -> Refusal | None:
    trust = Trust.parse([authority.der], crls, check_revocation=True)
    try:
        crypto.verify_path(crypto.parse_chain(own.chain), trust, STARTED)
    except CertificateError as error:
        return error.refusal
    return None


@pytest.mark.parametrize("case", CASES)
def test_we_judge_a_chain_as_openssl_does_and_for_the_same_reason(case: str, tmp_path: Path) -> None:
    own, authority, crls, expected = CASES[case]
    assert judge(own, authority, crls) is expected
    verdict = openssl_says(tmp_path, own, authority, crls)
    if expected is None:
        assert verdict.strip().endswith("leaf: OK"), verdict
    else:
        assert any(f"error {number} at" in verdict for number in OPENSSL[expected]), verdict


def test_what_was_revoked_stays_so_when_the_list_grows_old() -> None:
    assert judge(LEAF, CA, [CA.crl(LEAF, updated=-9 * DAY, following=-DAY)]) is Refusal.REVOKED


def test_without_a_revocation_check_crls_do_not_count() -> None:
    trust = Trust.parse([CA.der], [CA.crl(LEAF)], check_revocation=False)
    path = crypto.verify_path(crypto.parse_chain(LEAF.chain), trust, STARTED)
    assert [item.subject for item in path] == ["CN=ce1,OU=members,O=lab", "CN=LAB-CA,O=lab"]


def test_cas_between_may_come_in_any_order_with_others_among_them() -> None:
    own = CITY.issue()
    chain = (own.chain[0], OTHER.der, REGION.der, CA.der, CITY.der)
    trust = Trust.parse([CA.der], [], check_revocation=False)
    path = crypto.verify_path(crypto.parse_chain(chain), trust, STARTED)
    assert [item.subject for item in path[1:]] == ["CN=CITY-CA,O=lab", "CN=REGION-CA,O=lab", "CN=LAB-CA,O=lab"]


def test_of_two_paths_the_good_one_counts() -> None:
    """A CA that was signed anew, with the old certificate still in the chain."""
    renewed = Authority("CN=OLD-REGION,O=lab", number=12, parent=CA)
    own = OLD_REGION.issue()
    for between in ([OLD_REGION.der, renewed.der], [renewed.der, OLD_REGION.der]):
        trust = Trust.parse([CA.der], [], check_revocation=False)
        assert crypto.verify_path(crypto.parse_chain([own.chain[0], *between]), trust, STARTED)


def test_openssl_made_certificates_are_read(tmp_path: Path) -> None:
    subject = "/O=lab/OU=members/CN=ce1"
    words = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", str(tmp_path / "key"), "-outform"]
    words += ["DER", "-out", str(tmp_path / "certificate"), "-days", "3", "-subj", subject]
    words += ["-addext", "subjectAltName=DNS:CE1.Lab.Example,IP:172.16.11.2,email:ops@lab.example"]
    subprocess.run(words, check=True, capture_output=True)
    read = Certificate.parse((tmp_path / "certificate").read_bytes())
    assert read.subject == "CN=ce1,OU=members,O=lab"
    assert (read.domains, read.mailboxes) == (("ce1.lab.example",), ("ops@lab.example",))
    assert [str(address) for address in read.addresses] == ["172.16.11.2"]
    assert read.is_authority is True
    assert isinstance(read.key, crypto.RsaPublicKey)


# Hostile octets.


def test_a_chain_and_a_certificate_have_a_longest() -> None:
    with pytest.raises(CertificateError, match=f"{MAX_CHAIN} at most"):
        crypto.parse_chain([LEAF.chain[0]] * (MAX_CHAIN + 1))
    assert len(crypto.parse_chain([LEAF.chain[0]] * MAX_CHAIN)) == MAX_CHAIN
    with pytest.raises(CertificateError, match="octets"):
        Certificate.parse(b"0" * (MAX_CERTIFICATE_OCTETS + 1))


def test_cas_of_one_name_in_a_circle_cost_no_more_than_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seven CAs of one name and key, each signed by each: thousands of paths, none of which leads anywhere."""
    circle = [Authority("CN=CIRCLE", number=30, parent=Authority("CN=CIRCLE", number=30)) for _ in range(7)]
    for number, item in enumerate(circle):
        circle[number] = Authority("CN=CIRCLE", number=30, parent=item, ends=(300 + number) * DAY)
    checks: list[Certificate] = []
    genuine = Certificate.issued_by

    def count(self: Certificate, issuer: Certificate) -> bool:
        checks.append(self)
        return genuine(self, issuer)

    monkeypatch.setattr(Certificate, "issued_by", count)
    own = circle[0].issue()
    trust = Trust.parse([CA.der], [], check_revocation=False)
    with pytest.raises(CertificateError) as refused:
        crypto.verify_path(crypto.parse_chain([own.chain[0], *(item.der for item in circle)]), trust, STARTED)
    assert refused.value.refusal is Refusal.NO_AUTHORITY
    assert 7 < len(checks) <= MAX_SIGNATURE_CHECKS


def test_a_critical_extension_that_nobody_knows_makes_a_certificate_unusable() -> None:
    strange = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.99999.1"), b"\x05\x00")
    with pytest.raises(CertificateError, match=r"critical extension 1\.3\.6\.1\.4\.1\.99999\.1"):
        Certificate.parse(CA.issue(extensions=[(strange, True)]).chain[0])
    assert Certificate.parse(CA.issue(extensions=[(strange, False)]).chain[0])


def test_a_crl_for_some_certificates_only_is_none() -> None:
    """An issuing distribution point limits what a list speaks of (RFC 5280 5.2.5)."""
    point = x509.IssuingDistributionPoint(None, None, False, True, None, False, False)
    with pytest.raises(CertificateError, match="critical extension"):
        RevocationList.parse(CA.crl(extensions=[(point, True)]))


def mutated(draw: st.DataObject, der: bytes) -> bytes:
    octets = bytearray(der)
    for _ in range(draw.draw(st.integers(1, 4))):
        octets[draw.draw(st.integers(0, len(octets) - 1))] = draw.draw(st.integers(0, 255))
    return bytes(octets[: draw.draw(st.integers(len(octets) - 8, len(octets)))])


LEAVES = [LEAF.chain[0], CA.issue(kind="256", addresses=("::1",)).chain[0], REGION.issue().chain[0], CA.der]
TRUST = Trust.parse([CA.der], [CA.crl(), REGION.crl()], check_revocation=True)


@settings(max_examples=400)
@given(st.data())
def test_a_mutated_certificate_is_never_believed_and_raises_nothing_but_the_one_error(data: st.DataObject) -> None:
    original = data.draw(st.sampled_from(LEAVES))
    octets = mutated(data, original)
    with contextlib.suppress(CertificateError):
        chain = crypto.parse_chain([octets, REGION.der])
        crypto.verify_path(chain, TRUST, STARTED)
        signed = x509.load_der_x509_certificate(original).tbs_certificate_bytes
        assert chain[0].parsed.tbs_certificate_bytes == signed, "what is believed is what was signed"
        assert chain[0].key


@settings(max_examples=200)
@given(st.data())
def test_a_mutated_crl_lets_nobody_in(data: st.DataObject) -> None:
    octets = mutated(data, CA.crl(LEAF))
    with contextlib.suppress(CertificateError):
        trust = Trust.parse([CA.der], [octets], check_revocation=True)
        crypto.verify_path(crypto.parse_chain(LEAF.chain), trust, STARTED)
        pytest.fail("believed")


@given(st.binary(max_size=200))
def test_octets_of_any_kind_are_a_certificate_a_name_or_the_one_error(data: bytes) -> None:
    with contextlib.suppress(CertificateError):
        Certificate.parse(data)
    with contextlib.suppress(CertificateError):
        RevocationList.parse(data)
    with contextlib.suppress(crypto.SignatureError):
        crypto.load_private_key(data)
    assert isinstance(crypto.name_of(data), str)
    assert not Certificate.parse(LEAF.chain[0]).has_subject(data)


@pytest.mark.parametrize("kind", ["ed25519", "dsa"])
def test_a_certificate_with_another_kind_of_key_is_read_but_its_key_is_none_of_ours(kind: str) -> None:
    from cryptography.hazmat.primitives.asymmetric import dsa, ed25519

    key = ed25519.Ed25519PrivateKey.generate() if kind == "ed25519" else dsa.generate_private_key(2048)
    name = x509.Name.from_rfc4514_string("CN=odd")
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(CA.certificate.subject)
    builder = builder.public_key(key.public_key()).serial_number(7).not_valid_before(time(0)).not_valid_after(time(9))
    made = builder.sign(CA.key, CA.certificate.signature_hash_algorithm)  # type: ignore[arg-type]  # SHA-256
    read = Certificate.parse(made.public_bytes(serialization.Encoding.DER))
    with pytest.raises(CertificateError) as refused:
        _ = read.key
    assert refused.value.refusal is Refusal.KEY_TYPE
    private = key.private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    with pytest.raises(crypto.SignatureError):
        crypto.load_private_key(private)


def test_a_private_key_belongs_to_its_certificate_alone() -> None:
    own = Certificate.parse(LEAF.chain[0])
    assert crypto.belongs(crypto.load_private_key(pkcs8(LEAF.key)), own)
    assert not crypto.belongs(crypto.load_private_key(pkcs8(key_pair("rsa", 5))), own)
    assert not crypto.belongs(crypto.load_private_key(pkcs8(key_pair("256"))), own)
