"""IPv6 beside IPv4: which links of a lab have it, and with which addresses (docs/topology.md, Addresses).

    LAN   2001:db8:1:N::/64      edge  2001:db8:2:N::/64      core  2001:db8:3:N::/64

A lab has IPv6 where a group is IPv6, or a `subnet6` is given. Then every link has, but those to key servers: the
control plane is IPv4 (reference/cisco-getvpn.md 2.12). N counts the segments of a kind as IPv4 does, and an
interface is numbered as in IPv4: who is 10.1.4.10 is 2001:db8:1:4::10. Both are written in decimal digits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from ipaddress import IPv6Address, IPv6Interface, IPv6Network

from labctl.configuration import NodeKind
from labctl.topology.links import DraftLink, read_subnet6
from labctl.topology.model import End, Group, Link, Node, Segment, SegmentKind
from labctl.topology.problems import Position, Problems
from labctl.topology.raw_node import RawNode
from labctl.topology.shape import Shaped

_BLOCKS = {
    SegmentKind.LAN: IPv6Network("2001:db8:1::/48"),
    SegmentKind.EDGE: IPv6Network("2001:db8:2::/48"),
    SegmentKind.CORE: IPv6Network("2001:db8:3::/48"),
}
# Numbers of up to four decimal digits; hexadecimal ones that begin with a letter stand for the rest. No file has room
# for more links.
_DECIMAL, _LETTERS = 9999, 0xA000
# RFC 8200 5. What ESP adds is split where a link has no room for it.
SMALLEST_IPV6_MTU = 1280


def number_ipv6(
    shaped: Shaped,
    nodes: Mapping[str, Node],
    drafts: Sequence[DraftLink],
    links: list[Link],
    segments: list[Segment],
    groups: Sequence[Group],
    problems: Problems,
) -> tuple[list[Link], list[Segment]]:
    """The links and segments with their IPv6 addresses, if the lab has IPv6; what cannot be is noted."""
    given = _given(shaped, drafts, links, segments, problems)
    if not given and not any(group.ipv6 for group in groups):
        return links, segments
    prefixes = _prefixes(segments, nodes, {number: network for number, (network, _) in given.items()})
    addresses: dict[tuple[str, str], IPv6Interface] = {}
    numbered = []
    for number, segment in enumerate(segments):
        prefix = prefixes.get(number)
        if prefix is not None:
            addresses |= {
                (end.node, end.interface): _address(prefix, segment, end) for end in _speakers(segment, nodes)
            }
        ends = tuple(_with(end, addresses) for end in segment.ends)
        numbered.append(replace(segment, ends=ends, prefix6=prefix))
    _check_mtus(drafts, links, addresses, problems)
    return [
        replace(link, ends=(_with(link.ends[0], addresses), _with(link.ends[1], addresses))) for link in links
    ], numbered


def _with(end: End, addresses: Mapping[tuple[str, str], IPv6Interface]) -> End:
    return replace(end, address6=addresses.get((end.node, end.interface)))


def _given(
    shaped: Shaped, drafts: Sequence[DraftLink], links: list[Link], segments: list[Segment], problems: Problems
) -> dict[int, tuple[IPv6Network, Position]]:
    """Segment number -> the prefix that it was given, and where."""
    by_link = {link.name: draft for link, draft in zip(links, drafts, strict=True)}
    found: dict[int, tuple[IPv6Network, Position]] = {}
    seen: dict[IPv6Network, Position] = {}
    for number, segment in enumerate(segments):
        said = [by_link[name].subnet6 for name in segment.links]
        switches = {
            end.node.name for name in segment.links for end in by_link[name].ends if end.node.kind is NodeKind.SWITCH
        }
        for name in sorted(switches):
            raw = shaped.raw.nodes[name]
            if isinstance(raw, RawNode):
                said.append(read_subnet6(raw.subnet6, shaped.at("nodes", name, "subnet6"), problems))
        for item in said:
            if item is None:
                continue
            network, at = item
            if network in seen:
                hint = f"the first is on line {seen[network].line}: a subnet is on one link or switch"
                problems.add(at, f"{network} is given twice", hint)
            elif number in found:
                problems.add(at, f"{network} and {found[number][0]} are on one LAN", "keep one of them")
            seen.setdefault(network, at)
            found.setdefault(number, item)
    return found


def _speakers(segment: Segment, nodes: Mapping[str, Node]) -> list[End]:
    return [end for end in segment.ends if nodes[end.node].kind is not NodeKind.KS]


def _prefixes(
    segments: Sequence[Segment], nodes: Mapping[str, Node], given: Mapping[int, IPv6Network]
) -> dict[int, IPv6Network]:
    """Segment number -> prefix. One whose own number was given away has the first free one behind all others."""
    found = dict(given)
    taken = set(given.values())
    count = dict.fromkeys(SegmentKind, 0)
    waiting = []
    for number, segment in enumerate(segments):
        count[segment.kind] += 1
        if number in found or len(_speakers(segment, nodes)) < 2:
            continue
        prefix = _planned(segment.kind, count[segment.kind])
        if prefix in taken:
            waiting.append(number)
            continue
        taken.add(prefix)
        found[number] = prefix
    for number in waiting:
        kind = segments[number].kind
        behind = range(count[kind] + 1, count[kind] + len(taken) + 2)
        found[number] = next(prefix for place in behind if (prefix := _planned(kind, place)) not in taken)
        taken.add(found[number])
    return found


def _planned(kind: SegmentKind, number: int) -> IPv6Network:
    return IPv6Network((int(_BLOCKS[kind].network_address) | _digits(number) << 64, 64))


def _digits(number: int) -> int:
    return int(str(number), 16) if number <= _DECIMAL else _LETTERS + number - _DECIMAL - 1


def _address(prefix: IPv6Network, segment: Segment, end: End) -> IPv6Interface:
    """Numbered as in the IPv4 prefix, from 1: 0 is every router's (RFC 4291 2.6.1)."""
    assert end.address is not None
    host = int(end.address.ip) - int(segment.prefix.network_address) + (segment.prefix.prefixlen == 31)
    return IPv6Interface((IPv6Address(int(prefix.network_address) | int(str(host), 16)), 64))


def _check_mtus(
    drafts: Sequence[DraftLink],
    links: list[Link],
    addresses: Mapping[tuple[str, str], IPv6Interface],
    problems: Problems,
) -> None:
    for draft, link in zip(drafts, links, strict=True):
        speaks = any((end.node, end.interface) in addresses for end in link.ends)
        if link.mtu < SMALLEST_IPV6_MTU and speaks:
            what = f"IPv6 does not work over a link of {link.mtu} octets"
            problems.add(draft.at, what, f"{SMALLEST_IPV6_MTU} at least (RFC 8200)")


def refuse_idle_switch_subnets(shaped: Shaped, problems: Problems) -> None:
    """`subnet6` of what is no switch."""
    for name, raw in shaped.raw.nodes.items():
        if isinstance(raw, RawNode) and raw.subnet6 is not None and raw.kind != "switch":
            problems.add(
                shaped.key_at("nodes", name, "subnet6"),
                f"{raw.kind} {name!r} has a subnet",
                "a switch has one; elsewhere it belongs to the link: '{ends: [a, b], subnet6: ...}'",
            )
