"""Segments and their addresses: what the user gave, checked, and the rest planned (docs/topology.md, Addresses).

    LAN   10.1.N.0/24     routers from .1, hosts from .10      a link or switch with a host on it
    edge  172.16.N.0/30   the provider's end .1                ce or ks to pe, and everything else
    core  192.168.N.0/30  the first end .1                     between pe and p

N counts the segments of a kind in the order of the links, whether their subnets are given or planned, so that giving
one leaves the others as they were. A switch outside a LAN gets a /24.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

from labctl.configuration import NodeKind
from labctl.topology.links import DraftEnd, DraftLink
from labctl.topology.model import End, Link, Segment, SegmentKind
from labctl.topology.problems import Position, Problems

_POOLS = {
    SegmentKind.LAN: IPv4Network("10.0.0.0/8"),
    SegmentKind.EDGE: IPv4Network("172.16.0.0/12"),
    SegmentKind.CORE: IPv4Network("192.168.0.0/16"),
}
# LANs begin at 10.1.1.0/24, so that `permit ip 10.1.0.0/16 10.1.0.0/16` means all of the first 255.
_FIRST = {
    SegmentKind.LAN: IPv4Address("10.1.0.0"),
    SegmentKind.EDGE: IPv4Address("172.16.0.0"),
    SegmentKind.CORE: IPv4Address("192.168.0.0"),
}
_FIRST_HOST = 10
_PROVIDER = (NodeKind.PE, NodeKind.P)


@dataclass(slots=True)
class _Wire:
    """A segment while it is numbered. `at` is its first link."""

    at: Position
    links: list[int] = field(default_factory=list)
    ends: list[DraftEnd] = field(default_factory=list)
    switches: list[str] = field(default_factory=list)
    kind: SegmentKind = SegmentKind.EDGE
    prefix: IPv4Network | None = None
    given_at: Position | None = None


def number_segments(
    drafts: list[DraftLink], switch_subnets: dict[str, tuple[IPv4Network, Position]], problems: Problems
) -> tuple[list[Link], list[Segment]]:
    """The links and segments with every address; what cannot be is noted in `problems`."""
    wires = _wires(drafts, problems)
    for wire in wires:
        _settle_given_prefix(wire, drafts, switch_subnets, problems)
    taken = _Taken()
    for wire in wires:
        if wire.prefix is not None and (other := taken.add(wire.prefix, wire.given_at or wire.at)) is not None:
            network, at = other
            problems.add(
                wire.given_at or wire.at,
                f"{wire.prefix} overlaps {network} of another link",
                f"that is on line {at.line}: a subnet is on one link or switch",
            )
    _plan_prefixes(wires, taken, problems)
    addresses = _assign(wires, problems)
    return _resolved(drafts, wires, addresses)


def _wires(drafts: list[DraftLink], problems: Problems) -> list[_Wire]:
    """Links that meet at switches are one segment; a loop of switches is refused (no spanning tree here)."""
    leader: dict[str, str] = {}

    def find(name: str) -> str:
        while leader.setdefault(name, name) != name:
            leader[name] = leader[leader[name]]
            name = leader[name]
        return name

    for draft in drafts:
        switches = [end for end in draft.ends if end.node.kind is NodeKind.SWITCH]
        if len(switches) == 2:
            first, second = find(switches[0].node.name), find(switches[1].node.name)
            if first == second:
                problems.add(
                    draft.at,
                    f"{switches[0].node.name!r} and {switches[1].node.name!r} are in a loop of switches",
                    "remove this link: a frame would go round for ever",
                )
            leader[second] = first
    by_switch: dict[str, _Wire] = {}
    wires: list[_Wire] = []
    for index, draft in enumerate(drafts):
        switches = [end for end in draft.ends if end.node.kind is NodeKind.SWITCH]
        wire = by_switch.get(find(switches[0].node.name)) if switches else None
        if wire is None:
            wire = _Wire(at=draft.at)
            wires.append(wire)
            if switches:
                by_switch[find(switches[0].node.name)] = wire
        wire.links.append(index)
        for end in draft.ends:
            if end.node.kind is not NodeKind.SWITCH:
                _join(wire, end, problems)
            elif end.node.name not in wire.switches:
                wire.switches.append(end.node.name)
    for wire in wires:
        wire.kind = _kind(wire)
    return wires


def _join(wire: _Wire, end: DraftEnd, problems: Problems) -> None:
    if any(other.node.name == end.node.name for other in wire.ends):
        problems.add(end.at, f"{end.node.name!r} is on this LAN twice", "one link to a LAN is enough: remove one")
        return
    wire.ends.append(end)


def _kind(wire: _Wire) -> SegmentKind:
    kinds = {end.node.kind for end in wire.ends}
    if NodeKind.HOST in kinds:
        return SegmentKind.LAN
    return SegmentKind.CORE if kinds and kinds <= set(_PROVIDER) else SegmentKind.EDGE


def _settle_given_prefix(
    wire: _Wire,
    drafts: list[DraftLink],
    switch_subnets: dict[str, tuple[IPv4Network, Position]],
    problems: Problems,
) -> None:
    """The prefix that the user gave, by `subnet` or by an address with its length; all must agree."""
    said: list[tuple[IPv4Network, Position, str]] = []
    for index in wire.links:
        draft = drafts[index]
        if draft.subnet is not None:
            said.append((draft.subnet, draft.subnet_at, f"subnet {draft.subnet}"))
    for name in wire.switches:
        if name in switch_subnets:
            network, at = switch_subnets[name]
            said.append((network, at, f"subnet {network} of switch {name!r}"))
    for end in wire.ends:
        if isinstance(end.address, IPv4Interface):
            said.append((end.address.network, end.address_at, f"{end.node.name} {end.address}"))
    if said:
        wire.prefix, wire.given_at, first = said[0]
        for network, at, what in said[1:]:
            if network != wire.prefix:
                problems.add(
                    at,
                    f"{what} is not in the subnet of {first}",
                    f"both ends of a link are in one subnet: {wire.prefix}",
                )
    for end in wire.ends:
        if isinstance(end.address, IPv4Address) and not isinstance(end.address, IPv4Interface):
            _check_bare_address(wire, end, problems)


def _check_bare_address(wire: _Wire, end: DraftEnd, problems: Problems) -> None:
    assert end.address is not None
    if wire.prefix is None:
        problems.add(end.address_at, f"'{end.address}' has no prefix length", f"write it with one: {end.address}/24")
    elif end.address not in wire.prefix:
        problems.add(end.address_at, f"{end.address} is not in {wire.prefix}", "the link's other end is in that subnet")
    elif wire.prefix.prefixlen < 31 and end.address in (wire.prefix.network_address, wire.prefix.broadcast_address):
        problems.add(end.address_at, f"{end.address} is not an address for a node in {wire.prefix}", "take one between")


def _plan_prefixes(wires: list[_Wire], taken: _Taken, problems: Problems) -> None:
    count = dict.fromkeys(SegmentKind, 0)
    of_kind = {kind: sum(wire.kind is kind for wire in wires) for kind in SegmentKind}
    waiting: list[_Wire] = []
    for wire in wires:
        count[wire.kind] += 1
        if wire.prefix is None and not _take(wire, _candidate(wire, count[wire.kind]), taken):
            waiting.append(wire)
    for wire in waiting:
        # Its own number is taken by a subnet that was given: the first free one behind all numbers.
        numbers = iter(range(of_kind[wire.kind] + 1, of_kind[wire.kind] + 70000))
        if not any(_take(wire, _candidate(wire, number), taken) for number in numbers):
            problems.add(wire.at, "no room is left to number this link", "give it a 'subnet'")


def _candidate(wire: _Wire, number: int) -> IPv4Network | None:
    pool, first = _POOLS[wire.kind], _FIRST[wire.kind]
    length = 24 if wire.switches or wire.kind is SegmentKind.LAN else 30
    blocks = (int(pool.broadcast_address) + 1 - int(first)) // 256
    lap, block = divmod(number, blocks)
    if lap and length == 24:
        return None
    # Beyond the last third octet, point-to-point links share blocks: .0/30, then .4/30, and so on.
    return IPv4Network((int(first) + block * 256 + lap * 4, length)) if lap < 64 else None


def _take(wire: _Wire, network: IPv4Network | None, taken: _Taken) -> bool:
    if network is None or taken.add(network, wire.at) is not None:
        return False
    wire.prefix = network
    return True


class _Taken:
    """Subnets in use; finds overlaps by binary search."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._networks: list[tuple[IPv4Network, Position]] = []

    def add(self, network: IPv4Network, at: Position) -> tuple[IPv4Network, Position] | None:
        """Take a subnet, or return the one that is in its way."""
        start = int(network.network_address)
        place = bisect_left(self._starts, start)
        for neighbour in self._networks[max(place - 1, 0) : place + 1]:
            if neighbour[0].overlaps(network):
                return neighbour
        self._starts.insert(place, start)
        self._networks.insert(place, (network, at))
        return None


