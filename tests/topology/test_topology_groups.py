"""Several `sa ipsec` in a group, several groups on a member: what is planned, and what packets are expected to do."""

from __future__ import annotations

from ipaddress import IPv4Address
from pathlib import Path

import pytest

from labctl.topology import load, read
from labctl.topology.checks import CheckKind
from labctl.topology.derived import derive_checks
from labctl.topology.flows import Fate, Flows
from labctl.topology.model import Topology
from labctl.topology.plan import Plan
from labctl.topology.planner import plan
from labctl.topology.routing import Routing

SECRET = bytes(range(32))
TWO_GROUPS = Path(__file__).resolve().parents[2] / "topologies" / "two-groups.yml"

# Red and blue behind each of two routers, over one link each.
ONE_LINK = """
name: one-link
nodes: {ks1: ks, pe1: pe, ce1: ce, ce2: ce, r1: host, r2: host, b1: host, b2: host}
links:
  - ks1 -- pe1
  - ce1 -- pe1
  - ce2 -- pe1
  - {ends: [r1, ce1], subnet: 10.10.1.0/24}
  - {ends: [r2, ce2], subnet: 10.10.2.0/24}
  - {ends: [b1, ce1], subnet: 10.20.1.0/24}
  - {ends: [b2, ce2], subnet: 10.20.2.0/24}
groups:
  RED:
    identity: 1
    key-servers: [ks1]
    members: [ce1, {node: ce2, interface: eth0, passive: true}]
    policy: [permit ip 10.10.0.0/16 10.10.0.0/16]
    pre-shared-keys: {ce1: Special}
  BLUE:
    identity: 2
    key-servers: [ks1]
    members: [ce1, ce2]
    sa-ipsec:
      - policy: [deny udp any any eq 53, permit udp 10.20.0.0/16 10.20.0.0/16]
        transform: esp-3des esp-sha-hmac
        lifetime: 600
      - policy: [permit ip 10.20.0.0/16 10.20.0.0/16]
"""


@pytest.fixture(scope="module")
def topology() -> Topology:
    return load(TWO_GROUPS)


@pytest.fixture(scope="module")
def made(topology: Topology) -> Plan:
    return plan(topology, secret=SECRET)


def flows_of(topology: Topology) -> Flows:
    routing = Routing(topology.nodes, topology.segments)
    return Flows(topology, routing)


def test_sa_ipsec_entries_are_numbered_in_their_order_with_the_defaults_of_the_short_form() -> None:
    red, blue = plan(read(ONE_LINK), secret=SECRET).node("ks1").configuration.key_server_groups
    assert [(sa.number, str(sa.transform), sa.tek_lifetime, len(sa.policy)) for sa in blue.sas] == [
        (1, "esp-3des esp-sha-hmac", 600, 2),
        (2, "esp-gcm 256", 3600, 1),
    ]
    assert blue.policy == (*blue.sas[0].policy, *blue.sas[1].policy)
    assert [(sa.number, str(sa.transform), sa.tek_lifetime) for sa in red.sas] == [(1, "esp-gcm 256", 3600)]


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("", "Counter/64"),
        ("transform: esp-aes 256 esp-sha256-hmac", "none"),
        ("replay: none", "none"),
        ("replay: {time: {window: 7}}", "Time/7 sec"),
        ("replay: {counter: {}}", "Counter/64"),
        ("transform: esp-3des esp-sha-hmac; replay: {counter: {window: 1024}}", "Counter/1024"),
    ],
)
def test_anti_replay_is_as_said_or_what_refuses_replays_alone(said: str, meant: str) -> None:
    lines = "".join(f"    {line}\n" for line in said.split("; "))
    text = ONE_LINK.replace("    pre-shared-keys: {ce1: Special}\n", lines)
    red, _ = plan(read(text), secret=SECRET).node("ks1").configuration.key_server_groups
    assert [str(sa.replay) for sa in red.sas] == [meant]


