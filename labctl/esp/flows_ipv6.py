"""What is known of IPv6 flows that passed before, as labctl.esp.flows knows it of IPv4. Pure.

Known are packets whose header no extension header follows, and which are not ICMPv6, of which each may be a neighbour's
or about one of our own. `ends` are the 36 octets behind the hop limit: both addresses and both ports, or addresses and
SPI.
"""

from __future__ import annotations

from labctl.configuration import Action
from labctl.esp import ip
from labctl.esp.association import SecurityAssociation
from labctl.esp.flows import OpenedFlow, OutboundFlow, learn, make_room
from labctl.esp.ipv6 import EXTENSIONS
from labctl.esp.policy import EXEMPT, NO_MATCH, CryptoPolicy, VerdictAction

ADDRESSES = 32

# Whose packets each need a decision of their own.
UNKNOWABLE = EXTENSIONS | {ip.PROTOCOL_ICMPV6}


class KnownIpv6Flows:
    """The flows of one policy."""

    def __init__(self, policy: CryptoPolicy) -> None:
        self.policy = policy
        self.outbound: dict[bytes, OutboundFlow] = {}
        self.clear: dict[bytes, int] = {}
        self.associations: dict[bytes, SecurityAssociation] = {}
        self.opened: dict[bytes, OpenedFlow] = {}

    def find_outbound(self, ends: bytes, protocol: int, packet: memoryview) -> OutboundFlow | None:
        """The flow of a packet that leaves; None where each packet needs a decision of its own."""
        key = _key(ends, protocol)
        flow = self.outbound.get(key)
        if flow is None:
            if protocol in UNKNOWABLE:
                return None
            flow = self._decide(ends, protocol, packet)
            if flow is not None:
                learn(self.outbound, ends, key, protocol, flow)
        return flow

    def find_clear(self, ends: bytes, protocol: int, packet: memoryview) -> bool:
        """True if packets of this flow may come in clear. False: look at each."""
        key = _key(ends, protocol)
        if self.clear.get(key) == protocol:
            return True
        if protocol in UNKNOWABLE or protocol == ip.PROTOCOL_ESP:
            return False
        if self.policy.inbound(packet).action is not VerdictAction.CLEAR:
            return False
        learn(self.clear, ends, key, protocol, protocol)
        return True

    def find_association(self, ends: bytes) -> SecurityAssociation | None:
        """The SA of an ESP packet."""
        association = self.policy.associations.get(int.from_bytes(ends[ADDRESSES:], "big"))
        if association is not None:
            make_room(self.associations)
            self.associations[ends] = association
        return association

    def check_opened(self, outer: bytes, ends: bytes, protocol: int, inner: memoryview) -> None:
        """Raises DropPacket unless the policy accepts the packet under the SPI of the ESP around it."""
        key = _key(ends, protocol)
        flow = self.opened.get(key)
        if flow is None or flow.outer != outer:
            self.policy.check_selectors(int.from_bytes(outer[ADDRESSES:], "big"), inner)
            learn(self.opened, ends, key, protocol, OpenedFlow(outer, protocol))

    def _decide(self, ends: bytes, protocol: int, packet: memoryview) -> OutboundFlow | None:
        policy = self.policy
        index = policy.decide(packet)
        association, room = None, ip.MAX_PACKET
        if index == EXEMPT or (index == NO_MATCH and 6 not in policy.closed):
            index = len(policy.entries)
        elif index == NO_MATCH:
            return None
        else:
            entry = policy.entries[index]
            if entry.entry.action is Action.PERMIT and not entry.send_clear:
                association = None if entry.spi is None else policy.associations.get(entry.spi)
                if association is None:
                    return None
                room = policy.tunnel.room(association, ends[16:ADDRESSES])
        return OutboundFlow(association, index, room, ends[:ADDRESSES], protocol)


def _key(ends: bytes, protocol: int) -> bytes:
    """A key that says the protocol, of 33 octets or 37."""
    return (ends if protocol in ip.PORT_PROTOCOLS else ends[:ADDRESSES]) + bytes((protocol,))
