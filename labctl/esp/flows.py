"""What is known of flows that passed before, so that the next packet of one is not looked at twice. Pure.

A flow is what a policy tells apart: addresses, protocol and, where the protocol has them, ports. Known are only packets
without anything that a policy may look at beside those: IPv4 without options, whole, and not of the protocols that stay
on a link. All others go the long way, CryptoPolicy.outbound and CryptoPolicy.inbound, and what the two ways give is the
same to the octet (tests/dataplane). A policy never changes once it counts, so what is known lasts as long as it.
"""

from __future__ import annotations

from typing import TypeVar

from labctl.configuration import Action
from labctl.esp import ip
from labctl.esp.association import SecurityAssociation
from labctl.esp.exemptions import IGMP, PIM
from labctl.esp.policy import EXEMPT, NO_MATCH, CryptoPolicy, VerdictAction

# Flows of one kind that are known; knowledge starts over when it is full.
MAX_FLOWS = 16_384

# Whether these pass depends on more than their flow: on the TTL, on an SPI.
_LINK_LOCAL = frozenset((IGMP, PIM))
_UNKNOWABLE_IN_CLEAR = _LINK_LOCAL | {ip.PROTOCOL_ESP}


class OutboundFlow:
    """How packets of a flow leave: under `association` if they have at most `room` octets, in clear without one.

    In clear, `room` is for whatever comes. `index` is their place in the policy's hits, `addresses_sum` what their
    addresses add to the checksum of an IPv4 header.
    """

    __slots__ = ("addresses", "addresses_sum", "association", "index", "protocol", "room")

    def __init__(
        self, association: SecurityAssociation | None, index: int, room: int, addresses: bytes, protocol: int
    ) -> None:
        self.association = association
        self.index = index
        self.room = room
        self.addresses = addresses
        self.addresses_sum = sum(int.from_bytes(addresses[n : n + 2], "big") for n in range(0, 8, 2))
        self.protocol = protocol


class OpenedFlow:
    """Packets that the policy accepts from ESP whose ends are `outer`."""

    __slots__ = ("outer", "protocol")

    def __init__(self, outer: bytes, protocol: int) -> None:
        self.outer = outer
        self.protocol = protocol


class KnownFlows:
    """The flows of one policy: those that leave, those that come in clear and may, ESP, and what it may have inside.

    Keys are `ends`: the twelve octets behind the checksum of an IPv4 header without options, which are both addresses
    and both ports, or addresses and SPI. What is found so may still be another protocol's: then, and where a protocol
    has no ports, the `find` methods know a key that says it.
    """

    def __init__(self, policy: CryptoPolicy) -> None:
        self.policy = policy
        # What of an inner header's DF bit the outer one has: kept, set.
        self.df_masks = policy.tunnel.df_masks
        # With path MTU discovery each ICMP message may be for us.
        self._unknowable = _UNKNOWABLE_IN_CLEAR | (
            {ip.PROTOCOL_ICMP} if policy.tunnel.settings.learn_path_mtu else set()
        )
        # Where we adjust the MSS, each packet of TCP may be a SYN.
        self._adjusts = policy.tunnel.mss is not None
        self.outbound: dict[bytes, OutboundFlow] = {}
        self.clear: dict[bytes, int] = {}
        self.associations: dict[bytes, SecurityAssociation] = {}
        self.opened: dict[bytes, OpenedFlow] = {}

    def find_outbound(self, ends: bytes, protocol: int, packet: memoryview) -> OutboundFlow | None:
        """The flow of a packet that leaves; None where each packet needs a decision of its own."""
        adjusted = self._adjust(protocol, packet)
        known, key = self.outbound, _key(ends, protocol)
        flow = known.get(key)
        if flow is None:
            if protocol in _LINK_LOCAL:
                return None
            flow = self._decide(ends, protocol, packet)
            if flow is not None and not adjusted:
                learn(known, ends, key, protocol, flow)
        return flow

    def find_clear(self, ends: bytes, protocol: int, packet: memoryview) -> bool:
        """True if packets of this flow may come in clear. False: look at each."""
        adjusted = self._adjust(protocol, packet)
        key = _key(ends, protocol)
        if self.clear.get(key) == protocol:
            return True
        if protocol in self._unknowable or self.policy.inbound(packet).action is not VerdictAction.CLEAR:
            return False
        if not adjusted:
            learn(self.clear, ends, key, protocol, protocol)
        return True

    def find_association(self, ends: bytes) -> SecurityAssociation | None:
        """The SA of an ESP packet."""
        association = self.policy.associations.get(int.from_bytes(ends[8:], "big"))
        if association is not None:
            make_room(self.associations)
            self.associations[ends] = association
        return association

    def check_opened(self, outer: bytes, ends: bytes, protocol: int, inner: memoryview) -> None:
        """Raises DropPacket unless the policy accepts the packet under the SPI of the ESP around it."""
        key = _key(ends, protocol)
        flow = self.opened.get(key)
        if flow is None or flow.outer != outer:
            self.policy.check_selectors(int.from_bytes(outer[8:], "big"), inner)
            if self._adjust(protocol, inner):
                return
            learn(self.opened, ends, key, protocol, OpenedFlow(outer, protocol))

    def _adjust(self, protocol: int, packet: memoryview) -> bool:
        """True for TCP that is adjusted, which must not become known."""
        if not self._adjusts or protocol != ip.PROTOCOL_TCP:
            return False
        self.policy.tunnel.adjust(packet)
        return True

    def _decide(self, ends: bytes, protocol: int, packet: memoryview) -> OutboundFlow | None:
        policy = self.policy
        index = policy.decide(packet)
        association, room = None, ip.MAX_PACKET
        if index == EXEMPT or (index == NO_MATCH and 4 not in policy.closed):
            index = len(policy.entries)
        elif index == NO_MATCH:
            return None
        else:
            entry = policy.entries[index]
            if entry.entry.action is Action.PERMIT and not entry.send_clear:
                association = None if entry.spi is None else policy.associations.get(entry.spi)
                if association is None:
                    return None
                room = policy.tunnel.room(association, ends[4:8])
        return OutboundFlow(association, index, room, ends[:8], protocol)


def _key(ends: bytes, protocol: int) -> bytes:
    """A key that says the protocol, of nine octets or thirteen."""
    return (ends if protocol in ip.PORT_PROTOCOLS else ends[:8]) + bytes((protocol,))


_Value = TypeVar("_Value")


def learn(known: dict[bytes, _Value], ends: bytes, key: bytes, protocol: int, value: _Value) -> None:
    """Remember a value by `ends`, of a protocol with ports, or by the key that says the protocol."""
    make_room(known)
    known[ends if protocol in ip.PORT_PROTOCOLS and ends not in known else key] = value


def make_room(known: dict[bytes, _Value]) -> None:
    """Knowledge starts over when it is full."""
    if len(known) >= MAX_FLOWS:
        known.clear()
