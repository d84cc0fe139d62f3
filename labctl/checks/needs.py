"""What each check has to see: which echoes, which captures, whose status. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, ip_address

from labctl.checks.evidence import Needs, Probe, Tap
from labctl.checks.packets import Packet
from labctl.configuration import Interface, NodeKind
from labctl.configuration.policy import Address
from labctl.topology.checks import CheckKind, CheckSpec
from labctl.topology.plan import Plan

# 128 random bits: no packet that is not ours holds them.
MARKER_OCTETS = 16

_TIMED = (CheckKind.LATENCY, CheckKind.LOSS)
_MARKED = (CheckKind.ENCRYPTED, CheckKind.NO_PLAIN_TEXT)
_PROVIDER = (NodeKind.PE, NodeKind.P)


def needs_of(spec: CheckSpec, plan: Plan, random: Callable[[int], bytes]) -> Needs:
    """What the check wants. `random` gives the markers."""
    if spec.kind in (CheckKind.REGISTERED, CheckKind.REFUSED):
        return Needs(statuses=spec.sources)
    probes = tuple(
        Probe(
            source,
            destination,
            spec.count,
            spec.dscp,
            timed=spec.kind in _TIMED,
            marker=random(MARKER_OCTETS) if spec.kind in _MARKED else b"",
            ipv6=spec.ipv6,
        )
        for source, destination in pairs_of(spec)
    )
    links = {name: tap_on(plan, name) for name in spec.links}
    if spec.kind is not CheckKind.NO_PLAIN_TEXT:
        return Needs(probes=probes, links=links)
    origins = {}
    for probe in probes:
        target = address_of(plan, probe.source, probe.destination, ipv6=probe.ipv6)
        interface = leaving_interface(plan, probe.source, target)
        if interface is not None:
            # Before encryption: a member's own packets are in clear only on the kernel's side of its interface.
            origins[probe.source] = Tap(probe.source, interface.name, "inside" if interface.crypto_map else "wire")
    return Needs(probes=probes, links=links, origins=origins)


def pairs_of(spec: CheckSpec) -> list[tuple[str, str]]:
    """Every (source, destination) of a check but a node with itself."""
    return [(source, other) for source in spec.sources for other in spec.destinations if source != other]


def tap_on(plan: Plan, link: str) -> Tap | None:
    """Where to listen to a link: at the provider's end if it has one. None if no node is on it."""
    planned = next((item for item in plan.links if item.name == link), None)
    if planned is None:
        return None
    ends = [end for end in planned.ends if end.node not in plan.switches]
    ends.sort(key=lambda end: plan.node(end.node).kind not in _PROVIDER)
    return Tap(ends[0].node, ends[0].interface) if ends else None


def address_of(plan: Plan, source: str, destination: str, *, ipv6: bool = False) -> Address:
    """The address of one family by which one node knows another. Raises KeyError if it has none."""
    configuration = plan.node(source).configuration
    return ip_address((configuration.hosts6 if ipv6 else configuration.hosts)[destination])


@dataclass(frozen=True, slots=True)
class FlowAddresses:
    """What packets of a flow bear on the provider's links; with a pool, one of several sources."""

    sources: tuple[Address, ...]
    destination: Address

    def are_of(self, packet: Packet) -> bool:
        """True for a packet of the flow."""
        return packet.source in self.sources and packet.destination == self.destination

    def __str__(self) -> str:
        first, last = self.sources[0], self.sources[-1]
        return f"{first if first == last else f'{first}..{last}'} -> {self.destination}"


def flow_addresses(plan: Plan, source: str, destination: str, *, ipv6: bool = False) -> FlowAddresses | None:
    """The addresses of a flow once the source's own router has translated them; None if no route leads there."""
    target = address_of(plan, source, destination, ipv6=ipv6)
    own = source_address(plan, source, target)
    if own is None:
        return None
    if not isinstance(own, IPv4Address):
        return FlowAddresses((own,), target)
    for node in plan.nodes:
        nat = node.configuration.nat
        if nat is not None and node.kind is NodeKind.CE and node.name != destination:
            addresses = {
                interface.name: address.ip
                for interface in node.configuration.interfaces
                for address in interface.addresses
                if isinstance(address, IPv4Interface)
            }
            translated = nat.globals_of(own, addresses)
            if translated:
                return FlowAddresses(translated, target)
    return FlowAddresses((own,), target)


def leaving_interface(plan: Plan, node: str, destination: Address) -> Interface | None:
    """The interface through which a node's packets to `destination` leave: on-link, or the longest route's."""
    configuration = plan.node(node).configuration
    target = destination
    routes = [route for route in configuration.routes if destination in route.prefix]
    if _on_link(configuration.interfaces, destination) is None and routes:
        target = max(routes, key=lambda route: route.prefix.prefixlen).next_hop
    return _on_link(configuration.interfaces, target)


def source_address(plan: Plan, node: str, destination: Address) -> Address | None:
    """The address that the kernel gives to a node's packets to `destination` (RFC 1122 3.3.4.3, RFC 6724 5)."""
    interface = leaving_interface(plan, node, destination)
    if interface is None:
        return None
    return next((item.ip for item in interface.addresses if item.version == destination.version), None)


def _on_link(interfaces: tuple[Interface, ...], address: Address) -> Interface | None:
    for interface in interfaces:
        if any(address in item.network for item in interface.addresses):
            return interface
    return None