def test_each_sa_ipsec_entry_has_its_own_anti_replay() -> None:
    text = ONE_LINK.replace("        lifetime: 600\n", "        lifetime: 600\n        replay: {time: {window: 5}}\n")
    _, blue = plan(read(text), secret=SECRET).node("ks1").configuration.key_server_groups
    assert [str(sa.replay) for sa in blue.sas] == ["Time/5 sec", "Counter/64"]


def test_a_member_of_two_groups_has_a_crypto_map_on_the_interface_of_each(made: Plan) -> None:
    configuration = made.node("ce1").configuration
    assert [item.name for item in configuration.interfaces if item.crypto_map] == ["eth0", "eth1"]
    assert [(item.name, item.interface, str(item.local_address)) for item in configuration.memberships] == [
        ("ENGINEERING", "eth0", "172.16.2.2"),
        ("FINANCE", "eth1", "172.16.3.2"),
    ]


def test_a_key_server_has_a_key_for_each_address_that_a_member_registers_from(made: Plan) -> None:
    keys = {key.peer: key.secret for key in made.node("ks1").configuration.pre_shared_keys}
    (its,) = made.node("ce1").configuration.pre_shared_keys
    assert keys[IPv4Address("172.16.2.2")] == keys[IPv4Address("172.16.3.2")] == its.secret
    assert len(keys) == 4


def test_two_groups_share_one_interface_and_one_key_with_the_key_server() -> None:
    made = plan(read(ONE_LINK), secret=SECRET)
    configuration = made.node("ce1").configuration
    assert [item.name for item in configuration.interfaces if item.crypto_map] == ["eth0"]
    assert {item.interface for item in configuration.memberships} == {"eth0"}
    assert [key.secret for key in configuration.pre_shared_keys] == [b"Special"]
    passive = {item.name: item.passive for item in made.node("ce2").configuration.memberships}
    assert passive == {"RED": True, "BLUE": False}


@pytest.mark.parametrize(
    ("source", "destination", "fate", "group"),
    [
        ("e1", "e2", Fate.ENCRYPTED, "ENGINEERING"),
        ("f3", "f1", Fate.ENCRYPTED, "FINANCE"),
        ("e1", "f1", Fate.CLEAR, None),
        ("e2", "f3", Fate.CLEAR, None),
        ("e2", "f1", Fate.CLEAR, None),
    ],
)
def test_a_packet_is_expected_under_the_keys_of_its_own_group(
    topology: Topology, source: str, destination: str, fate: Fate, group: str | None
) -> None:
    flow = flows_of(topology).between(source, destination)
    assert (flow.fate, flow.group) == (fate, group)


def test_a_packet_that_comes_by_the_other_groups_interface_is_expected_to_be_dropped() -> None:
    # The branch of finance hangs where engineering's traffic passes: what it encrypts reaches ce1 at eth0.
    text = TWO_GROUPS.read_text().replace("- ce3 -- pe4", "- ce3 -- pe3")
    flow = flows_of(read(text)).between("f3", "f1")
    assert flow.fate is Fate.DROPPED


def test_checks_are_derived_for_each_group_with_its_own_members(topology: Topology) -> None:
    specs = derive_checks(topology.groups, flows_of(topology))
    registered = {spec.group: spec.sources for spec in specs if spec.kind is CheckKind.REGISTERED}
    assert registered == {"ENGINEERING": ("ce1", "ce2"), "FINANCE": ("ce1", "ce3")}
    encrypted = [(spec.sources[0], spec.destinations[0]) for spec in specs if spec.kind is CheckKind.ENCRYPTED]
    assert encrypted == [("e1", "e2"), ("e2", "e1"), ("f1", "f3"), ("f3", "f1")]


def test_of_two_groups_with_the_same_members_each_is_shown_by_its_own_traffic() -> None:
    topology = read(ONE_LINK)
    specs = derive_checks(topology.groups, flows_of(topology))
    encrypted = [(spec.sources[0], spec.destinations[0]) for spec in specs if spec.kind is CheckKind.ENCRYPTED]
    assert encrypted == [("r1", "r2"), ("r2", "r1"), ("b1", "b2"), ("b2", "b1")]
