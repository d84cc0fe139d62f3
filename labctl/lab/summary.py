"""One line a captured frame, for eyes; tshark on a pcapng file says all of it. Pure.

Enough of Ethernet, 802.1Q, MPLS (RFC 3032), ARP, IPv4, IPv6, ESP (RFC 4303), UDP, TCP and ICMP to tell who talks
to whom and whether it is encrypted.
"""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address

ETHERTYPE_IPV4, ETHERTYPE_ARP, ETHERTYPE_VLAN = 0x0800, 0x0806, 0x8100
ETHERTYPE_IPV6, ETHERTYPE_MPLS = 0x86DD, 0x8847

ICMP, TCP, UDP, ESP, ICMP6 = 1, 6, 17, 50, 58

_NAMED_PORTS = {848: "GDOI", 500: "ISAKMP", 4500: "ISAKMP NAT-T"}
_ICMP_TYPES = {0: "echo reply", 3: "unreachable", 5: "redirect", 8: "echo request", 11: "time exceeded"}
# Hop-by-hop, routing, fragment and destination options headers (RFC 8200 4).
_FRAGMENT = 44
_EXTENSIONS = (0, 43, _FRAGMENT, 60)
_ICMP6_TYPES = {1: "unreachable", 2: "packet too big", 3: "time exceeded", 128: "echo request", 129: "echo reply",
                130: "listener query", 133: "router solicitation", 134: "router advertisement",
                135: "neighbour solicitation", 136: "neighbour advertisement", 143: "listener report"}  # fmt: skip


def summarize(frame: bytes) -> str:
    """A frame in one line; what cannot be read is named, never an exception."""
    try:
        return _ethernet(frame)
    except (struct.error, IndexError, ValueError):
        return f"a frame of {len(frame)} octets, cut short"


def _ethernet(frame: bytes) -> str:
    (ethertype,) = struct.unpack_from("!H", frame, 12)
    payload, prefix = frame[14:], ""
    if ethertype == ETHERTYPE_VLAN:
        tag, ethertype = struct.unpack_from("!HH", payload)
        payload, prefix = payload[4:], f"vlan {tag & 0xFFF} "
    if ethertype == ETHERTYPE_MPLS:
        labels, payload = _label_stack(payload)
        prefix += f"mpls {'/'.join(map(str, labels))} "
        ethertype = ETHERTYPE_IPV6 if payload[0] >> 4 == 6 else ETHERTYPE_IPV4
    if ethertype == ETHERTYPE_IPV4:
        return prefix + _ipv4(payload)
    if ethertype == ETHERTYPE_IPV6:
        return prefix + _ipv6(payload)
    if ethertype == ETHERTYPE_ARP:
        return prefix + _arp(payload)
    return f"{prefix}ethertype 0x{ethertype:04x}, {len(payload)} octets"


def _label_stack(payload: bytes) -> tuple[list[int], bytes]:
    labels = []
    while True:
        (entry,) = struct.unpack_from("!I", payload)
        labels.append(entry >> 12)
        payload = payload[4:]
        if entry & 0x100:  # bottom of stack, RFC 3032 section 2.1
            return labels, payload


def _arp(packet: bytes) -> str:
    (operation,) = struct.unpack_from("!H", packet, 6)
    sender, target = IPv4Address(packet[14:18]), IPv4Address(packet[24:28])
    return f"ARP who has {target}? tell {sender}" if operation == 1 else f"ARP {sender} is here, to {target}"


def _ipv4(packet: bytes) -> str:
    header = (packet[0] & 0xF) * 4
    (length,) = struct.unpack_from("!H", packet, 2)
    source, destination = IPv4Address(packet[12:16]), IPv4Address(packet[16:20])
    (fragment,) = struct.unpack_from("!H", packet, 6)
    if fragment & 0x1FFF:
        return f"{source} > {destination} fragment at {(fragment & 0x1FFF) * 8}, length {length}"
    return f"{source} > {destination} {_transport(packet[9], packet[header:])}, length {length}"


def _ipv6(packet: bytes) -> str:
    (length,) = struct.unpack_from("!H", packet, 4)
    source, destination = IPv6Address(packet[8:24]), IPv6Address(packet[24:40])
    protocol, start, place = packet[6], 40, ""
    while protocol in _EXTENSIONS:
        following, octets = packet[start], (packet[start + 1] + 1) * 8
        if protocol == _FRAGMENT:
            octets = 8
            (word,) = struct.unpack_from("!H", packet, start + 2)
            if word & ~7:
                return f"{source} > {destination} fragment at {word & ~7}, length {length + 40}"
            place = " in fragments" if word & 1 else ""
        protocol, start = following, start + octets
    return f"{source} > {destination} {_transport(protocol, packet[start:])}{place}, length {length + 40}"


def _transport(protocol: int, payload: bytes) -> str:
    if protocol == ESP:
        spi, sequence = struct.unpack_from("!II", payload)
        return f"ESP spi 0x{spi:08x} seq {sequence}"
    if protocol in (TCP, UDP):
        source, destination = struct.unpack_from("!HH", payload)
        name = "UDP" if protocol == UDP else "TCP"
        known = _NAMED_PORTS.get(destination) or _NAMED_PORTS.get(source)
        return f"{name} {source} > {destination}" + (f" {known}" if known and protocol == UDP else "")
    if protocol == ICMP:
        return f"ICMP {_ICMP_TYPES.get(payload[0], f'type {payload[0]}')}"
    if protocol == ICMP6:
        return f"ICMPv6 {_ICMP6_TYPES.get(payload[0], f'type {payload[0]}')}"
    return f"protocol {protocol}"
