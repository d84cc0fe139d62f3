"""`ip route`: static routes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Interface, IPv4Network

from labctl.configuration import NodeConfiguration, Route
from labctl.ios.grammar.arguments import Address, Mask
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

TREE = Tree({GLOBAL: (ROUTE,)})


def write(node: NodeConfiguration) -> Iterator[str]:
    """Its lines."""
    for route in node.routes:
        if isinstance(route.prefix, IPv4Network):
            yield f"ip route {route.prefix.network_address} {route.prefix.netmask} {route.next_hop}"


def read(root: Section, node: NodeConfiguration, notes: Notes) -> NodeConfiguration:
    """The routes whose next hop is on a link of the node."""
    linked = [own.network for item in node.interfaces for own in item.addresses if isinstance(own, IPv4Interface)]
    routes: list[Route] = []
    for said in root.all(ROUTE):
        prefix = IPv4Interface((said.values["prefix"], said.values["mask"])).network
        if any(said.values["next-hop"] in network for network in linked):
            routes.append(Route(prefix, said.values["next-hop"]))
        else:
            notes.append(f"{said.text}: its next hop is on no link of this node")
    others = tuple(route for route in node.routes if not isinstance(route.prefix, IPv4Network))
    return replace(node, routes=(*routes, *others))


PART = Part(TREE, write, read)
