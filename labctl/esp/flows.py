"""What is known of flows that passed before, so that the next packet of one is not looked at twice. Pure.

A flow is what a policy tells apart: addresses, protocol and, where the protocol has them, ports. Known are only packets
without anything that a policy may look at beside those: IPv4 without options, whole, and not of the protocols that stay
on a link. All others go the long way, CryptoPolicy.outbound and CryptoPolicy.inbound, and what the two ways give is the
same to the octet (tests/dataplane). A policy never changes once it counts, so what is known lasts as long as it.
"""

from __future__ import annotations

from labctl.configuration import Action
from labctl.esp import ip
from labctl.esp.association import SecurityAssociation
from labctl.esp.exemptions import IGMP, PIM
from labctl.esp.policy import EXEMPT, NO_MATCH, CryptoPolicy, VerdictAction

# Flows of one kind that are known; knowledge starts over when it is full.
MAX_FLOWS = 16_384

# Addresses as 64 bits, the protocol, and the ports as 32 bits where there are any.
FlowKey = tuple[int, ...]

# Whether these pass depends on more than their flow: on the TTL, on an SPI.
_LINK_LOCAL = frozenset((IGMP, PIM))
_UNKNOWABLE_IN_CLEAR = _LINK_LOCAL | {ip.PROTOCOL_ESP}


class OutboundFlow:
    """How packets of a flow leave: under `association` if they have at most `room` octets, in clear without one.

    In clear, `room` is for whatever comes. `index` is their place in the policy's hits, `addresses_sum` what their
    addresses add to the checksum of an IPv4 header.
    """

    __slots__ = ("addresses_sum", "association", "index", "room")

    def __init__(self, association: SecurityAssociation | None, index: int, room: int, addresses: int) -> None:
        self.association = association
        self.index = index
        self.room = room
        self.addresses_sum = sum(addresses >> shift & 0xFFFF for shift in (0, 16, 32, 48))


class KnownFlows:
    """The flows of one policy: those that leave, those that come in clear and may, those that come under an SPI."""

    def __init__(self, policy: CryptoPolicy) -> None:
        self.policy = policy
        self.outbound: dict[FlowKey, OutboundFlow] = {}
        self.clear: set[FlowKey] = set()
        self.opened: set[FlowKey] = set()  # of the SPI, then what else makes a flow

    def learn_outbound(self, key: FlowKey, packet: memoryview) -> OutboundFlow | None:
        """Decide a packet's flow; None where each packet needs a decision of its own."""
        if packet[9] in _LINK_LOCAL:
            return None
        policy = self.policy
        index = policy.decide(packet)
        association, room = None, ip.MAX_PACKET
        if index == EXEMPT or (index == NO_MATCH and not policy.closed):
            index = len(policy.entries)
        elif index == NO_MATCH:
            return None
        else:
            entry = policy.entries[index]
            if entry.entry.action is Action.PERMIT and not entry.send_clear:
                association = None if entry.spi is None else policy.associations.get(entry.spi)
                if association is None:
                    return None
                room = association.plaintext_mtu(policy.mtu)
        flow = OutboundFlow(association, index, room, int.from_bytes(packet[12:20], "big"))
        if len(self.outbound) >= MAX_FLOWS:
            self.outbound.clear()
        self.outbound[key] = flow
        return flow

    def learn_clear(self, key: FlowKey, packet: memoryview) -> bool:
        """True if packets of this flow may come in clear. False: look at each."""
        if packet[9] in _UNKNOWABLE_IN_CLEAR or self.policy.inbound(packet).action is not VerdictAction.CLEAR:
            return False
        if len(self.clear) >= MAX_FLOWS:
            self.clear.clear()
        self.clear.add(key)
        return True

    def learn_opened(self, key: FlowKey, inner: memoryview) -> None:
        """Raises DropPacket unless the policy accepts the packet under the SPI."""
        self.policy.check_selectors(key[0], inner)
        if len(self.opened) >= MAX_FLOWS:
            self.opened.clear()
        self.opened.add(key)