def _assign(wires: list[_Wire], problems: Problems) -> dict[tuple[str, str], IPv4Interface]:
    """(node, interface) -> address."""
    found: dict[tuple[str, str], IPv4Interface] = {}
    for wire in wires:
        if wire.prefix is None:
            continue
        used: dict[IPv4Address, DraftEnd] = {}
        for end in wire.ends:
            if end.address is None:
                continue
            ip = end.address.ip if isinstance(end.address, IPv4Interface) else end.address
            if ip in used:
                problems.add(
                    end.address_at,
                    f"{ip} is the address of {used[ip].node.name} as well",
                    f"that is on line {used[ip].address_at.line}: an address belongs to one interface",
                )
            used.setdefault(ip, end)
            found[end.node.name, end.interface] = IPv4Interface((ip, wire.prefix.prefixlen))
        for end in sorted((end for end in wire.ends if end.address is None), key=lambda end: _rank(wire, end)):
            free = next((ip for ip in _addresses(wire, end) if ip not in used), None)
            if free is None:
                room = max(wire.prefix.num_addresses - 2, 2)
                problems.add(
                    wire.given_at or wire.at,
                    f"{wire.prefix} has room for {room} of {len(wire.ends)} nodes",
                    "take a shorter prefix length",
                )
                break
            used[free] = end
            found[end.node.name, end.interface] = IPv4Interface((free, wire.prefix.prefixlen))
    return found


