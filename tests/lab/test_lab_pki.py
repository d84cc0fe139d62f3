"""Certificates and rekey keys in real labs, on each runtime: who is refused and why, and what a user changes."""

from __future__ import annotations

import base64
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from lab_command import Labctl
from lab_group import group_of, until

from labctl.cli.status import ExitStatus
from labctl.configuration import Encryption, Hash
from labctl.crypto import generate_rsa_key
from labctl.gdoi.policy import KeyEncryptionKey
from labctl.gdoi.push import Push, build

pytestmark = pytest.mark.lab
# What the runtime has no part in.
on_namespaces = pytest.mark.parametrize("runtime_name", ["namespaces"], indirect=True)

SHIPPED = Path(__file__).resolve().parents[2] / "topologies" / "pki.yml"
PLAIN = """\
name: plain
nodes: {ks1: ks, pe1: pe, ce1: ce}
links: [ks1 -- pe1, ce1 -- pe1]
groups:
  LAB:
    identity: 1
    key-servers: [ks1]
    members: [ce1]
    policy: [permit ip 10.1.0.0/16 10.1.0.0/16]
    rekey: {transport: unicast%s}
"""


@pytest.fixture
def lab(machine: Labctl) -> Iterator[Labctl]:
    machine("down", "--all")
    yield machine
    machine("down", "--all")


@pytest.fixture(scope="module")
def shipped(machine: Labctl) -> Iterator[Labctl]:
    """The lab that ships, for the tests that look at it, and at last for one that changes it."""
    start(machine, SHIPPED.read_text())
    yield machine
    machine("down", "--all")


def start(lab: Labctl, text: str) -> None:
    (lab.folder / "topology.yml").write_text(text)
    lab.up()


def registered(lab: Labctl, node: str) -> bool:
    return bool(group_of(lab, node)["state"] == "registered")


def has_received(lab: Labctl, node: str, rekeys: int) -> bool:
    return bool(group_of(lab, node)["rekeys_received"] == rekeys)


def says(lab: Labctl, node: str, *words: str) -> bool:
    return any(all(word in line for word in words) for line in lab("logs", node).stdout.splitlines())


def test_each_fault_is_refused_for_its_own_reason_on_both_sides(shipped: Labctl) -> None:
    lab = shipped
    server = "IKMP_INVAL_CERT: Certificate received from %s is bad:"
    faults = {
        "ce3": ("172.16.4.2", "has expired at", "the certificate has expired"),
        "ce4": ("172.16.5.2", "is issued by CN=OTHER_CA, which is no CA of ours", "does not trust the CA"),
        "ce5": ("172.16.6.2", "the identity ce5.lab.example is not in the certificate", "refuses our identity"),
    }
    for node, (address, said, told) in faults.items():
        until(partial(says, lab, "ks1", server % address, said), f"ks1 says what is wrong with {node}")
        assert told in group_of(lab, node)["reason"], node
    unauthorized = "CN=ce6,OU=members,O=pki. Peer Address: 172.16.7.2"
    until(lambda: says(lab, "ks1", "UNAUTHORIZED_IDENTITY", unauthorized), "ks1 refuses ce6")
    assert "does not authorize this member" in group_of(lab, "ce6")["reason"]
    assert registered(lab, "ce1") and registered(lab, "ce2")


