"""Certificates, authorization and signing keys in a topology: what is planned of them."""

from __future__ import annotations

from ipaddress import IPv4Network

import pytest

from labctl.configuration import (
    Authentication,
    CertificateIdentity,
    RsaKeyPair,
    Trustpoint,
    from_json,
    to_json,
)
from labctl.configuration.certificate_identity import parse_certificate_identity
from labctl.configuration.words import WordError
from labctl.topology import read
from labctl.topology.checks import CheckKind, was_refused
from labctl.topology.pki import Credentials, KeyType
from labctl.topology.plan import Plan
from labctl.topology.planner import plan

LAB = """
name: certified
nodes: {ks1: ks, pe1: pe, ce1: ce, ce2: ce, ce3: ce, h1: host, h2: host, h3: host}
links: [ks1 -- pe1, ce1 -- pe1, ce2 -- pe1, ce3 -- pe1, h1 -- ce1, h2 -- ce2, h3 -- ce3]
groups:
  GETVPN_LAB:
    identity: 1234
    key-servers: [ks1]
    members: [ce1, ce2, {node: ce3, refused: true%s}]
    policy: [permit ip 10.1.0.0/16 10.1.0.0/16]
    %s
%s
"""


def planned(group: str = "isakmp: {authentication: rsa-sig}", more: str = "", member: str = "") -> Plan:
    made = plan(read(LAB % (member, group, more), "lab.yml"), secret=bytes(32))
    assert from_json(Plan, to_json(made)) == made
    return made


def test_members_and_key_servers_of_a_group_that_signs_have_certificates_and_no_pre_shared_keys() -> None:
    made = planned()
    assert [item.node for item in made.pki.certificates] == ["ks1", "ce1", "ce2", "ce3"]
    assert made.pki.certificates[1].subject == "CN=ce1,OU=members,O=certified"
    assert made.pki.certificates[1].fqdns == ("ce1.lab.example",)
    assert [item.name for item in made.pki.authorities] == ["LAB_CA"]
    server = made.node("ks1").configuration
    assert server.isakmp_policies[0].authentication is Authentication.RSA_SIG
    assert server.pre_shared_keys == ()


def test_a_group_with_both_kinds_of_proposals_has_pre_shared_keys_too() -> None:
    made = planned("isakmp: [{authentication: ecdsa-sig, group: 19}, {authentication: pre-share}]")
    assert {item.key_type for item in made.pki.certificates} == {KeyType.ECDSA}
    assert made.pki.authorities[0].key_type is KeyType.ECDSA
    assert len(made.node("ks1").configuration.pre_shared_keys) == 3


def test_the_pki_section_says_names_sizes_and_what_is_wrong() -> None:
    made = planned(
        more="pki: {authority: ACME, domain: acme.example, rsa-bits: 3072, identity: dn, validity: 10, "
        "faults: {ce2: {expired: true}, ce3: {authority: OTHER}}}"
    )
    assert [(item.name, item.key_bits) for item in made.pki.authorities] == [("ACME", 3072), ("OTHER", 3072)]
    assert made.pki.validity_days == 10
    by_node = {item.node: item for item in made.pki.certificates}
    assert by_node["ce1"].identity is None
    assert by_node["ce2"].expired and not by_node["ce1"].expired
    assert by_node["ce3"].authority == "OTHER"


def test_a_certificate_with_another_name_leaves_the_node_its_own() -> None:
    made = planned(more="pki: {faults: {ce3: {fqdn: Elsewhere.lab.example}}}")
    (wrong,) = (item for item in made.pki.certificates if item.node == "ce3")
    assert (wrong.fqdns, wrong.identity) == (("elsewhere.lab.example",), "ce3.lab.example")


def test_authorization_takes_members_addresses_and_prefixes() -> None:
    made = planned("authorization: {addresses: [ce1, 192.0.2.7, 10.0.0.0/8]}")
    (group,) = made.node("ks1").configuration.key_server_groups
    assert set(group.authorized) == {
        IPv4Network("172.16.2.2/32"),
        IPv4Network("192.0.2.7/32"),
        IPv4Network("10.0.0.0/8"),
    }
    assert group.authorized_identities is None


def test_authorization_takes_names_of_certificates_and_an_empty_list_is_not_no_list() -> None:
    rsa = "isakmp: {authentication: rsa-sig}\n    authorization: {identities: %s}"
    (group,) = planned(rsa % "[dn OU=members, fqdn Lab.Example]").node("ks1").configuration.key_server_groups
    assert group.authorized_identities == (
        CertificateIdentity(dn="OU=members"),
        CertificateIdentity(fqdn="lab.example"),
    )
    (group,) = planned(rsa % "[]").node("ks1").configuration.key_server_groups
    assert group.authorized_identities == ()


