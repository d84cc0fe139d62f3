"""What `up` would make of a topology: addresses, routes, roles, keys."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, ip_network
from itertools import pairwise
from pathlib import Path

import pytest

from labctl.configuration import (
    AccessListEntry,
    Acknowledgement,
    Action,
    Cipher,
    DhGroup,
    Encryption,
    Hash,
    IsakmpSettings,
    Keepalive,
    NodeKind,
    RekeyTransport,
    from_json,
    to_json,
)
from labctl.configuration.policy import Address
from labctl.topology import load, read
from labctl.topology.checks import CheckKind
from labctl.topology.model import Topology
from labctl.topology.plan import Plan
from labctl.topology.planner import GENERATED, plan

Planned = Callable[[str], Plan]

SECRET = bytes(range(32))
TOPOLOGIES = Path(__file__).resolve().parents[2] / "topologies"


@pytest.fixture
def planned() -> Planned:
    """Plans a topology text."""
    return lambda text: plan(read(text), secret=SECRET)


@pytest.fixture(scope="module")
def basic_topology() -> Topology:
    return load(TOPOLOGIES / "getvpn-basic.yml")


@pytest.fixture(scope="module")
def basic(basic_topology: Topology) -> Plan:
    return plan(basic_topology, secret=SECRET)


def address(made: Plan, node: str, interface: str) -> str:
    (found,) = (item for item in made.node(node).configuration.interfaces if item.name == interface)
    return str(found.addresses[0])


def next_hop(made: Plan, node: str, destination: str) -> Address | None:
    """Where the node's kernel would send a packet: None if the destination is on-link or nowhere."""
    configuration = made.node(node).configuration
    target = IPv4Address(destination)
    if any(target in item.addresses[0].network for item in configuration.interfaces):
        return None
    matching = [route for route in configuration.routes if target in ip_network(str(route.prefix))]
    return max(matching, key=lambda route: route.prefix.prefixlen).next_hop if matching else None


def walk(made: Plan, source: str, destination: str) -> list[str]:
    """The nodes a packet visits, by nothing but the planned routes."""
    owners = {
        item.addresses[0].ip: node.name
        for node in made.nodes
        for item in node.configuration.interfaces
        if item.addresses
    }
    visited = [source]
    while IPv4Address(destination) not in [
        item.addresses[0].ip for item in made.node(visited[-1]).configuration.interfaces
    ]:
        hop = next_hop(made, visited[-1], destination)
        visited.append(owners[hop if hop is not None else IPv4Address(destination)])
        assert len(visited) < 20, f"a loop: {visited}"
    return visited


def test_a_topology_says_the_same_plan_every_time(basic_topology: Topology, basic: Plan) -> None:
    again = plan(load(TOPOLOGIES / "getvpn-basic.yml"), secret=SECRET)
    assert again == basic
    assert [node.digest for node in again.nodes] == [node.digest for node in basic.nodes]


def test_a_plan_survives_json(basic: Plan) -> None:
    assert from_json(Plan, to_json(basic)) == basic


def test_addresses_are_planned_by_kind_and_order(basic: Plan) -> None:
    assert address(basic, "pe1", "eth0") == "192.168.1.1/30"
    assert address(basic, "p1", "eth0") == "192.168.1.2/30"
    assert address(basic, "pe1", "eth1") == "172.16.1.1/30", "the provider's end is .1, wherever it is written"
    assert address(basic, "ks1", "eth0") == "172.16.1.2/30"
    assert address(basic, "ce2", "eth1") == "10.1.2.1/24"
    assert address(basic, "h2", "eth0") == "10.1.2.10/24"


def test_every_mac_is_local_unicast_and_its_own(basic: Plan) -> None:
    macs = [item.mac for node in basic.nodes for item in node.configuration.interfaces]
    assert len(set(macs)) == len(macs)
    assert all(mac.startswith("02:") and mac == mac.lower() and len(mac) == 17 for mac in macs)


def test_a_new_node_leaves_the_macs_and_names_of_the_others(planned: Planned) -> None:
    text = (TOPOLOGIES / "two-sites.yml").read_text()
    more = text.replace("h2: host}", "h2: host, h3: host}").replace("  - h2 -- ce2\n", "  - h2 -- ce2\n  - h3 -- ce2\n")
    before, after = planned(text), planned(more)
    for node in before.nodes:
        for one, other in zip(
            node.configuration.interfaces, after.node(node.name).configuration.interfaces, strict=False
        ):
            assert (one.name, one.mac, one.addresses) == (other.name, other.mac, other.addresses)


