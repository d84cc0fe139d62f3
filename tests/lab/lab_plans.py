"""Small plans, made by hand."""

from __future__ import annotations

from ipaddress import IPv4Interface

from labctl.configuration import Interface, NodeConfiguration, NodeKind
from labctl.topology.plan import LinkEnd, Plan, PlannedLink, PlannedNode


def make_node(name: str, kind: NodeKind, *addresses: str, crypto: bool = False) -> PlannedNode:
    """A node with eth0, eth1... for each address."""
    interfaces = tuple(
        Interface(
            f"eth{number}", f"02:00:00:00:{ord(name[0]):02x}:{number:02x}", (IPv4Interface(address),), 1500, crypto
        )
        for number, address in enumerate(addresses)
    )
    return PlannedNode(name, kind, NodeConfiguration(name, kind, interfaces))


def make_link(one: str, other: str, mtu: int = 1500) -> PlannedLink:
    """A link between two `node:interface` ends."""
    first, second = (LinkEnd(*end.split(":")) for end in (one, other))
    return PlannedLink(f"{one}--{other}", (first, second), mtu)


def chain() -> Plan:
    """a -- b -- c: hosts around a provider router, d on a switch beside c."""
    return Plan(
        lab="chain",
        runtime="auto",
        nodes=(
            make_node("a", NodeKind.HOST, "10.0.1.2/24"),
            make_node("b", NodeKind.PE, "10.0.1.1/24", "10.0.2.1/24"),
            make_node("c", NodeKind.HOST, "10.0.2.2/24"),
        ),
        switches=("lan",),
        links=(make_link("a:eth0", "b:eth0"), make_link("b:eth1", "lan:port0"), make_link("c:eth0", "lan:port1")),
        groups=(),
        checks=(),
    )
