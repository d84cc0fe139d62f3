"""What a lab whose routers translate or mark is planned to be: sides, routes, names, and what its checks expect."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, ip_network
from pathlib import Path

import pytest

from labctl.checks.needs import flow_addresses
from labctl.configuration import (
    AddressTranslation,
    NodeConfiguration,
    Overload,
    StaticTranslation,
    from_json,
    to_json,
)
from labctl.configuration.policy import Address
from labctl.configuration.translation import parse_dscp
from labctl.topology import load, read
from labctl.topology.checks import CheckKind
from labctl.topology.plan import Plan
from labctl.topology.planner import plan

TOPOLOGIES = Path(__file__).resolve().parents[2] / "topologies"

# A ce whose LAN hides behind the address of its interface, and one whose host has an address of its own.
BEHIND_AN_INTERFACE = """\
name: lab
nodes:
  pe1: pe
  ks1: ks
  ce1: {kind: ce, nat: {inside-source: [list 10.1.1.0/24 interface eth0 overload]}}
  ce2: {kind: ce, nat: {inside-source: [static 10.1.2.10 10.200.2.10]}}
  h1: host
  h2: host
links: [ks1 -- pe1, ce1 -- pe1, ce2 -- pe1, h1 -- ce1, h2 -- ce2]
groups:
  LAB:
    identity: 1
    key-servers: [ks1]
    members: [ce1, ce2]
    policy: [permit ip 172.16.2.0/30 10.200.0.0/16, permit ip 10.200.0.0/16 172.16.2.0/30]