@pytest.mark.parametrize("name", ["getvpn-basic", "two-sites", "hub-lan", "open-network"])
def test_every_node_reaches_every_address_by_its_routes(name: str) -> None:
    made = plan(load(TOPOLOGIES / f"{name}.yml"), secret=SECRET)
    for source in made.nodes:
        for target in made.nodes:
            for item in target.configuration.interfaces:
                path = walk(made, source.name, str(item.addresses[0].ip))
                assert path[-1] == target.name
                assert all(made.node(transit).kind.forwards for transit in path[1:-1])


def test_a_packet_takes_the_shortest_way_and_ties_go_to_the_first_link(planned: Planned) -> None:
    made = planned(
        """
name: square
nodes: {pe1: pe, pe2: pe, pe3: pe, pe4: pe, ce1: ce, ce4: ce, h1: host, h4: host}
links: [pe1 -- pe2, pe2 -- pe4, pe1 -- pe3, pe3 -- pe4, ce1 -- pe1, ce4 -- pe4, h1 -- ce1, h4 -- ce4]
"""
    )
    there = walk(made, "h1", address(made, "h4", "eth0").split("/")[0])
    assert there == ["h1", "ce1", "pe1", "pe2", "pe4", "ce4", "h4"]


def test_the_provider_never_routes_through_a_customer(planned: Planned) -> None:
    made = planned(
        """
name: dual-homed
nodes: {pe1: pe, pe2: pe, p1: p, p2: p, ce1: ce, ce2: ce, ce3: ce, h2: host, h3: host, h1: host}
links: [pe1 -- p1, p1 -- p2, p2 -- pe2, ce1 -- pe1, ce1 -- pe2, ce2 -- pe1, ce3 -- pe2, h1 -- ce1, h2 -- ce2, h3 -- ce3]
"""
    )
    there = walk(made, "h2", address(made, "h3", "eth0").split("/")[0])
    assert there == ["h2", "ce2", "pe1", "p1", "p2", "pe2", "ce3", "h3"], "not by the shorter pe1, ce1, pe2"
    own = walk(made, "h1", address(made, "h3", "eth0").split("/")[0])
    assert own == ["h1", "ce1", "pe2", "ce3", "h3"], "its own packets take its nearer pe"


def test_hosts_behind_a_switch_share_its_subnet_and_gateway() -> None:
    made = plan(load(TOPOLOGIES / "hub-lan.yml"), secret=SECRET)
    lan = IPv4Network("10.20.0.0/24")
    for host in ("web", "db", "desk"):
        interface = made.node(host).configuration.interfaces[0]
        assert isinstance(interface.addresses[0], IPv4Interface) and interface.addresses[0].network == lan
        assert next_hop(made, host, "10.30.7.10") == IPv4Address("10.20.0.1")
    assert made.switches == ("lan1",)
    assert {link.name for link in made.links if link.is_lan} == {
        f"{end}--lan1:port{number}" for number, end in enumerate(("hub:eth1", "web:eth0", "db:eth0", "desk:eth0"))
    }


def test_switches_that_are_joined_are_one_subnet(planned: Planned) -> None:
    made = planned(
        """
name: trunk
nodes: {s1: switch, s2: switch, ce1: ce, h1: host, h2: host}
links: [ce1 -- s1, s1 -- s2, h1 -- s1, h2 -- s2]
"""
    )
    assert address(made, "h1", "eth0") == "10.1.1.10/24"
    assert address(made, "h2", "eth0") == "10.1.1.11/24"
    assert made.node("ce1").configuration.interfaces[0].name == "eth0"


def test_given_names_and_addresses_stand_and_the_rest_is_planned_around_them(planned: Planned) -> None:
    made = planned(
        """
name: given
nodes: {pe1: pe, ce1: ce, h1: host, h2: host}
links:
  - ce1:eth0 172.16.9.2/30 -- 172.16.9.1/30 pe1:wan
  - {ends: [h1, ce1], subnet: 10.1.2.0/24, mtu: 1400}
  - h2 -- ce1:eth2
"""
    )
    assert address(made, "ce1", "eth0") == "172.16.9.2/30"
    assert address(made, "pe1", "wan") == "172.16.9.1/30"
    assert address(made, "h1", "eth0") == "10.1.2.10/24"
    assert address(made, "h2", "eth0") == "10.1.3.10/24", "10.1.2.0/24 would be its own, and is taken"
    assert {item.name: item.mtu for item in made.node("ce1").configuration.interfaces} == {
        "eth0": 1500,
        "eth1": 1400,
        "eth2": 1500,
    }


def test_a_member_encrypts_on_its_link_to_the_provider(basic: Plan) -> None:
    configuration = basic.node("ce1").configuration
    assert [item.name for item in configuration.interfaces if item.crypto_map] == ["eth0"]
    (membership,) = configuration.memberships
    assert membership.interface == "eth0"
    assert membership.local_address == IPv4Address("172.16.2.2")
    assert membership.key_servers == (IPv4Address("172.16.1.2"),)
    assert membership.identity.number == 1234
    others = [node for node in basic.nodes if node.kind is not NodeKind.CE]
    assert not any(item.crypto_map for node in others for item in node.configuration.interfaces)


