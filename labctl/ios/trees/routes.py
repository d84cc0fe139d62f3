"""`ip route`, `ipv6 route`: static routes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Interface, IPv4Network

from labctl.configuration import NodeConfiguration, Route
from labctl.ios.grammar.arguments import Address, Ipv6Address, Ipv6Prefix, Mask
from labctl.ios.grammar.command import Command
from labctl.ios.grammar.language import GLOBAL, Tree
from labctl.ios.meaning import Notes, Part
from labctl.ios.running import Section

ROUTE = Command(
    "ip route {prefix} {mask} {next-hop}",
    {
        "prefix": Address("Destination prefix"),
        "mask": Mask("Destination prefix mask"),
        "next-hop": Address("Forwarding router's address"),
    },
    key=("prefix", "mask", "next-hop"),
    helps={"ip": "Global IP configuration subcommands", "route": "Establish static routes"},
)

IPV6_ROUTE = Command(
    "ipv6 route {prefix} {next-hop}",
    {"prefix": Ipv6Prefix("IPv6 prefix"), "next-hop": Ipv6Address("IPv6 address of next-hop")},
    key=("prefix", "next-hop"),
    helps={"ipv6": "Global IPv6 configuration commands", "route": "Configure static routes"},
)

TREE = Tree({GLOBAL: (ROUTE, IPV6_ROUTE)})


def write(node: NodeConfiguration) -> Iterator[str]:
    """Its lines."""
    for route in node.routes:
        if isinstance(route.prefix, IPv4Network):
            yield f"ip route {route.prefix.network_address} {route.prefix.netmask} {route.next_hop}"
        else:
            yield f"ipv6 route {route.prefix} {route.next_hop}"


def read(root: Section, node: NodeConfiguration, notes: Notes) -> NodeConfiguration:
    """The routes whose next hop is on a link of the node."""
    linked = [own.network for item in node.interfaces for own in item.addresses]
    routes: list[Route] = []
    for said in (*root.all(ROUTE), *root.all(IPV6_ROUTE)):
        prefix, next_hop = said.values["prefix"], said.values["next-hop"]
        network = prefix.network if said.command is IPV6_ROUTE else IPv4Interface((prefix, said.values["mask"])).network
        if any(next_hop in link for link in linked):
            routes.append(Route(network, next_hop))
        else:
            notes.append(f"{said.text}: its next hop is on no link of this node")
    return replace(node, routes=tuple(routes))


PART = Part(TREE, write, read)
