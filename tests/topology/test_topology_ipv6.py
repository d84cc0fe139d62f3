"""IPv6 beside IPv4 in a topology: addresses, routes, groups of one family, checks."""

from __future__ import annotations

from ipaddress import IPv6Address, IPv6Interface, IPv6Network
from pathlib import Path

import pytest

from labctl.configuration import NodeKind
from labctl.topology import load, read
from labctl.topology.checks import CheckKind
from labctl.topology.plan import Plan
from labctl.topology.planner import plan

TOPOLOGIES = Path(__file__).resolve().parents[2] / "topologies"
SECRET = bytes(32)


@pytest.fixture(scope="module")
def made() -> Plan:
    return plan(load(TOPOLOGIES / "ipv6.yml"), secret=SECRET)


def of_ipv6(plan: Plan, node: str) -> list[IPv6Interface]:
    return [
        address
        for item in plan.node(node).configuration.interfaces
        for address in item.addresses
        if isinstance(address, IPv6Interface)
    ]


def test_every_segment_but_those_of_key_servers_has_a_prefix_and_the_host_part_of_ipv4(made: Plan) -> None:
    assert list(map(str, of_ipv6(made, "h3"))) == ["2001:db8:1:3::10/64"]
    assert list(map(str, of_ipv6(made, "ce3"))) == ["2001:db8:2:4::2/64", "2001:db8:1:3::1/64"]
    assert list(map(str, of_ipv6(made, "p1"))) == ["2001:db8:3:1::2/64", "2001:db8:3:2::2/64"]
    assert of_ipv6(made, "ks1") == []
    assert all(route.prefix.version == 4 for route in made.node("ks1").configuration.routes)


def test_a_lab_without_ipv6_groups_and_subnets_has_no_ipv6() -> None:
    for path in TOPOLOGIES.glob("*.yml"):
        if path.stem != "ipv6":
            found = plan(load(path), secret=SECRET)
            assert not any(of_ipv6(found, node.name) or node.configuration.hosts6 for node in found.nodes)
            assert not any(check.ipv6 for check in found.checks)


def walk(made: Plan, source: str, destination: str) -> list[str]:
    """The nodes that a packet visits, by nothing but the planned routes."""
    target = IPv6Address(destination)
    owners = {address.ip: node.name for node in made.nodes for address in of_ipv6(made, node.name)}
    here, visited = source, [source]
    while here != owners[target]:
        configuration = made.node(here).configuration
        hop: object = target
        if not any(target in address.network for address in of_ipv6(made, here)):
            routes = [route for route in configuration.routes if target in route.prefix]
            hop = max(routes, key=lambda route: route.prefix.prefixlen).next_hop
            assert any(hop in address.network for address in of_ipv6(made, here))
        here = next(name for address, name in owners.items() if address == hop)
        visited.append(here)
        assert len(visited) <= len(made.nodes), f"a loop: {visited}"
    return visited


def test_every_node_reaches_every_address_by_its_routes_as_in_ipv4(made: Plan) -> None:
    speakers = [node.name for node in made.nodes if node.kind is not NodeKind.KS]
    for source in speakers:
        for target in speakers:
            for address in of_ipv6(made, target):
                assert walk(made, source, str(address.ip))[-1] == target
    assert walk(made, "h1", "2001:db8:1:3::10") == ["h1", "ce1", "pe1", "p1", "pe2", "ce3", "h3"]


def test_names_have_an_address_of_each_family(made: Plan) -> None:
    hosts, hosts6 = made.node("h1").configuration.hosts, made.node("h1").configuration.hosts6
    assert (hosts["h2"], hosts6["h2"]) == ("10.1.2.10", "2001:db8:1:2::10")
    assert (hosts["ce2"], hosts6["ce2"]) == ("172.16.3.2", "2001:db8:2:3::2")
    assert hosts.keys() - hosts6.keys() == {"ks1"}


