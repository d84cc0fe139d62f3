"""Keys and certificates are made once, kept with the lab, and change only where the topology does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from labctl.crypto.authority import certificate_facts
from labctl.lab.directory import LabDirectory
from labctl.lab.errors import LabError
from labctl.lab.pki.credentials import credentials_of, trustpoints_of, with_credentials
from labctl.lab.pki.making import begin_anew, complete, covers, issue, revoke, serial_of
from labctl.lab.pki.state import LabPki, keep_pki, load_pki
from labctl.topology import read
from labctl.topology.model import Topology
from labctl.topology.planner import plan

LAB = """
name: certified
nodes: {ks1: ks, ks2: ks, pe1: pe, ce1: ce, ce2: ce}
links: [ks1 -- pe1, ks2 -- pe1, ce1 -- pe1, ce2 -- pe1]
groups:
  GETVPN_LAB:
    identity: 1234
    key-servers: [ks1, ks2]
    members: [ce1, ce2]
    policy: [permit ip 10.1.0.0/16 10.1.0.0/16]
    isakmp: {authentication: ecdsa-sig}
    rekey: {key: KS_KEY}
"""
FAULTS = LAB + "pki: {faults: {ce1: {expired: true}, ce2: {revoked: true, authority: OTHER}}}\n"
STARTED, DAY = 1767225600.0, 86400.0


def topology(text: str = LAB) -> Topology:
    return read(text, "lab.yml")


def made(text: str = LAB, kept: LabPki | None = None) -> LabPki:
    wanted = topology(text)
    return complete(kept, plan(wanted).pki, wanted.node_names, STARTED)


@pytest.fixture(scope="module")
def pki() -> LabPki:
    return made()


def test_everything_a_plan_asks_for_is_made(pki: LabPki) -> None:
    assert [item.planned.node for item in pki.certificates] == ["ks1", "ks2", "ce1", "ce2"]
    assert len({item.key for item in pki.certificates}) == 4
    for item in pki.certificates:
        facts = certificate_facts(item.certificate)
        assert facts.not_before < STARTED < facts.not_after
        assert facts.issuer == "CN=LAB_CA"
    assert [serial_of(item) for item in pki.certificates] == [2, 3, 4, 5]


def test_key_servers_share_a_labelled_pair(pki: LabPki) -> None:
    one, other = (pki.key_pair(node, "KS_KEY") for node in ("ks1", "ks2"))
    assert one is not None and other is not None
    assert one.private_key == other.private_key
    assert one.exportable


def test_a_second_time_makes_nothing_new(pki: LabPki) -> None:
    assert covers(pki, plan(topology()).pki)
    assert made(kept=pki) == pki
    once, again = (
        plan(topology(), secret=bytes(32), credentials=credentials_of(item)) for item in (pki, made(kept=pki))
    )
    assert once == again


def test_what_is_kept_is_read_back_by_its_user_alone(pki: LabPki, tmp_path: Path) -> None:
    directory = LabDirectory("certified", tmp_path)
    assert load_pki(directory) is None
    directory.create()
    keep_pki(directory, pki)
    assert load_pki(directory) == pki
    assert directory.pki.stat().st_mode & 0o777 == 0o600
    directory.pki.write_text("{}")
    with pytest.raises(LabError, match="another version"):
        load_pki(directory)


def test_a_node_that_comes_gets_a_certificate_and_the_others_keep_theirs(pki: LabPki) -> None:
    more = LAB.replace("ce2: ce}", "ce2: ce, ce3: ce}").replace("ce2 -- pe1]", "ce2 -- pe1, ce3 -- pe1]")
    more = more.replace("[ce1, ce2]", "[ce1, ce2, ce3]")
    grown = made(more, pki)
    assert grown.certificates[:4] == pki.certificates
    assert grown.certificates[4].planned.node == "ce3"
    assert serial_of(grown.certificates[4]) == 6
    assert [item.crl for item in grown.authorities] == [item.crl for item in pki.authorities]


def test_faults_are_in_the_certificates(pki: LabPki) -> None:
    faulty = made(FAULTS, pki)
    assert faulty.certificates[:2] == pki.certificates[:2]
    expired, revoked = faulty.certificates[2:]
    assert certificate_facts(expired.certificate).not_after < STARTED
    assert certificate_facts(revoked.certificate).issuer == "CN=OTHER"
    other = faulty.authority("OTHER")
    assert other is not None and other.has_revoked(serial_of(revoked))
    (trustpoint,) = trustpoints_of(faulty, "ce2")
    assert trustpoint.authorities == (other.certificate,)
    assert trustpoint.crls == (other.crl,)


def test_a_certificate_issued_later_stays(pki: LabPki) -> None:
    authority = pki.authority("LAB_CA")
    assert authority is not None
    changed = issue(pki, pki.certificates[2], authority, ["other.lab.example"], STARTED + DAY)
    facts = certificate_facts(changed.certificates[2].certificate)
    assert (facts.fqdns, facts.serial, facts.not_after) == (("other.lab.example",), 6, STARTED + DAY)
    assert changed.certificates[2].key == pki.certificates[2].key
    assert made(kept=changed) == changed


def test_a_revoked_certificate_is_on_every_node_s_list_and_stays_there(pki: LabPki) -> None:
    authority = pki.authority("LAB_CA")
    assert authority is not None
    changed = revoke(pki, authority, serial_of(pki.certificates[3]), STARTED + 60)
    assert made(kept=changed) == changed
    lists = {trustpoints_of(changed, node)[0].crls for node in ("ks1", "ks2", "ce1", "ce2")}
    assert len(lists) == 1
    assert lists != {trustpoints_of(pki, "ks1")[0].crls}
    standing = plan(topology(), secret=bytes(32), credentials=credentials_of(pki))
    after = plan(topology(), secret=bytes(32), credentials=credentials_of(changed))
    assert with_credentials(standing, changed) == after


def test_a_lab_that_begins_again_keeps_its_keys(pki: LabPki) -> None:
    again = begin_anew(pki, STARTED + 3 * DAY)
    assert again.certificates == pki.certificates
    assert again.key_pairs == pki.key_pairs
    assert again.authorities[0].crl_number == pki.authorities[0].crl_number + 1


def test_another_validity_makes_certificates_anew_and_keeps_signing_keys(pki: LabPki) -> None:
    shorter = made(LAB + "pki: {validity: 7}\n", pki)
    assert not covers(pki, plan(topology(LAB + "pki: {validity: 7}\n")).pki)
    assert {item.certificate for item in shorter.certificates}.isdisjoint(item.certificate for item in pki.certificates)
    assert shorter.key_pairs == pki.key_pairs


def test_a_pair_that_somebody_made_for_a_node_stays_with_it(pki: LabPki) -> None:
    pair = pki.key_pairs[0]
    own = replace(pki, key_pairs=(*pki.key_pairs, replace(pair, label="OTHER")))
    assert made(kept=own).key_pair(pair.node, "OTHER") is not None
    without = LAB.replace("ks2: ks, ", "").replace("ks2 -- pe1, ", "").replace("[ks1, ks2]", "[ks1]")
    assert [item.node for item in made(without, own).key_pairs] == ["ks1", "ks1"]