"""


@pytest.fixture
def before() -> Plan:
    return plan(load(TOPOLOGIES / "nat-before.yml"))


def next_hop(made: Plan, node: str, destination: str) -> Address:
    routes = [item for item in made.node(node).configuration.routes if _covers(str(item.prefix), destination)]
    return max(routes, key=lambda item: item.prefix.prefixlen).next_hop


def _covers(prefix: str, address: str) -> bool:
    return IPv4Address(address) in ip_network(prefix)


def own(made: Plan, node: str) -> dict[str, str]:
    interfaces = made.node(node).configuration.interfaces
    return {item.name: str(item.addresses[0]).split("/")[0] for item in interfaces}


def stated(made: Plan, kind: CheckKind) -> set[tuple[str, str]]:
    found = [spec for spec in made.checks if spec.kind is kind]
    return {(one, other) for spec in found for one in spec.sources for other in spec.destinations if one != other}


def test_lans_are_inside_and_the_provider_is_outside_unless_it_is_said(before: Plan) -> None:
    assert before.node("ce1").configuration.nat == AddressTranslation(
        ("eth1",), ("eth0",), (StaticTranslation(IPv4Address("10.1.1.10"), IPv4Address("10.200.1.10")),)
    )
    pool = IPv4Address("10.200.2.1")
    assert before.node("ce2").configuration.nat == AddressTranslation(
        ("eth1",), ("eth0",), overloads=(Overload(IPv4Network("10.1.2.0/24"), first=pool, last=pool),)
    )
    assert before.node("pe1").configuration.nat is None
    said = load(TOPOLOGIES / "nat-in-path.yml").translations["pe1"]
    assert (said.inside, said.outside) == (("eth1",), ("eth0",))


def test_inside_global_addresses_are_routed_to_who_translates_them(before: Plan) -> None:
    assert next_hop(before, "pe1", "10.200.1.10") == IPv4Address(own(before, "ce1")["eth0"])
    assert next_hop(before, "p1", "10.200.1.10") == next_hop(before, "p1", own(before, "ce1")["eth0"])
    assert next_hop(before, "pe2", "10.200.1.10") == next_hop(before, "pe2", own(before, "ce1")["eth0"])
    assert next_hop(before, "p1", "10.200.2.1") == next_hop(before, "p1", own(before, "ce2")["eth0"])
    # A ce has its default route, and no route to what it translates to itself.
    assert [str(item.prefix) for item in before.node("ce1").configuration.routes] == ["0.0.0.0/0"]


def test_a_translation_in_the_provider_is_routed_by_the_rest_of_it() -> None:
    made = plan(load(TOPOLOGIES / "nat-in-path.yml"))
    assert next_hop(made, "p1", "203.0.113.10") == IPv4Address(own(made, "pe1")["eth0"])
    assert next_hop(made, "pe2", "203.0.113.10") == next_hop(made, "pe2", own(made, "pe1")["eth0"])
    assert not any(_covers(str(item.prefix), "203.0.113.10") for item in made.node("pe1").configuration.routes)


def test_a_pool_is_routed_in_as_few_prefixes_as_hold_it() -> None:
    text = BEHIND_AN_INTERFACE.replace("interface eth0", "pool 203.0.113.4 203.0.113.8")
    routes = plan(read(text)).node("pe1").configuration.routes
    assert {str(item.prefix) for item in routes if str(item.prefix).startswith("203")} == {
        "203.0.113.4/30",
        "203.0.113.8/32",
    }


def test_a_name_means_the_address_that_is_reached_from_there(before: Plan) -> None:
    names = {node.name: node.configuration.hosts["h1"] for node in before.nodes}
    assert names.pop("h1") == names.pop("ce1") == "10.1.1.10"
    assert set(names.values()) == {"10.200.1.10"}
    # Who hides behind a pool has no address that one could call.
    assert before.node("h1").configuration.hosts["h2"] == "10.1.2.10"
    # Translation in the provider is nothing that anybody knows of.
    assert plan(load(TOPOLOGIES / "nat-in-path.yml")).node("h2").configuration.hosts["h1"] == "10.1.1.10"


def test_checks_expect_answers_only_where_a_translation_lets_them_through(before: Plan) -> None:
    assert stated(before, CheckKind.REACHABLE) == {("h2", "h1"), ("h3", "h1"), ("h2", "h3"), ("h3", "h2")}
    assert stated(before, CheckKind.BLOCKED) == {("h1", "h2"), ("h1", "h3")}
    assert stated(before, CheckKind.ENCRYPTED) == {("h2", "h1")}
    behind = plan(read(BEHIND_AN_INTERFACE))
    assert stated(behind, CheckKind.ENCRYPTED) == {("h1", "h2")}
    assert stated(behind, CheckKind.BLOCKED) == {("h2", "h1")}
    in_path = plan(load(TOPOLOGIES / "nat-in-path.yml"))
    assert stated(in_path, CheckKind.BLOCKED) == {("h1", "h2"), ("h2", "h1")}


def test_a_policy_on_inside_local_addresses_encrypts_nothing_of_what_is_translated() -> None:
    text = (TOPOLOGIES / "nat-before.yml").read_text().replace("10.200.0.0/16 10.200.0.0/16", "10.1.0.0/16 10.1.0.0/16")
    made = plan(read(text))
    assert stated(made, CheckKind.ENCRYPTED) == set()
    assert ("h2", "h1") in stated(made, CheckKind.REACHABLE)


def test_a_check_looks_for_the_addresses_that_the_provider_sees(before: Plan) -> None:
    assert str(flow_addresses(before, "h2", "h1")) == "10.200.2.1 -> 10.200.1.10"
    assert str(flow_addresses(before, "ce1", "ks1")) == f"{own(before, 'ce1')['eth0']} -> {own(before, 'ks1')['eth0']}"
    behind = plan(read(BEHIND_AN_INTERFACE))
    assert str(flow_addresses(behind, "h1", "h2")) == f"{own(behind, 'ce1')['eth0']} -> 10.200.2.10"
    pool = plan(read(BEHIND_AN_INTERFACE.replace("interface eth0", "pool 203.0.113.4 203.0.113.8")))
    assert str(flow_addresses(pool, "h1", "h2")) == "203.0.113.4..203.0.113.8 -> 10.200.2.10"


def test_what_is_marked_where_is_planned() -> None:
    made = plan(load(TOPOLOGIES / "qos.yml"))
    marking = made.node("ce1").configuration.marking
    assert marking is not None and marking.interfaces == ("eth1",)
    assert [rule.dscp for rule in marking.rules] == [24, 46, 18, 0, 0]
    assert made.node("pe1").configuration.marking is None


@pytest.mark.parametrize("name", ["nat-before", "nat-in-path", "qos"])
def test_a_node_gets_it_as_json_and_reads_the_same(name: str) -> None:
    for node in plan(load(TOPOLOGIES / f"{name}.yml")).nodes:
        assert from_json(NodeConfiguration, to_json(node.configuration)) == node.configuration


@pytest.mark.parametrize(
    ("word", "value"),
    [("ef", 46), ("EF", 46), ("af11", 10), ("af31", 26), ("af43", 38), ("cs6", 48), ("default", 0), ("63", 63)],
)
def test_code_points_have_the_values_of_their_rfcs(word: str, value: int) -> None:
    assert parse_dscp(word) == value


@pytest.mark.parametrize("word", ["64", "-1", "af44", "af01", "cs8", "", "4\u00b2"])
def test_other_words_are_no_code_points(word: str) -> None:
    assert parse_dscp(word) is None
