"""`ip access-list`, and numbered `access-list` lines (reference/cisco-getvpn.md 2.6)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from ipaddress import IPv4Address, IPv4Network, IPv6Network
from typing import Any

from labctl.configuration import AccessListEntry, Action
from labctl.configuration.access_list import IPV6_PROTOCOLS, PROTOCOLS, TCP_PORTS, UDP_PORTS, describe_access_list_entry
from labctl.configuration.policy import Network
from labctl.ios.grammar.arguments import Address, Argument, Integer, Ipv6Address, Ipv6Prefix, Named, Word
from labctl.ios.grammar.command import Command
from labctl.ios.grammar.language import GLOBAL, Tree
from labctl.ios.meaning import Part
from labctl.ios.running import Section

EXTENDED_MODE, STANDARD_MODE, IPV6_MODE = "extended-access-list", "standard-access-list", "ipv6-access-list"

_PORTS = {**UDP_PORTS, **TCP_PORTS}
_ADDRESS = Address("IP address")
_WILDCARD = Address("Wildcard bits")
_PORT = Named(_PORTS, 1, 65535, "Port number")
_SEQUENCE = Integer(1, 2147483647, "Sequence Number")

_ARGUMENTS: dict[str, Argument] = {
    "sequence": _SEQUENCE,
    "protocol": Named(PROTOCOLS, 0, 255, "An IP protocol number"),
    "source": _ADDRESS,
    "source-wildcard": _WILDCARD,
    "destination": _ADDRESS,
    "destination-wildcard": _WILDCARD,
    **{f"{end}-port{which}": _PORT for end in ("source", "destination") for which in ("", "-last")},
}
_HELPS = {
    "permit": "Specify packets to forward",
    "deny": "Specify packets to reject",
    "any": "Any host",
    "host": "A single host",
    "eq": "Match only packets on a given port number",
    "range": "Match only packets in the range of port numbers",
    "gt": "Match only packets with a greater port number",
    "lt": "Match only packets with a lower port number",
    "neq": "Match only packets not on a given port number",
    "log": "Log matches against this entry",
}


def _end(end: str) -> str:
    ports = " | ".join(f"{word}:{end}-{word} {{{end}-port}}" for word in ("gt", "lt", "neq"))
    return (
        f"(any:{end}-any | host {{{end}}} | {{{end}}} {{{end}-wildcard}}) "
        f"[eq {{{end}-port}} | {ports} | range {{{end}-port}} {{{end}-port-last}}]"
    )


_EXTENDED = f"(permit | deny) {{protocol}} {_end('source')} {_end('destination')} [log]"
_STANDARD = "(permit | deny) (any:source-any | host {source} | {source} [{source-wildcard}]) [log]"

# What tells entries apart: everything but their numbers.
_KEY = tuple(
    name
    for end in ("source", "destination")
    for name in (
        f"{end}-any",
        end,
        f"{end}-wildcard",
        f"{end}-port",
        f"{end}-gt",
        f"{end}-lt",
        f"{end}-neq",
        f"{end}-port-last",
    )
)
_STANDARD_KEY = ("permit", "deny", "source-any", "source", "source-wildcard")

EXTENDED_ENTRY = Command(
    f"[{{sequence}}] {_EXTENDED}",
    _ARGUMENTS,
    key=("permit", "deny", "protocol", *_KEY),
    helps=_HELPS,
    negated=f"({{sequence}} | {_EXTENDED})",
    numbered=True,
)
STANDARD_ENTRY = Command(
    f"[{{sequence}}] {_STANDARD}",
    _ARGUMENTS,
    key=_STANDARD_KEY,
    helps=_HELPS,
    negated=f"({{sequence}} | {_STANDARD})",
    numbered=True,
)

_LISTS = {
    "ip": "Global IP configuration subcommands",
    "access-list": "Named access-list",
    "extended": "Extended Access List",
    "standard": "Standard Access List",
}
_NAME = Word("Access-list name or number")
EXTENDED = Command("ip access-list extended {name}", {"name": _NAME}, ("name",), EXTENDED_MODE, _LISTS)
STANDARD = Command("ip access-list standard {name}", {"name": _NAME}, ("name",), STANDARD_MODE, _LISTS)

_NUMBERED_HELPS = {"access-list": "Add an access list entry", **_HELPS}
NUMBERED_STANDARD = Command(
    f"access-list {{number}} {_STANDARD}",
    {**_ARGUMENTS, "number": Integer(1, 99, "IP standard access list")},
    key=("number", *_STANDARD_KEY),
    helps=_NUMBERED_HELPS,
    negated=f"access-list {{number}} [{_STANDARD}]",
)
NUMBERED_EXTENDED = Command(
    f"access-list {{number}} {_EXTENDED}",
    {**_ARGUMENTS, "number": Integer(100, 199, "IP extended access list")},
    key=("number", "permit", "deny", "protocol", *_KEY),
    helps=_NUMBERED_HELPS,
    negated=f"access-list {{number}} [{_EXTENDED}]",
)


def _ipv6_end(end: str) -> str:
    return f"(any:{end}-any | host {{{end}}} | {{{end}-prefix}}) [eq {{{end}-port}}]"


_IPV6 = f"(permit | deny) {{ipv6-protocol}} {_ipv6_end('source')} {_ipv6_end('destination')} [log]"
_IPV6_ADDRESS, _IPV6_PREFIX = Ipv6Address("IPv6 address"), Ipv6Prefix("IPv6 prefix")

IPV6 = Command(
    "ipv6 access-list {name}",
    {"name": _NAME},
    ("name",),
    IPV6_MODE,
    {"ipv6": "Global IPv6 configuration commands", "access-list": "Configure access lists"},
)
IPV6_ENTRY = Command(
    f"[sequence {{sequence}}] {_IPV6}",
    {
        "sequence": _SEQUENCE,
        "ipv6-protocol": Named(IPV6_PROTOCOLS, 0, 255, "An IPv6 protocol number"),
        **dict.fromkeys(("source", "destination"), _IPV6_ADDRESS),
        **{f"{end}-prefix": _IPV6_PREFIX for end in ("source", "destination")},
        **{f"{end}-port": _PORT for end in ("source", "destination")},
    },
    key=(
        "permit",
        "deny",
        "ipv6-protocol",
        *(f"{end}{what}" for end in ("source", "destination") for what in ("-any", "", "-prefix", "-port")),
    ),
    helps={**_HELPS, "sequence": "Sequence number for this entry"},
    negated=f"(sequence {{sequence}} | {_IPV6})",
    numbered=True,
)

TREE = Tree(
    {
        GLOBAL: (STANDARD, EXTENDED, NUMBERED_STANDARD, NUMBERED_EXTENDED, IPV6),
        IPV6_MODE: (IPV6_ENTRY,),
        STANDARD_MODE: (STANDARD_ENTRY,),
        EXTENDED_MODE: (EXTENDED_ENTRY,),
    },
    {STANDARD_MODE: "config-std-nacl", EXTENDED_MODE: "config-ext-nacl", IPV6_MODE: "config-ipv6-acl"},
)


class Unusable(ValueError):
    """An access list that exists, with an entry that labctl cannot use where it stands."""


def entries(root: Section, name: str | int, *, ipv6: bool = False) -> tuple[AccessListEntry, ...] | None:
    """The entries of an extended or IPv6 access list, by name or number; None where there is none. Raises Unusable."""
    if ipv6:
        section = root.section(IPV6, name=str(name))
        return None if section is None else tuple(_entry(str(name), item.values) for item in section.statements)
    listed = _values(root, EXTENDED, NUMBERED_EXTENDED, str(name))
    return None if listed is None else tuple(_entry(str(name), values) for values in listed)


def sources(root: Section, name: str | int) -> tuple[IPv4Network, ...] | None:
    """What a standard access list permits; None where there is none. Raises Unusable."""
    listed = _values(root, STANDARD, NUMBERED_STANDARD, str(name))
    if listed is None:
        return None
    if any("deny" in values for values in listed):
        raise Unusable(f"access list {name} denies, and only what is permitted can be listed here")
    return tuple(_network_ipv4(str(name), values, "source") for values in listed)


def _values(root: Section, named: Command, numbered: Command, name: str) -> list[Mapping[str, Any]] | None:
    section = root.section(named, name=name)
    found: list[Mapping[str, Any]] = [] if section is None else [item.values for item in section.statements]
    found += [item.values for item in root.all(numbered) if str(item.values["number"]) == name]
    return found if found or section is not None else None


def _entry(name: str, values: Mapping[str, Any]) -> AccessListEntry:
    if any(f"{end}-{word}" in values for end in ("source", "destination") for word in ("gt", "lt", "neq", "port-last")):
        raise Unusable(f"access list {name} has a port range, which is not supported for crypto (GDOI_ACL_RANGE)")
    return AccessListEntry(
        Action.PERMIT if "permit" in values else Action.DENY,
        values["ipv6-protocol"] if "ipv6-protocol" in values else values["protocol"],
        _network(name, values, "source"),
        _network(name, values, "destination"),
        values.get("source-port", 0),
        values.get("destination-port", 0),
    )


def _network(name: str, values: Mapping[str, Any], end: str) -> Network:
    if "ipv6-protocol" in values:
        return _network_ipv6(values, end)
    return _network_ipv4(name, values, end)


def _network_ipv6(values: Mapping[str, Any], end: str) -> IPv6Network:
    if f"{end}-any" in values:
        return IPv6Network("::/0")
    prefix = values.get(f"{end}-prefix")
    return IPv6Network(values[end]) if prefix is None else IPv6Network(prefix.network)


def _network_ipv4(name: str, values: Mapping[str, Any], end: str) -> IPv4Network:
    if f"{end}-any" in values:
        return IPv4Network("0.0.0.0/0")
    wildcard = int(values.get(f"{end}-wildcard", IPv4Address(0)))
    if wildcard & (wildcard + 1):
        raise Unusable(f"access list {name} has a wildcard mask that is not that of a prefix")
    return IPv4Network((int(values[end]) & ~wildcard & 0xFFFFFFFF, 32 - wildcard.bit_length()))


def extended_lines(name: str, listed: Iterable[AccessListEntry]) -> Iterator[str]:
    """The lines of an extended access list, or of an IPv6 one."""
    entries = list(listed)
    ipv6 = bool(entries) and entries[0].source.version == 6
    yield f"ipv6 access-list {name}" if ipv6 else f"ip access-list extended {name}"
    for entry in entries:
        yield f" {describe_access_list_entry(entry)}"


def standard_lines(name: str, networks: Iterable[IPv4Network]) -> Iterator[str]:
    """The lines of a standard access list."""
    yield f"ip access-list standard {name}"
    for network in networks:
        wildcard = "" if network.prefixlen == 32 else f" {network.hostmask}"
        yield f" permit {network.network_address}{wildcard}"


# Who uses a list writes and reads it.
PART = Part(TREE)
