"""What becomes of a packet between two nodes: its way, and where it is encrypted. Decides which checks make sense."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from ipaddress import IPv4Address

from labctl.configuration import AccessListEntry, Action, NodeKind
from labctl.topology.model import Group, MemberOptions, Node, Segment
from labctl.topology.routing import Hop, Routing

_ICMP = 1


class Fate(Enum):
    """How a ping, there and back, ends."""

    CLEAR = "clear"
    ENCRYPTED = "encrypted"
    DROPPED = "dropped"


@dataclass(frozen=True, slots=True)
class Flow:
    """A ping from `source` to `destination`. `links` are those of the provider on its way there."""

    source: str
    destination: str
    fate: Fate
    links: tuple[str, ...]
    members: tuple[str, ...]


class Flows:
    """Follows packets through a lab whose members are registered."""

    def __init__(
        self,
        nodes: tuple[Node, ...],
        segments: tuple[Segment, ...],
        groups: Sequence[Group],
        addresses: dict[str, IPv4Address],
        routing: Routing,
    ) -> None:
        self.nodes = nodes
        self.addresses = addresses
        self._segments = segments
        self._routing = routing
        self._policies: dict[str, list[AccessListEntry]] = {}
        # Members that take clear packets where encrypted ones are to be expected.
        self._passive: set[str] = set()
        for group in groups:
            for member in group.members:
                options = group.options.get(member, MemberOptions())
                policy = _in_force(group, passive=options.passive)
                self._policies.setdefault(member, []).extend([*options.local_policy, *policy])
                if options.passive:
                    self._passive.add(member)

    @property
    def provider_links(self) -> tuple[str, ...]:
        """Every link on which the provider can listen at a node; a trunk between two switches has none."""
        return tuple(
            link
            for number, segment in enumerate(self._segments)
            if self._routing.faces_provider(number)
            for link in segment.links
            if any(link.startswith(f"{end}--") or link.endswith(f"--{end}") for end in segment.ends)
        )

    def stations(self) -> list[str]:
        """The nodes whose conversations matter: hosts, or where there are not two of them, the routers at the ends."""
        for kinds in ({NodeKind.HOST}, {NodeKind.HOST, NodeKind.CE}):
            found = [node.name for node in self.nodes if node.kind in kinds and node.name in self.addresses]
            if len(found) > 1:
                return found
        return [node.name for node in self.nodes if node.kind is not NodeKind.SWITCH and node.name in self.addresses]

    def between(self, source: str, destination: str) -> Flow:
        """What becomes of a ping."""
        there = self._routing.path(source, self.addresses[destination])
        if not there:
            return Flow(source, destination, Fate.DROPPED, (), ())
        source_address = there[0].leaving.address
        assert source_address is not None
        back = self._routing.path(destination, source_address.ip)
        fate = self._fate(there, source_address.ip, self.addresses[destination])
        answer = Fate.DROPPED if back is None else self._fate(back, self.addresses[destination], source_address.ip)
        if Fate.DROPPED in (fate, answer):
            fate = Fate.DROPPED
        elif fate is not answer:
            fate = Fate.CLEAR  # encrypted one way alone: who listens sees what is said
        links: list[str] = []
        for hop in there:
            if self._routing.faces_provider(hop.segment):
                links += self._links(hop)
        members = tuple(hop.leaving.node for hop in there if self._has_crypto(hop.leaving.node, hop.segment))
        members += tuple(hop.entering.node for hop in there if self._has_crypto(hop.entering.node, hop.segment))
        return Flow(source, destination, fate, tuple(links), members)

    def _links(self, hop: Hop) -> list[str]:
        """The links that a packet crosses on this hop: one wire, or the ports of a switch at its two ends."""
        ends = (str(hop.leaving), str(hop.entering))
        return [
            link
            for link in self._segments[hop.segment].links
            if link.startswith(tuple(f"{end}--" for end in ends)) or link.endswith(tuple(f"--{end}" for end in ends))
        ]

    def _has_crypto(self, node: str, segment: int) -> bool:
        return node in self._policies and crypto_segment(self._routing, node) == segment

    def _fate(self, path: list[Hop], source: IPv4Address, destination: IPv4Address) -> Fate:
        encrypted = was_encrypted = False
        for hop in path:
            here, there = hop.leaving.node, hop.entering.node
            if self._has_crypto(here, hop.segment) and not encrypted:
                encrypted = was_encrypted = self._permits(here, source, destination)
            if self._has_crypto(there, hop.segment):
                # What should have come encrypted and did not is dropped (reference/cisco-getvpn.md 2.7, normal).
                if not encrypted and there not in self._passive and self._permits(there, destination, source):
                    return Fate.DROPPED
                encrypted = False
        if encrypted:
            return Fate.DROPPED
        return Fate.ENCRYPTED if was_encrypted else Fate.CLEAR

    def _permits(self, member: str, source: IPv4Address, destination: IPv4Address) -> bool:
        for entry in self._policies[member]:
            if entry.protocol in (0, _ICMP) and source in entry.source and destination in entry.destination:
                return entry.action is Action.PERMIT
        return False


def _in_force(group: Group, *, passive: bool) -> Sequence[AccessListEntry]:
    """Members of a receive-only group send in clear what its entries permit, and take it so; passive ones encrypt."""
    if not group.receive_only or passive:
        return group.policy
    return [replace(entry, action=Action.DENY) for entry in group.policy]


def crypto_segment(routing: Routing, member: str) -> int | None:
    """The segment on which a member encrypts: that of its link to the provider."""
    return next((number for number, _ in routing.connected(member) if routing.faces_provider(number)), None)
