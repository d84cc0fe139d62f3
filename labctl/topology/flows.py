"""What becomes of a packet between two nodes: its way, and where it is encrypted. Decides which checks make sense."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from ipaddress import IPv4Address, IPv6Address

from labctl.configuration import AccessListEntry, Action, NodeKind
from labctl.topology.model import Group, MemberOptions, Topology
from labctl.topology.routing import Hop, Routing
from labctl.topology.translated import Translated

# ICMP by the version of IP.
_ICMP = {4: 1, 6: 58}
_Address = IPv4Address | IPv6Address
_Addresses = tuple[_Address, _Address]


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
    # Whose keys it is encrypted under on its way there.
    group: str | None = None


class Flows:
    """Follows packets through a lab whose members are registered, but for those that its topology calls refused."""

    def __init__(self, topology: Topology, routing: Routing) -> None:
        self._nodes = topology.nodes
        # By family, IPv6 or not.
        self._addresses: dict[bool, Mapping[str, _Address]] = {
            False: topology.control_addresses(),
            True: topology.ipv6_addresses(),
        }
        self._segments = topology.segments
        self._routing = routing
        self._translated = Translated(routing)
        # Of each crypto interface (node, segment): the policies of its groups, each entry with its group.
        self._policies: dict[tuple[str, int], list[tuple[AccessListEntry, str]]] = {}
        # Members, with the group, that take clear packets where encrypted ones are to be expected.
        self._passive: set[tuple[str, str]] = set()
        # Crypto interfaces without keys that fail close, by family, with what may pass nevertheless.
        self._closed: dict[tuple[str, int, bool], Sequence[AccessListEntry]] = {}
        for group in topology.groups:
            for member in group.members:
                options = group.options.get(member, MemberOptions())
                place = (member, _crypto_segment(routing, group, member))
                if options.refused:
                    if options.fail_close is not None:
                        self._closed[(*place, group.ipv6)] = options.fail_close
                    continue
                entries = (*options.local_policy, *_in_force(group, passive=options.passive))
                self._policies.setdefault(place, []).extend((entry, group.name) for entry in entries)
                if options.passive:
                    self._passive.add((member, group.name))

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

    def stations(self, *, ipv6: bool = False) -> list[str]:
        """The nodes whose conversations matter: hosts, or where there are not two of them, the routers at the ends."""
        known = self._addresses[ipv6]
        for kinds in ({NodeKind.HOST}, {NodeKind.HOST, NodeKind.CE}):
            found = [node.name for node in self._nodes if node.kind in kinds and node.name in known]
            if len(found) > 1:
                return found
        return [node.name for node in self._nodes if node.kind is not NodeKind.SWITCH and node.name in known]

    def have(self, *names: str, ipv6: bool) -> bool:
        """True if all of these nodes speak this version of IP."""
        return all(name in self._addresses[ipv6] for name in names)

    def between(self, source: str, destination: str, *, ipv6: bool = False) -> Flow:
        """What becomes of a ping. Both ends speak this version of IP."""
        target = self._addresses[ipv6][destination]
        there = self._routing.path(source, target)
        began = there[0].leaving.ip(ipv6=ipv6) if there else None
        if not there or began is None:
            return Flow(source, destination, Fate.DROPPED, (), ())
        back = self._routing.path(destination, began)
        asked = self._translated.known_as(source, destination, target)
        fate, group, (seen, reached) = self._fate(there, began, asked)
        answer = Fate.DROPPED
        if back is not None:
            answer, _, ends = self._fate(back, reached, seen, began=began)
            if ends != (asked, began):
                answer = Fate.DROPPED  # an answer from an address that was not asked is none
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
        return Flow(source, destination, fate, tuple(links), members, group)

    def _links(self, hop: Hop) -> list[str]:
        """The links that a packet crosses on this hop: one wire, or the ports of a switch at its two ends."""
        ends = (str(hop.leaving), str(hop.entering))
        return [
            link
            for link in self._segments[hop.segment].links
            if link.startswith(tuple(f"{end}--" for end in ends)) or link.endswith(tuple(f"--{end}" for end in ends))
        ]

    def _has_crypto(self, node: str, segment: int) -> bool:
        return (node, segment) in self._policies

    def _fate(
        self, path: list[Hop], source: _Address, destination: _Address, began: _Address | None = None
    ) -> tuple[Fate, str | None, _Addresses]:
        """What becomes of a packet, the group that encrypts it, and the addresses that it arrives with.

        `began` is to whom this is an answer.
        """
        encrypted = was_encrypted = None
        for hop in path:
            here, there = (hop.leaving.node, hop.segment), (hop.entering.node, hop.segment)
            leaves_as = self._translated.outward(hop.leaving, source)
            if leaves_as != source and encrypted is not None:
                # The header is under another address than what is inside: its receiver drops it.
                return Fate.DROPPED, was_encrypted, (source, destination)
            source = leaves_as
            if self._is_closed(here, source, destination) or self._is_closed(there, destination, source):
                return Fate.DROPPED, was_encrypted, (source, destination)
            if here in self._policies and encrypted is None:
                encrypted = self._permitting(here, source, destination)
                was_encrypted = encrypted or was_encrypted
            if there in self._policies:
                expected = self._permitting(there, destination, source)
                # What should have come encrypted and did not is dropped (reference/cisco-getvpn.md 2.7, normal).
                if encrypted is None and expected is not None and (hop.entering.node, expected) not in self._passive:
                    return Fate.DROPPED, was_encrypted, (source, destination)
                # So is what came under keys that this interface does not have.
                if encrypted is not None and encrypted not in {group for _, group in self._policies[there]}:
                    return Fate.DROPPED, was_encrypted, (source, destination)
                encrypted = None
            goes_on_to = self._translated.inward(hop.entering, destination, began)
            if goes_on_to != destination and encrypted is not None:
                return Fate.DROPPED, was_encrypted, (source, destination)
            destination = goes_on_to
        ends = source, destination
        if encrypted is not None:
            return Fate.DROPPED, was_encrypted, ends
        return Fate.CLEAR if was_encrypted is None else Fate.ENCRYPTED, was_encrypted, ends

    def _is_closed(self, place: tuple[str, int], source: _Address, destination: _Address) -> bool:
        """True where an interface that fails close lets nothing of this flow pass. Addresses as it would send it."""
        closed = self._closed.get((*place, source.version == 6))
        return closed is not None and not any(
            entry.protocol in (0, _ICMP[source.version]) and source in entry.source and destination in entry.destination
            for entry in closed
        )

    def _permitting(self, place: tuple[str, int], source: _Address, destination: _Address) -> str | None:
        """The group whose policy encrypts a ping on that interface."""
        for entry, group in self._policies[place]:
            icmp = _ICMP[source.version]
            if entry.protocol in (0, icmp) and source in entry.source and destination in entry.destination:
                return group if entry.action is Action.PERMIT else None
        return None


def _crypto_segment(routing: Routing, group: Group, member: str) -> int:
    interface = group.interfaces[member]
    return next(number for number, end in routing.connected(member) if end.interface == interface)


def _in_force(group: Group, *, passive: bool) -> Sequence[AccessListEntry]:
    """Members of a receive-only group send in clear what its entries permit, and take it so; passive ones encrypt."""
    if not group.receive_only or passive:
        return group.policy
    return [replace(entry, action=Action.DENY) for entry in group.policy]
