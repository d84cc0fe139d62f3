"""An Ethernet frame, as far as checks look into it: the IPv4 or IPv6 header behind VLAN tags and MPLS labels.

Sources: IEEE 802.1Q (tags), RFC 3032 2.1 (label stack entries), RFC 791 3.1, RFC 8200 3 (headers), RFC 2474 3 (DSCP).
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from labctl.configuration.policy import Address

ICMP, ESP, ICMPV6 = 1, 50, 58
PROTOCOL_NAMES = {1: "icmp", 6: "tcp", 17: "udp", 47: "gre", 50: "esp", 58: "icmpv6"}

_IPV4, _IPV6, _MPLS = 0x0800, 0x86DD, 0x8847
_TAGS = (0x8100, 0x88A8)
_ETHERNET_HEADER, _TAG, _LABEL, _IPV4_HEADER, _IPV6_HEADER = 14, 4, 4, 20, 40
_BOTTOM_OF_STACK = 0x01


@dataclass(frozen=True, slots=True)
class Packet:
    """The fields of an IP header that checks judge; of IPv6, `protocol` is the next header."""

    source: Address
    destination: Address
    protocol: int
    dscp: int

    def __str__(self) -> str:
        protocol = PROTOCOL_NAMES.get(self.protocol, f"protocol {self.protocol}")
        return f"{self.source} -> {self.destination} {protocol}"


def packet_of(frame: bytes) -> Packet | None:
    """The IP packet in a frame, or None where there is none."""
    if len(frame) < _ETHERNET_HEADER:
        return None
    kind, start = int.from_bytes(frame[12:14], "big"), _ETHERNET_HEADER
    while kind in _TAGS:
        kind, start = int.from_bytes(frame[start + 2 : start + 4], "big"), start + _TAG
    if kind == _MPLS:
        while start + _LABEL <= len(frame):
            bottom = frame[start + 2] & _BOTTOM_OF_STACK
            start += _LABEL
            if bottom:
                break
        # RFC 3032 2.2: the label, not the frame, says what follows; in a lab that is IP, whose version says which.
        kind = _IPV6 if frame[start : start + 1] and frame[start] >> 4 == 6 else _IPV4
    if kind == _IPV6:
        return _ipv6(frame[start : start + _IPV6_HEADER])
    header = frame[start : start + _IPV4_HEADER]
    if kind != _IPV4 or len(header) < _IPV4_HEADER or header[0] >> 4 != 4:
        return None
    return Packet(IPv4Address(header[12:16]), IPv4Address(header[16:20]), header[9], header[1] >> 2)


def _ipv6(header: bytes) -> Packet | None:
    if len(header) < _IPV6_HEADER or header[0] >> 4 != 6:
        return None
    traffic_class = (header[0] & 15) << 4 | header[1] >> 4
    return Packet(IPv6Address(header[8:24]), IPv6Address(header[24:40]), header[6], traffic_class >> 2)
