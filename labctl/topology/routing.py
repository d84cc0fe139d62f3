"""Routes of every node, computed from the graph: shortest path in hops, ties by the order of the links.

Hosts and key servers never forward. A ce is no way from one pe to another: the provider does not route through its
customers. Each node decides for itself, as hop-by-hop routing does; distances fall at every hop, so there are no loops.
Inside global addresses lie behind the outside interfaces of the router that translates them.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from labctl.configuration import AddressTranslation, NodeKind, Route
from labctl.topology.model import End, Node, Segment, SegmentKind

_PROVIDER = (NodeKind.PE, NodeKind.P)
_DEFAULT, _DEFAULT_IPV6 = IPv4Network("0.0.0.0/0"), IPv6Network("::/0")


@dataclass(frozen=True, slots=True)
class Hop:
    """One step of a path: out of `leaving`, over segment number `segment`, into `entering`."""

    segment: int
    leaving: End
    entering: End


class Routing:
    """Which way packets go in a lab."""

    def __init__(
        self,
        nodes: tuple[Node, ...],
        segments: tuple[Segment, ...],
        translations: Mapping[str, AddressTranslation] | None = None,
    ) -> None:
        self.segments = segments
        self.translations = translations or {}
        self._kinds = {node.name: node.kind for node in nodes}
        self._ends: dict[str, list[tuple[int, End]]] = {node.name: [] for node in nodes}
        for number, segment in enumerate(segments):
            for end in segment.ends:
                self._ends[end.node].append((number, end))
        self._faces_provider = [
            segment.kind is not SegmentKind.LAN and any(self._kinds[end.node] in _PROVIDER for end in segment.ends)
            for segment in segments
        ]
        self._owners: dict[IPv4Address | IPv6Address, tuple[int, End]] = {
            address: (number, end)
            for number, segment in enumerate(segments)
            for end in segment.ends
            for address in (end.ip(), end.ip(ipv6=True))
            if address is not None
        }
        self._tables: dict[str, dict[int, Hop]] = {}

    def faces_provider(self, segment: int) -> bool:
        """True for what a provider can listen to: segments, not LANs, with a pe or p on them."""
        return self._faces_provider[segment]

    def connected(self, node: str) -> list[tuple[int, End]]:
        """The segments of a node with its ends there."""
        return self._ends[node]

    def table(self, node: str) -> dict[int, Hop]:
        """Segment number -> first hop towards it, for every segment that is reachable and not the node's own."""
        if node not in self._tables:
            self._tables[node] = self._search(node)
        return self._tables[node]

    def kind(self, node: str) -> NodeKind:
        """What the node is."""
        return self._kinds[node]

    def reaches(self, node: str, segment: int) -> bool:
        """True if the node has a route to the segment."""
        return segment in self.table(node) or any(number == segment for number, _ in self._ends[node])

    def path(self, source: str, destination: IPv4Address | IPv6Address) -> list[Hop] | None:
        """The way of a packet from `source` to the node with address `destination`; None if there is none."""
        target = self._owners.get(destination)
        if target is None:
            return None
        number, last = target
        here, hops = source, []
        while here != last.node:
            own = next((end for segment, end in self._ends[here] if segment == number), None)
            if own is not None:
                hops.append(Hop(number, own, last))
                return hops
            step = self.table(here).get(number)
            if step is None:
                return None
            hops.append(step)
            here = step.entering.node
        return hops

    def _search(self, source: str) -> dict[int, Hop]:
        own = {number for number, _ in self._ends[source]}
        found: dict[int, Hop] = {}
        seen = {(source, False)}
        # A node, whether it was entered from the provider, and the first hop that led there.
        waiting: deque[tuple[str, bool, Hop | None]] = deque([(source, False, None)])
        while waiting:
            node, from_provider, first = waiting.popleft()
            stays_below = from_provider and self._kinds[node] is NodeKind.CE
            for number, leaving in self._ends[node]:
                if stays_below and self._faces_provider[number]:
                    continue
                if first is not None and number not in own:
                    found.setdefault(number, first)
                for entering in self.segments[number].ends:
                    state = (entering.node, self._faces_provider[number])
                    if entering.node == node or state in seen or not self._kinds[entering.node].forwards:
                        continue
                    seen.add(state)
                    waiting.append((*state, first or Hop(number, leaving, entering)))
        return found

    def routes(self, node: str) -> tuple[Route, ...]:
        """The static routes of a node, in the order of the segments, those of IPv6 behind the others.

        The provider's routers have one for each prefix; everyone else has a default route, and one for each prefix
        that lies another way.
        """
        return self._routes(node) + self._routes_of_ipv6(node)

    def _routes_of_ipv6(self, node: str) -> tuple[Route, ...]:
        """The same ways as in IPv4, for the segments that have IPv6; none where the node itself has not."""
        if not any(end.address6 is not None for _, end in self._ends[node]):
            return ()
        hops = {number: hop.entering.ip(ipv6=True) for number, hop in sorted(self.table(node).items())}
        found = [
            Route(prefix, hop)
            for number, hop in hops.items()
            if hop is not None and (prefix := self.segments[number].prefix6) is not None
        ]
        if self._kinds[node] in _PROVIDER:
            return tuple(found)
        default = self._gateway_of_ipv6(node, [route.next_hop for route in found])
        if default is None:
            return ()
        return (Route(_DEFAULT_IPV6, default), *(route for route in found if route.next_hop != default))

    def _gateway_of_ipv6(self, node: str, hops: list[IPv4Address | IPv6Address]) -> IPv4Address | IPv6Address | None:
        for number, own in self._ends[node]:
            if self._faces_provider[number]:
                for end in self.segments[number].ends:
                    if end != own and self._kinds[end.node] in _PROVIDER and end.address6 is not None:
                        return end.address6.ip
        counted = Counter(hops).most_common(1)
        return counted[0][0] if counted else None

    def _routes(self, node: str) -> tuple[Route, ...]:
        if (gateway := self._only_gateway(node)) is not None:
            return (Route(_DEFAULT, gateway),)
        hops = {number: _next_hop(hop) for number, hop in sorted(self.table(node).items())}
        found = [Route(self.segments[number].prefix, hop) for number, hop in hops.items()]
        found += self._routes_to_translated(node)
        if self._kinds[node] in _PROVIDER:
            return tuple(found)
        default = self._default(node, hops)
        if default is None:
            return ()
        return (Route(_DEFAULT, default), *(route for route in found if route.next_hop != default))

    def _routes_to_translated(self, node: str) -> list[Route]:
        found = []
        for owner, nat in self.translations.items():
            hop = self._hop_outside(node, owner, nat) if owner != node else None
            if hop is not None:
                found += [Route(prefix, hop) for prefix in nat.prefixes()]
        return found

    def _hop_outside(self, node: str, owner: str, nat: AddressTranslation) -> IPv4Address | None:
        """The next hop to whatever lies behind the outside interfaces of `owner`."""
        own = {number for number, _ in self._ends[node]}
        for number, end in self._ends[owner]:
            if end.interface not in nat.outside or end.address is None:
                continue
            if number in own:
                return end.address.ip
            if number in self.table(node):
                return _next_hop(self.table(node)[number])
        return None

    def _only_gateway(self, node: str) -> IPv4Address | None:
        """The one router next to a host or key server with one link: a short cut for the many nodes of this kind."""
        if self._kinds[node].forwards or len(self._ends[node]) != 1:
            return None
        number, own = self._ends[node][0]
        routers = [end for end in self.segments[number].ends if self._kinds[end.node].forwards and end != own]
        return routers[0].address.ip if len(routers) == 1 and routers[0].address is not None else None

    def _default(self, node: str, hops: dict[int, IPv4Address]) -> IPv4Address | None:
        for number, own in self._ends[node]:
            if self._faces_provider[number]:
                for end in self.segments[number].ends:
                    if end != own and self._kinds[end.node] in _PROVIDER and end.address is not None:
                        return end.address.ip
        counted = Counter(hops.values()).most_common(1)
        return counted[0][0] if counted else None


def _next_hop(hop: Hop) -> IPv4Address:
    assert hop.entering.address is not None
    return hop.entering.address.ip
