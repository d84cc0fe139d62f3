"""`ip nat`: translation between inside and outside, before encryption (reference/cisco-getvpn.md 2.9)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

from labctl.configuration import NodeConfiguration
from labctl.configuration.translation import AddressTranslation, Overload, StaticTranslation
from labctl.ios.grammar.arguments import Address, Integer, InterfaceName, Word, ios_interface
from labctl.ios.grammar.command import Command
from labctl.ios.grammar.language import GLOBAL, Tree
from labctl.ios.meaning import Notes, Part
from labctl.ios.running import Section
from labctl.ios.trees import access_lists
from labctl.ios.trees.interfaces import INTERFACE, INTERFACE_MODE

_NAT = {
    "ip": "Global IP configuration subcommands",
    "nat": "NAT configuration commands",
    "inside": "Inside address translation",
    "source": "Source address translation",
}
STATIC = Command(
    "ip nat inside source static {local} {global}",
    {"local": Address("Inside local IP address"), "global": Address("Inside global IP address")},
    key=("local",),
    helps={**_NAT, "static": "Specify static local->global mapping"},
)
LIST = Command(
    "ip nat inside source list {list} (interface {interface} | pool {pool}) overload",
    {
        "list": Word("Access list describing local addresses"),
        "interface": InterfaceName(),
        "pool": Word("Name pool of global addresses"),
    },
    key=("list",),
    helps={
        **_NAT,
        "list": "Specify access list describing local addresses",
        "interface": "Specify interface for global address",
        "pool": "Name pool of global addresses",
        "overload": "Overload an address translation",
    },
)
POOL = Command(
    "ip nat pool {name} {first} {last} prefix-length {length}",
    {
        "name": Word("Pool name"),
        "first": Address("Start IP address"),
        "last": Address("End IP address"),
        "length": Integer(1, 32, "Length of the prefix"),
    },
    key=("name",),
    helps={**_NAT, "pool": "Define pool of addresses", "prefix-length": "Specify the prefix length"},
)
INSIDE = Command("ip nat inside", helps={**_NAT, "inside": "Inside interface for address translation"})
OUTSIDE = Command("ip nat outside", helps={**_NAT, "outside": "Outside interface for address translation"})

TREE = Tree({GLOBAL: (POOL, LIST, STATIC), INTERFACE_MODE: (INSIDE, OUTSIDE)})

# Standard access lists of what is translated are numbered from here on.
FIRST_LIST = 10
# The prefix length that a pool says, of which nothing depends here.
POOL_LENGTH = 24


def write(node: NodeConfiguration) -> Iterator[str]:
    """Its lines."""
    if node.nat is None:
        return
    for word, names in (("inside", node.nat.inside), ("outside", node.nat.outside)):
        for name in names:
            yield f"interface {ios_interface(name)}"
            yield f" ip nat {word}"
    for static in node.nat.statics:
        yield f"ip nat inside source static {static.inside_local} {static.inside_global}"
    for number, item in enumerate(node.nat.overloads):
        local = item.inside_local
        yield f"access-list {FIRST_LIST + number} permit {local.network_address} {local.hostmask}"
        behind = f"interface {ios_interface(item.interface)}" if item.interface else f"pool NAT_POOL_{number + 1}"
        if item.interface is None:
            yield f"ip nat pool NAT_POOL_{number + 1} {item.first} {item.last} prefix-length {POOL_LENGTH}"
        yield f"ip nat inside source list {FIRST_LIST + number} {behind} overload"


def read(root: Section, node: NodeConfiguration, notes: Notes) -> NodeConfiguration:
    """What is translated, between the interfaces that the node has."""
    sections = {item.name: root.section(INTERFACE, name=item.name) for item in node.interfaces}
    inside, outside = (
        tuple(name for name, section in sections.items() if section is not None and section.one(command) is not None)
        for command in (INSIDE, OUTSIDE)
    )
    statics = tuple(StaticTranslation(said.values["local"], said.values["global"]) for said in root.all(STATIC))
    overloads = tuple(item for said in root.all(LIST) for item in _overloads(root, said.values, notes))
    if not (inside or outside or statics or overloads):
        return replace(node, nat=None)
    return replace(node, nat=AddressTranslation(inside, outside, statics, overloads))


PART = Part(TREE, write, read)


def _overloads(root: Section, said: dict[str, str], notes: Notes) -> Iterator[Overload]:
    try:
        local: tuple[IPv4Network, ...] | None = access_lists.sources(root, said["list"])
    except access_lists.Unusable as error:
        notes.append(f"ip nat inside source list {said['list']}: {error}")
        return
    if local is None:
        notes.append(f"ip nat inside source list {said['list']}: there is no such standard access list")
        return
    first: IPv4Address | None = None
    last: IPv4Address | None = None
    if "pool" in said:
        pool = root.find(POOL, {"name": said["pool"]})
        if pool is None:
            notes.append(f"ip nat inside source list {said['list']}: there is no pool {said['pool']}")
            return
        first, last = pool.values["first"], pool.values["last"]
    for network in local:
        yield Overload(network, said.get("interface"), first, last)