def test_a_key_server_gets_the_group_as_it_was_said(basic: Plan) -> None:
    (group,) = basic.node("ks1").configuration.key_server_groups
    assert group.name == "GETVPN_LAB"
    assert group.address == IPv4Address("172.16.1.2")
    assert group.sas[0].transform.cipher is Cipher.AES_GCM and group.sas[0].transform.key_bits == 256
    lans = IPv4Network("10.1.0.0/16")
    assert group.policy == (AccessListEntry(Action.PERMIT, 0, lans, lans),)
    assert (group.sas[0].tek_lifetime, group.rekey.lifetime) == (3600, 86400)


GROUP = """
name: keys
nodes: {ks1: ks, ks2: ks, pe1: pe, ce1: ce, ce2: ce}
links: [ks1 -- pe1, ks2 -- pe1, ce1 -- pe1, ce2 -- pe1]
groups:
  G:
    identity: 10.9.9.9
    key-servers: [ks1, ks2]
    members: [ce1, ce2]
    policy: [permit ip 10.0.0.0 0.255.255.255 any]
"""


def keys_of(made: Plan, node: str) -> dict[str, bytes]:
    return {str(key.peer): key.secret for key in made.node(node).configuration.pre_shared_keys}


def test_generated_keys_are_one_a_pair_and_the_same_at_both_ends(planned: Planned) -> None:
    made = planned(GROUP)
    addresses = {node.name: address(made, node.name, "eth0").split("/")[0] for node in made.nodes if node.name != "pe1"}
    pairs = [("ks1", "ce1"), ("ks1", "ce2"), ("ks2", "ce1"), ("ks2", "ce2"), ("ks1", "ks2")]
    secrets = set()
    for one, other in pairs:
        secret = keys_of(made, one)[addresses[other]]
        assert keys_of(made, other)[addresses[one]] == secret
        assert len(secret) == 24
        secrets.add(secret)
    assert len(secrets) == len(pairs)
    assert addresses["ce2"] not in keys_of(made, "ce1"), "members have no key with each other"
    assert keys_of(made, "pe1") == {}


def test_generated_keys_depend_on_the_labs_secret_and_hide_without_it() -> None:
    topology = read(GROUP)
    assert keys_of(plan(topology, secret=b"a" * 32), "ce1") != keys_of(plan(topology, secret=b"b" * 32), "ce1")
    assert set(keys_of(plan(topology), "ce1").values()) == {GENERATED}


def test_given_keys_are_used_for_all_or_for_one_member(planned: Planned) -> None:
    everyone = planned(GROUP + "    pre-shared-keys: LabPsk1\n")
    assert set(keys_of(everyone, "ks1").values()) == {b"LabPsk1"}
    one = planned(GROUP + "    pre-shared-keys: {ce1: Special}\n")
    assert set(keys_of(one, "ce1").values()) == {b"Special"}
    assert b"Special" not in keys_of(one, "ce2").values()


def test_key_servers_stand_in_the_order_of_the_file(planned: Planned) -> None:
    made = planned(GROUP)
    (membership,) = made.node("ce2").configuration.memberships
    assert [str(item) for item in membership.key_servers] == ["172.16.1.2", "172.16.2.2"]
    assert [made.node(name).configuration.key_server_groups[0].key_server_id for name in ("ks1", "ks2")] == [0, 1]
    assert membership.identity.address == IPv4Address("10.9.9.9")


def test_proposals_keep_their_order_and_reach_both_sides(planned: Planned) -> None:
    made = planned(
        GROUP
        + """    isakmp:
      - {encryption: aes 128, hash: sha, group: 5, lifetime: 3600}
      - {encryption: 3des, group: 20}
    rekey: {encryption: aes 128, hash: sha512}
"""
    )
    for node in ("ks1", "ce1"):
        first, second = made.node(node).configuration.isakmp_policies
        assert (first.priority, first.encryption, first.key_bits) == (10, Encryption.AES_CBC, 128)
        assert (first.hash, first.group, first.lifetime) == (Hash.SHA1, DhGroup.MODP1536, 3600)
        assert (second.priority, second.encryption, second.group) == (20, Encryption.TRIPLE_DES, DhGroup.ECP384)
    rekey = made.node("ks1").configuration.key_server_groups[0].rekey
    assert (rekey.key_bits, rekey.signature_hash) == (128, Hash.SHA512)


