"""Whom the node tells that a packet was too big, from which address, and how often: RFC 1812 4.3.2, RFC 4443 2.4.

Sans-IO. The messages themselves: `ip.fragmentation_needed`, `ip.packet_too_big`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface

from labctl.esp import ip, ipv6

# Real seconds between two messages to one sender: `ip icmp rate-limit unreachable df`, 500 ms by default.
INTERVAL = 0.5
MAX_SENDERS = 1024

# Types of ICMP and ICMPv6 that are errors: about these there is never another one.
_ICMP_ERRORS = frozenset((3, 4, 5, 11, 12))
_ICMPV6_ERRORS = range(128)
_ICMPV6_REDIRECT = 137

Own = IPv4Interface | IPv6Interface


class Answers:
    """Messages to senders of packets that do not fit. `own` are the node's addresses, its crypto interface's first."""

    def __init__(self, own: Sequence[Own], now: Callable[[], float]) -> None:
        self._own = tuple(own)
        self._now = now
        self._told: dict[bytes, float] = {}

    def too_big(self, packet: memoryview, mtu: int) -> bytes | None:
        """What the sender of `packet` is told; None if it must not be told, or was a moment ago."""
        source = self._source_for(packet)
        if source is None or not _may_be_answered(packet) or not self._is_due(packet):
            return None
        return (ip.fragmentation_needed if packet[0] >> 4 == 4 else ip.packet_too_big)(packet, source, mtu)

    def _source_for(self, packet: memoryview) -> bytes | None:
        """Our address on the sender's subnet, as it would come out of there (RFC 1812 4.3.2.4), else the first."""
        version = packet[0] >> 4
        sender = IPv4Address(bytes(packet[12:16])) if version == 4 else IPv6Address(bytes(packet[8:24]))
        ours = [item for item in self._own if item.version == version]
        near = (item for item in ours if sender in item.network)
        chosen = next(near, ours[0] if ours else None)
        return None if chosen is None else chosen.ip.packed

    def _is_due(self, packet: memoryview) -> bool:
        sender = bytes(packet[12:16] if packet[0] >> 4 == 4 else packet[8:24])
        now = self._now()
        if now < self._told.get(sender, now) + INTERVAL and sender in self._told:
            return False
        self._told.pop(sender, None)
        if len(self._told) >= MAX_SENDERS:
            del self._told[next(iter(self._told))]
        self._told[sender] = now
        return True


def _may_be_answered(packet: memoryview) -> bool:
    if packet[0] >> 4 == 4:
        return _ipv4_may_be_answered(packet)
    if packet[8] == 0xFF or not any(packet[8:24]):
        return False
    # To a multicast destination, too: path MTU discovery lives by it (RFC 4443 2.4 (e.3)).
    protocol, start, _, offset = ipv6.read_chain(packet)
    if protocol != ip.PROTOCOL_ICMPV6 or offset or len(packet) <= start:
        return True
    return packet[start] not in _ICMPV6_ERRORS and packet[start] != _ICMPV6_REDIRECT


def _ipv4_may_be_answered(packet: memoryview) -> bool:
    source, destination = packet[12], packet[16]
    # From nobody in particular (this network, loopback, multicast, reserved), or to many.
    if source in (0, 127) or source >= 224 or destination >= 224:
        return False
    if int.from_bytes(packet[6:8], "big") & ip.OFFSET:
        return False
    start = (packet[0] & 15) * 4
    return packet[9] != ip.PROTOCOL_ICMP or len(packet) <= start or packet[start] not in _ICMP_ERRORS