def test_a_label_asks_for_one_key_pair_of_all_key_servers() -> None:
    made = planned("rekey: {key: KS_KEY}")
    assert [(item.label, item.nodes) for item in made.pki.rsa_keys] == [("KS_KEY", ("ks1",))]
    assert made.node("ks1").configuration.key_server_groups[0].rekey.key_label == "KS_KEY"
    assert made.pki.certificates == ()


def test_credentials_come_back_as_what_nodes_are_told() -> None:
    topology = read(LAB % ("", "isakmp: {authentication: rsa-sig}", ""), "lab.yml")
    trustpoint = Trustpoint("LAB_CA", authorities=(b"ca",), chain=(b"ce1",), private_key=b"key")
    pair = RsaKeyPair("KS_KEY", b"pair")
    made = plan(
        topology, secret=bytes(32), credentials=Credentials({"ce1": (trustpoint,)}, {"ks1": (pair,)}, started=1e9)
    )
    assert made.node("ce1").configuration.trustpoints == (trustpoint,)
    assert made.node("ks1").configuration.rsa_keys == (pair,)
    assert {node.configuration.started for node in made.nodes} == {1e9}


def test_what_is_refused_is_not_promised_and_its_hosts_are_cut_off() -> None:
    made = planned()
    checks = {item.kind: item for item in made.checks}
    assert checks[CheckKind.REGISTERED].sources == ("ce1", "ce2")
    assert checks[CheckKind.REFUSED].sources == ("ce3",)
    assert {name for item in made.checks if item.kind is CheckKind.BLOCKED for name in item.sources} == {
        "h1",
        "h2",
        "h3",
    }
    assert made.groups[0].refused == ("ce3",)


@pytest.mark.parametrize(
    ("fail_close", "fate"),
    [
        ("", CheckKind.REACHABLE),
        (", fail-close: []", CheckKind.BLOCKED),
        (", fail-close: [deny icmp any any]", CheckKind.REACHABLE),
    ],
)
def test_a_refused_member_lets_out_what_its_fail_close_list_says(fail_close: str, fate: CheckKind) -> None:
    text = LAB % (fail_close, "isakmp: {authentication: rsa-sig}", "")
    # What leaves ce3 and is not protected: to a host behind a router that is in no group.
    text = text.replace("h3: host}", "h3: host, ce4: ce, h4: host}").replace(
        "h3 -- ce3]", "h3 -- ce3, ce4 -- pe1, h4 -- ce4]"
    )
    made = plan(read(text, "lab.yml"), secret=bytes(32))
    pairs = {
        (source, destination): item.kind
        for item in made.checks
        if item.kind in (CheckKind.REACHABLE, CheckKind.BLOCKED)
        for source in item.sources
        for destination in item.destinations
    }
    assert pairs["h3", "h4"] is pairs["h4", "h3"] is fate
    assert pairs["h1", "h3"] is CheckKind.BLOCKED


@pytest.mark.parametrize(
    ("line", "dn", "fqdn"),
    [
        ("dn OU=members", "OU=members", None),
        ("DN  cn=ce1 , o=Acme Inc", "CN=ce1,O=Acme Inc", None),
        (r"dn O=Acme\, Inc,C=DE", r"O=Acme\, Inc,C=DE", None),
        ("fqdn CE1.Lab.Example", None, "ce1.lab.example"),
    ],
)
def test_identities_are_read_as_ios_writes_them(line: str, dn: str | None, fqdn: str | None) -> None:
    assert parse_certificate_identity(line) == CertificateIdentity(dn, fqdn)


@pytest.mark.parametrize("line", ["", "dn", "dn OU=", "dn OU=a,", "dn OU=a+CN=b", 'dn OU="a"', "fqdn -x", "fqdn a..b"])
def test_what_is_no_identity_is_refused(line: str) -> None:
    with pytest.raises(WordError):
        parse_certificate_identity(line)


@pytest.mark.parametrize(
    ("group", "refused"),
    [
        ({"state": "registered", "attempts": 3, "reason": ""}, False),
        ({"state": "registering", "attempts": 0, "reason": "not registered yet"}, False),
        ({"state": "registering", "attempts": 1, "reason": ""}, False),
        ({"state": "registering", "attempts": 1, "reason": "the certificate is revoked"}, True),
        ({"state": "registering", "attempts": 2, "reason": ""}, True),
    ],
)
def test_a_member_is_refused_once_it_tried_and_has_nothing(group: dict[str, object], refused: bool) -> None:
    assert was_refused(group) is refused
