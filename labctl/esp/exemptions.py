"""What a group's policy never touches, whatever its entries say: the group's own signalling, and no more.

Exempting all of UDP 848 let any host send in clear past the policy by its choice of a port (CVE-2013-3436,
reference/cisco-getvpn.md 7). So a path names both ends, and both ports are 848.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address

from labctl.esp import ip, ipv6
from labctl.esp.selectors import Flow

GDOI_PORT = 848
IGMP, PIM = 2, 103
_MULTICAST = int(IPv4Address("224.0.0.0"))


@dataclass(frozen=True, slots=True)
class RegistrationPath:
    """This node and a key server; `peer` None: whoever registers with a key server on this node."""

    own: IPv4Address
    peer: IPv4Address | None


@dataclass(frozen=True, slots=True)
class RekeyFlow:
    """The multicast group that rekeys of a key server come to."""

    group: IPv4Address
    source: IPv4Address


class Exemptions:
    """Which packets pass in clear before any entry is looked at. Of IPv6, what stays on a link alone: the control plane
    is IPv4 (reference/cisco-getvpn.md 2.12).

    Membership reports and queries (RFC 3376 4) and hellos of multicast routers (RFC 7761 4.3) never leave their link
    (TTL 1): encrypted they would reach nobody who could read them. The node's own reports, and what its neighbours say,
    pass once `membership` says so.
    """

    def __init__(
        self,
        paths: Iterable[RegistrationPath] = (),
        rekeys: Iterable[RekeyFlow] = (),
        *,
        own: Iterable[IPv4Address] = (),
        membership: bool = False,
    ) -> None:
        paths = tuple(paths)
        self._pairs = frozenset((int(path.own), int(path.peer)) for path in paths if path.peer is not None)
        self._servers = frozenset(int(path.own) for path in paths if path.peer is None)
        self._rekeys = frozenset((int(flow.group), int(flow.source)) for flow in rekeys)
        self._own = frozenset(int(address) for address in own)
        self._membership = membership

    def passes(self, packet: memoryview, flow: Flow, *, outbound: bool) -> bool:
        """True if the packet passes in clear."""
        if flow.version == 6:
            return ipv6.stays_on_the_link(packet, ipv6.read_chain(packet))
        if flow.protocol == ip.PROTOCOL_UDP:
            return self._is_signalling(flow, outbound)
        return self._membership and self._stays_on_the_link(packet, flow, outbound)

    def _is_signalling(self, flow: Flow, outbound: bool) -> bool:
        # A message with certificates comes in fragments, of which only the first has ports.
        if flow.has_ports and (flow.source_port != GDOI_PORT or flow.destination_port != GDOI_PORT):
            return False
        if (flow.destination, flow.source) in self._rekeys:
            return True
        own, peer = (flow.source, flow.destination) if outbound else (flow.destination, flow.source)
        return own in self._servers or (own, peer) in self._pairs

    def _stays_on_the_link(self, packet: memoryview, flow: Flow, outbound: bool) -> bool:
        if flow.protocol not in (IGMP, PIM) or packet[8] != 1 or flow.destination < _MULTICAST:
            return False
        return not outbound or (flow.protocol == IGMP and flow.source in self._own)