def test_what_makes_no_sense_is_refused_and_changes_nothing(shipped: Labctl, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABCTL_PASSPHRASE", "cisco12345")
    lab = shipped
    kept = lab.json("pki", "show")["certificates"]
    for words, said in [
        (("pki", "issue", "h1"), "h1 has no certificate"),
        (("pki", "issue", "ce9"), "has no node 'ce9'"),
        (("pki", "issue", "ce1", "--fqdn", "not a name"), "is not a domain name"),
        (("pki", "issue", "ce1", "--valid", "soon"), "is no duration"),
        (("pki", "issue", "ce1", "--valid", "9000d"), "would outlive its authority"),
        (("pki", "issue", "ce1", "--authority", "LAB"), "no authority is called 'LAB'"),
        (("pki", "revoke", "ce1", "--trustpoint", "OTHER"), "has no trustpoint 'OTHER'"),
        (("key", "generate", "ce1", "KEY"), "ce1 is a ce: key servers sign rekeys"),
        (("key", "generate", "ks1", "A-KEY"), "is no label of a key pair"),
        (("key", "generate", "ks1", "KS_REKEY_KEY"), "has a key pair KS_REKEY_KEY already"),
        (("key", "export", "ks1", "NONE"), "has no key pair 'NONE'"),
    ]:
        assert said in lab(*words, status=ExitStatus.INPUT).stderr, words
    assert lab.json("pki", "show")["certificates"] == kept


def test_a_new_certificate_is_taken_at_once(shipped: Labctl) -> None:
    lab = shipped
    for node in ("ce3", "ce5"):
        assert lab.json("pki", "show", node)["certificates"][0]["status"] == ("expired" if node == "ce3" else "valid")
        lab("pki", "issue", node)
    until(lambda: registered(lab, "ce3"), "ce3 has a certificate that holds")
    # What is wrong with ce5 now is that nobody authorized it.
    until(lambda: "does not authorize" in group_of(lab, "ce5")["reason"], "ce5 has its own name")
    lab("pki", "issue", "ce4")
    until(lambda: "does not authorize" in group_of(lab, "ce4")["reason"], "ce4 has a certificate of the lab's CA")
    assert lab("exec", "h3", "--", "ping", "-c", "1", "-W", "5", "h1").returncode == 0
    assert "nothing to do" in lab.up().stdout


def test_who_is_revoked_gets_no_further_key_and_the_others_come_back(lab: Labctl) -> None:
    start(lab, SHIPPED.read_text().replace("name: pki\n", "name: pki\nclock: {scale: 60}\n"))
    before = group_of(lab, "ce1")["registrations"]
    said = lab("pki", "revoke", "ce2").stdout
    assert "certificate 04 of LAB_CA for ce2.lab.example revoked" in said
    until(lambda: says(lab, "ks1", "KS_GM_REVOKED", "172.16.3.2", "is revoked by CN=LAB_CA"), "the key server knows")
    until(lambda: group_of(lab, "ce1")["registrations"] > before, "ce1 comes back for keys that ce2 does not have")
    until(lambda: not registered(lab, "ce2"), "the keys of ce2 end")
    until(lambda: "revoked" in group_of(lab, "ce2")["reason"], "ce2 is told why")
    assert "revoked" in lab("pki", "show", "ce2").stdout
    # Nobody said that ce2 is to be refused; of the others that was said.
    said = lab.up("--timeout", "1", status=ExitStatus.NOT_READY).stderr
    assert "ce2: GETVPN_LAB: 172.16.1.2: it refuses our certificate" in said and "ce4: " not in said
    lab("pki", "issue", "ce2")
    until(lambda: registered(lab, "ce2"), "a new certificate has another number")


def test_a_certificate_that_ends_while_the_lab_runs_is_refused_at_the_next_registration(lab: Labctl) -> None:
    text = SHIPPED.read_text().replace("name: pki\n", "name: pki\nclock: {scale: 60}\n")
    # Phase 1 is held again every ten minutes of the lab, and only there certificates are looked at.
    start(lab, text.replace("{authentication: rsa-sig}", "{authentication: rsa-sig, lifetime: 600}"))
    lab("pki", "issue", "ce2", "--valid", "10m")
    until(lambda: lab.json("pki", "show", "ce2")["certificates"][0]["status"] == "expired", "ten minutes are over")
    lab("gdoi", "clear", "ce2")
    until(lambda: "expired" in group_of(lab, "ce2")["reason"], "it proves nothing any more")


@on_namespaces
def test_addresses_are_authorized_with_pre_shared_keys_too(lab: Labctl) -> None:
    text = PLAIN.replace("members: [ce1]", "members: [{node: ce1, refused: true}]") % ""
    start(lab, text + "    authorization: {addresses: [192.0.2.0/24]}\n")
    unauthorized = "UNAUTHORIZED_IPADDR: Group LAB received registration from unauthorized ip address:"
    until(lambda: says(lab, "ks1", unauthorized), "ks1 refuses")
    report = lab.json("test", "refused")
    assert report["passed"] == 1


@on_namespaces
def test_an_empty_list_of_identities_lets_nobody_in(lab: Labctl) -> None:
    text = PLAIN.replace("members: [ce1]", "members: [{node: ce1, refused: true}]") % ""
    start(lab, text + "    isakmp: {authentication: ecdsa-sig, group: 19}\n    authorization: {identities: []}\n")
    until(lambda: says(lab, "ks1", "UNAUTHORIZED_IDENTITY"), "ks1 refuses ce1")
    assert not registered(lab, "ce1")


@on_namespaces
def test_ecdsa_and_subjects_as_identities_register(lab: Labctl) -> None:
    text = PLAIN % "" + "    isakmp: {authentication: ecdsa-sig, group: 20, hash: sha384}\n"
    text += "    authorization: {identities: ['dn OU=members,O=plain']}\npki: {identity: dn, ecdsa-bits: 384}\n"
    start(lab, text)
    assert registered(lab, "ce1")


def test_another_signing_key_comes_with_a_rekey_and_members_stay(lab: Labctl) -> None:
    start(lab, PLAIN % ", key: KS_KEY")
    (old,) = lab.json("key", "show", "ks1")
    assert (old["signs"], old["exportable"]) == (["LAB"], True)
    lab("key", "generate", "ks1", "KS_KEY", "--modulus", "3072", "--replace")
    for received in (1, 2):  # the first brings the new key, the second is signed with it
        lab("gdoi", "rekey", "ks1")
        until(partial(has_received, lab, "ce1", received), "the rekey arrives")
    member = group_of(lab, "ce1")
    assert (member["rekeys_rejected"], member["registrations"]) == (0, 1)
    (new,) = lab.json("key", "show", "ks1")
    assert (new["bits"], new["exportable"]) == (3072, False)
    assert "nothing to do" in lab.up().stdout


def test_a_rekey_that_another_key_signed_is_dropped_counted_and_logged(lab: Labctl) -> None:
    (lab.folder / "topology.yml").write_text(PLAIN % ", key: KS_KEY")
    lab.up("--keylog")
    # Every member knows the KEK, so a member could forge rekeys but for the signature.
    spi, iv, key = (bytes.fromhex(word) for word in kek_of(lab).split(","))
    kek = KeyEncryptionKey(spi, Encryption.AES_CBC, iv, key, Hash.SHA256, b"", 1, 1)
    forged = build(Push(sequence=99), kek, generate_rsa_key())
    send = "import base64, socket, sys; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto("
    send += "base64.b64decode(sys.argv[1]), ('172.16.2.2', 848))"
    lab("exec", "ks1", "--", "python3", "-c", send, base64.b64encode(forged).decode())
    until(lambda: group_of(lab, "ce1")["rekeys_rejected"] == 1, "it is counted")
    failed = "GDOI_REKEY_FAILURE: Processing of REKEY payloads failed on GM 172.16.2.2 in the group LAB"
    until(lambda: says(lab, "ce1", failed), "and logged")
    member = group_of(lab, "ce1")
    assert (member["state"], member["rekeys_received"]) == ("registered", 0)
    lab("gdoi", "rekey", "ks1")
    until(partial(has_received, lab, "ce1", 1), "the key server's own is taken, with its lower number")


def kek_of(lab: Labctl) -> str:
    (found,) = lab.state.rglob("gdoi_kek")
    return found.read_text().splitlines()[-1]


@on_namespaces
def test_a_key_pair_goes_out_and_comes_in_as_pem_that_openssl_opens(lab: Labctl, tmp_path: Path) -> None:
    start(lab, PLAIN % ", key: KS_KEY")
    secret, wrong = tmp_path / "secret", tmp_path / "wrong"
    secret.write_text("cisco12345\n")
    wrong.write_text("cisco54321\n")
    pem = tmp_path / "pair.pem"
    lab("key", "export", "ks1", "KS_KEY", "--passphrase-file", str(secret), "-w", str(pem))
    assert pem.stat().st_mode & 0o777 == 0o600
    opened = subprocess.run(
        ["openssl", "pkey", "-in", pem, "-passin", f"file:{secret}", "-noout", "-check"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "Key is valid" in opened.stdout + opened.stderr
    refused = lab("key", "import", "ks1", "COPY", str(pem), "--passphrase-file", str(wrong), status=ExitStatus.INPUT)
    assert "the passphrase does not open it" in refused.stderr
    lab("key", "import", "ks1", "COPY", str(pem), "--passphrase-file", str(secret))
    copies = {item["label"]: item["public_key"] for item in lab.json("key", "show", "ks1")}
    assert copies["COPY"] == copies["KS_KEY"]
    refused = lab("key", "export", "ks1", "COPY", "--passphrase-file", str(secret), status=ExitStatus.INPUT)
    assert "not exportable" in refused.stderr


@on_namespaces
def test_pairs_that_no_group_signs_with_are_kept_as_well(lab: Labctl) -> None:
    start(lab, PLAIN % "")
    assert lab.json("key", "show", "ks1") == []
    lab("key", "generate", "ks1", "FREE")
    assert "no group signs with it" in lab("key", "import", "ks1", "SECOND", "-", stdin=pem_in_clear()).stdout
    assert [item["label"] for item in lab.json("key", "show")] == ["FREE", "SECOND"]
    assert "nothing to do" in lab.up().stdout


def pem_in_clear() -> str:
    made = subprocess.run(
        ["openssl", "genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"],
        capture_output=True,
        text=True,
        check=True,
    )
    return made.stdout
