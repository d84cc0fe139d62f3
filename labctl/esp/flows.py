"""What is known of flows that passed before, so that the next packet of one is not looked at twice. Pure.

A flow is what a policy tells apart: addresses, protocol and, where the protocol has them, ports. Known are only packets
without anything that a policy may look at beside those: IPv4 without options, whole, and not of the protocols that stay
on a link. All others go the long way, CryptoPolicy.outbound and CryptoPolicy.inbound, and what the two ways give is the
same to the octet (tests/dataplane). A policy never changes once it counts, so what is known lasts as long as it.
"""

from __future__ import annotations

from collections.abc import Set
from typing import ClassVar, TypeVar

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


class Flows:
    """The flows of one policy: those that leave, those that come in clear and may, ESP, and what it may have inside.

    Keys are `ends`: both addresses, which are the first `addresses` octets, and both ports, or addresses and SPI. What
    is found so may still be another protocol's: then, and where a protocol has no ports, the `find` methods know a key
    that says it. `alone_outbound` and `alone_clear` are protocols whose packets each need a decision of their own.
    """

    version: ClassVar[int]
    addresses: ClassVar[int]

    def __init__(self, policy: CryptoPolicy, alone_outbound: Set[int], alone_clear: Set[int]) -> None:
        self.policy = policy
        self._alone_outbound, self._alone_clear = alone_outbound, alone_clear
        self.outbound: dict[bytes, OutboundFlow] = {}
        self.clear: dict[bytes, int] = {}
        self.associations: dict[bytes, SecurityAssociation] = {}
        self.opened: dict[bytes, OpenedFlow] = {}

    def find_outbound(self, ends: bytes, protocol: int, packet: memoryview) -> OutboundFlow | None:
        """The flow of a packet that leaves; None where each packet needs a decision of its own."""
        adjusted = self._adjust(protocol, packet)
        known, key = self.outbound, self._key(ends, protocol)
        flow = known.get(key)
        if flow is None:
            if protocol in self._alone_outbound:
                return None
            flow = self._decide(ends, protocol, packet)
            if flow is not None and not adjusted:
                _learn(known, ends, key, protocol, flow)
        return flow

    def find_clear(self, ends: bytes, protocol: int, packet: memoryview) -> bool:
        """True if packets of this flow may come in clear. False: look at each."""
        adjusted = self._adjust(protocol, packet)
        key = self._key(ends, protocol)
        if self.clear.get(key) == protocol:
            return True
        if protocol in self._alone_clear or self.policy.inbound(packet).action is not VerdictAction.CLEAR:
            return False
        if not adjusted:
            _learn(self.clear, ends, key, protocol, protocol)
        return True

    def find_association(self, ends: bytes) -> SecurityAssociation | None:
        """The SA of an ESP packet."""
        association = self.policy.associations.get(int.from_bytes(ends[self.addresses :], "big"))
        if association is not None:
            _make_room(self.associations)
            self.associations[ends] = association
        return association

    def check_opened(self, outer: bytes, ends: bytes, protocol: int, inner: memoryview) -> None:
        """Raises DropPacket unless the policy accepts the packet under the SPI of the ESP around it."""
        key = self._key(ends, protocol)
        flow = self.opened.get(key)
        if flow is None or flow.outer != outer:
            self.policy.check_selectors(int.from_bytes(outer[self.addresses :], "big"), inner)
            if not self._adjust(protocol, inner):
                _learn(self.opened, ends, key, protocol, OpenedFlow(outer, protocol))

    def _adjust(self, protocol: int, packet: memoryview) -> bool:
        """True for a packet that is adjusted, whose flow must not become known."""
        return False

    def _key(self, ends: bytes, protocol: int) -> bytes:
        """A key that says the protocol: one octet more."""
        return (ends if protocol in ip.PORT_PROTOCOLS else ends[: self.addresses]) + bytes((protocol,))

    def _decide(self, ends: bytes, protocol: int, packet: memoryview) -> OutboundFlow | None:
        policy = self.policy
        index = policy.decide(packet)
        association, room = None, ip.MAX_PACKET
        if index == EXEMPT or (index == NO_MATCH and self.version not in policy.closed):
            index = len(policy.entries)
        elif index == NO_MATCH:
            return None
        else:
            entry = policy.entries[index]
            if entry.entry.action is Action.PERMIT and not entry.send_clear:
                association = None if entry.spi is None else policy.associations.get(entry.spi)
                if association is None:
                    return None
                room = policy.tunnel.room(association, ends[self.addresses // 2 : self.addresses])
        return OutboundFlow(association, index, room, ends[: self.addresses], protocol)


class KnownFlows(Flows):
    """Those of IPv4: `ends` are the twelve octets behind the checksum of a header without options."""

    version, addresses = 4, 8

    def __init__(self, policy: CryptoPolicy) -> None:
        # With path MTU discovery each ICMP message may be for us.
        learning = {ip.PROTOCOL_ICMP} if policy.tunnel.settings.learn_path_mtu else set()
        super().__init__(policy, _LINK_LOCAL, _UNKNOWABLE_IN_CLEAR | learning)
        # What of an inner header's DF bit the outer one has: kept, set.
        self.df_masks = policy.tunnel.df_masks
        # Where we adjust the MSS, each packet of TCP may be a SYN.
        self._adjusts = policy.tunnel.mss is not None

    def _adjust(self, protocol: int, packet: memoryview) -> bool:
        if not self._adjusts or protocol != ip.PROTOCOL_TCP:
            return False
        self.policy.tunnel.adjust(packet)
        return True


_Value = TypeVar("_Value")


def _learn(known: dict[bytes, _Value], ends: bytes, key: bytes, protocol: int, value: _Value) -> None:
    """Remember a value by `ends`, of a protocol with ports, or by the key that says the protocol."""
    _make_room(known)
    known[ends if protocol in ip.PORT_PROTOCOLS and ends not in known else key] = value


def _make_room(known: dict[bytes, _Value]) -> None:
    """Knowledge starts over when it is full."""
    if len(known) >= MAX_FLOWS:
        known.clear()