def test_names_resolve_to_the_address_a_node_is_known_by(basic: Plan) -> None:
    hosts = basic.node("h1").configuration.hosts
    assert hosts["h2"] == "10.1.2.10"
    assert hosts["ce2"] == "172.16.3.2"
    assert set(hosts) == {node.name for node in basic.nodes}


def test_what_holds_for_all_of_phase_1_reaches_key_servers_and_members_alone(planned: Planned) -> None:
    settings = "isakmp:\n  keepalive: {interval: 30, retry: 5, periodic: true}\n  admission-limit: 20\n"
    made = planned((TOPOLOGIES / "getvpn-basic.yml").read_text() + settings)
    said = {node.configuration.kind: node.configuration.isakmp for node in made.nodes}
    expected = IsakmpSettings(Keepalive(30, 5, periodic=True), 20)
    assert said[NodeKind.KS] == said[NodeKind.CE] == expected
    assert said[NodeKind.PE] == said[NodeKind.HOST] == IsakmpSettings()


def test_nobody_asks_anybody_whether_it_lives_unless_the_topology_says_so(basic: Plan) -> None:
    assert {node.configuration.isakmp for node in basic.nodes} == {IsakmpSettings(keepalive=None, admission=1024)}


def test_the_clock_reaches_every_node(planned: Planned) -> None:
    made = planned("name: fast\nclock: {scale: 60}\nnodes: {pe1: pe, pe2: pe}\nlinks: [pe1 -- pe2]\n")
    assert made.clock_scale == 60.0
    assert {node.configuration.clock_scale for node in made.nodes} == {60.0}


def test_three_hundred_links_of_a_kind_are_numbered_without_overlap(planned: Planned) -> None:
    count = 300
    nodes = ", ".join(f"ce{number}: ce" for number in range(count))
    links = ", ".join(f"ce{number} -- pe{number % 2}" for number in range(count))
    core = ", ".join("pe0 -- pe1" for _ in range(count))
    made = planned(f"name: large\nnodes: {{pe0: pe, pe1: pe, {nodes}}}\nlinks: [{core}, {links}]\n")
    networks = {
        IPv4Network(str(item.addresses[0].network)) for node in made.nodes for item in node.configuration.interfaces
    }
    assert len(networks) == 2 * count
    ordered = sorted(networks, key=lambda network: int(network.network_address))
    assert not any(one.broadcast_address >= other.network_address for one, other in pairwise(ordered))


def test_a_file_in_another_place_is_the_same_plan(tmp_path: Path, basic: Plan) -> None:
    copy = tmp_path / "copy.yml"
    copy.write_text((TOPOLOGIES / "getvpn-basic.yml").read_text())
    assert plan(load(copy), secret=SECRET) == basic


def test_rekeys_and_delays_reach_the_key_server(planned: Planned) -> None:
    text = (TOPOLOGIES / "rekey-unicast.yml").read_text() + "    delays: {activation: 10, deactivation: 100}\n"
    (group,) = planned(text.replace("number: 2", "number: 4")).node("ks1").configuration.key_server_groups
    rekey = group.rekey
    assert (rekey.transport, rekey.address, rekey.acknowledgement) == (
        RekeyTransport.UNICAST,
        None,
        Acknowledgement.SHA256,
    )
    assert (rekey.retransmit_interval, rekey.retransmit_count) == (10, 4)
    assert (group.activation_delay, group.deactivation_delay, group.receive_only) == (10, 100, False)


def test_a_key_tree_is_off_unless_asked_for(planned: Planned) -> None:
    for name, wanted in (("rekey-unicast", False), ("rekey-multicast", False), ("key-tree", True)):
        (group,) = planned((TOPOLOGIES / f"{name}.yml").read_text()).node("ks1").configuration.key_server_groups
        assert group.rekey.key_tree is wanted


def test_a_receive_only_group_is_expected_to_talk_in_clear(planned: Planned) -> None:
    made = planned((TOPOLOGIES / "rekey-unicast.yml").read_text() + "    receive-only: true\n")
    assert {check.kind for check in made.checks} == {CheckKind.REACHABLE, CheckKind.REGISTERED}
    assert made.node("ks1").configuration.key_server_groups[0].receive_only


def test_passive_members_of_a_receive_only_group_are_expected_to_encrypt_between_them(planned: Planned) -> None:
    text = (TOPOLOGIES / "receive-only-migration.yml").read_text()
    for name in ("ce1", "ce2"):
        text = text.replace(f"      - {name}\n", f"      - {{node: {name}, passive: true}}\n")
    checks = {check.kind: check for check in planned(text).checks}
    shown = checks[CheckKind.NO_PLAIN_TEXT]
    assert set(shown.sources) | set(shown.destinations) == {"h1", "h2"}, "h3 answers in clear"
    assert checks[CheckKind.REACHABLE].name == "reachable: any"