def _rank(wire: _Wire, end: DraftEnd) -> int:
    # On an edge the provider's end is .1; elsewhere the order of the links stands.
    return 0 if wire.kind is not SegmentKind.EDGE or end.node.kind in _PROVIDER else 1


def _addresses(wire: _Wire, end: DraftEnd) -> Iterator[IPv4Address]:
    assert wire.prefix is not None
    first, last = int(wire.prefix.network_address), int(wire.prefix.broadcast_address)
    if wire.prefix.prefixlen < 31:
        first, last = first + 1, last - 1
    if end.node.kind is NodeKind.HOST:
        yield from map(IPv4Address, range(first + _FIRST_HOST - 1, last + 1))
    yield from map(IPv4Address, range(first, last + 1))


def _resolved(
    drafts: list[DraftLink], wires: list[_Wire], addresses: dict[tuple[str, str], IPv4Interface]
) -> tuple[list[Link], list[Segment]]:
    def end(draft: DraftEnd) -> End:
        return End(draft.node.name, draft.interface, addresses.get((draft.node.name, draft.interface)))

    links = [Link((end(draft.ends[0]), end(draft.ends[1])), draft.mtu, draft.impairments) for draft in drafts]
    segments = [
        Segment(wire.kind, wire.prefix, tuple(map(end, wire.ends)), tuple(links[index].name for index in wire.links))
        for wire in wires
        if wire.prefix is not None
    ]
    return links, segments