def test_the_group_is_ipv6_and_its_control_plane_is_not(made: Plan) -> None:
    _, served = made.node("ks1").configuration.key_server_groups
    assert served.ipv6 and {entry.source.version for entry in served.policy} == {6}
    _, membership = made.node("ce1").configuration.memberships
    assert membership.ipv6 and membership.local_address.version == 4
    assert {address.version for address in membership.key_servers} == {4}
    assert [group.ipv6 for group in made.groups] == [False, True]


def test_both_families_are_proved(made: Plan) -> None:
    kinds = (CheckKind.REACHABLE, CheckKind.ENCRYPTED, CheckKind.NO_PLAIN_TEXT)
    for kind in kinds:
        families = [check.ipv6 for check in made.checks if check.kind is kind]
        assert True in families and families.count(True) == families.count(False), kind


GIVEN = """\
name: given
nodes: {pe1: pe, ce1: ce, ce2: ce, lan: {kind: switch, subnet6: "fd00:7::/64"}, h1: host, h2: host, h3: host}
links:
  - ce1 -- pe1
  - {ends: [ce2, pe1], subnet: 172.16.9.0/31}
  - ce1 -- lan
  - h1 -- lan
  - {ends: [h2 10.200.200.10, ce2], subnet: 10.200.0.0/16, subnet6: "2001:db8:1:1::/64"}
  - h3 -- ce2
"""


def test_given_prefixes_stand_and_a_planned_one_makes_way() -> None:
    made = plan(read(GIVEN, "given.yml"), secret=SECRET)
    assert list(map(str, of_ipv6(made, "h1"))) == ["fd00:7::10/64"]
    assert list(map(str, of_ipv6(made, "h2"))) == ["2001:db8:1:1::5:1210/64"]  # 200 * 256 + 10
    # Its own number, the third, is free.
    assert list(map(str, of_ipv6(made, "h3"))) == ["2001:db8:1:3::10/64"]
    # 0 is every router's (RFC 4291 2.6.1): of a /31, both ends are one further.
    assert {str(address) for address in of_ipv6(made, "ce2")} >= {"2001:db8:2:2::2/64"}
    assert walk(made, "h3", "fd00:7::10")[-1] == "h1"


def test_three_hundred_lans_have_prefixes_of_their_own_in_decimal_digits() -> None:
    numbers = range(1, 301)
    nodes = ["r0: p", "r1: p", *(f"h{number}: host" for number in numbers), "ce1: ce", "pe1: pe"]
    links = ["r0 -- r1", "ce1 -- pe1", "pe1 -- r0", *(f"h{number} -- ce1" for number in numbers)]
    text = "name: many\nnodes:\n" + "".join(f"  {line}\n" for line in nodes)
    text += "links:\n" + "".join(f"  - {line}\n" for line in links)
    text = text.replace("- h1 -- ce1", "- {ends: [h1, ce1], subnet6: 2001:db8:1:2::/64}")
    made = plan(read(text, "many.yml"), secret=SECRET)
    prefixes = [of_ipv6(made, f"h{number}")[0].network for number in numbers]
    assert len(set(prefixes)) == 300 and prefixes[299] == IPv6Network("2001:db8:1:300::/64")
    # Its own number was given away: the first free one behind all others.
    assert str(prefixes[1]) == "2001:db8:1:301::/64"


FAIL_CLOSE = """\
name: closed
nodes: {ks1: ks, pe1: pe, ce1: ce, ce2: ce, h1: host, h2: host}
links:
  - ks1 -- pe1
  - ce1 -- pe1
  - ce2 -- pe1
  - h1 -- ce1
  - h2 -- ce2
groups:
  IPV6_GROUP:
    identity: 6
    ipv6: true
    key-servers: [ks1]
    members: [ce1, {node: ce2, fail-close: [], refused: true}]
    policy: [permit ipv6 2001:db8:1::/48 2001:db8:1::/48]
"""


def test_a_group_that_fails_close_closes_its_own_family() -> None:
    checks = {check.name: check for check in read(FAIL_CLOSE, "closed.yml").checks}
    assert "reachable: h1 <-> h2" in checks and "blocked (IPv6): h1 <-> h2" in checks
    assert checks["blocked (IPv6): h1 <-> h2"].ipv6
