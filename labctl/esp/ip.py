"""IP headers around ESP: tunnel mode that keeps the inner addresses (RFC 5374 3.1, RFC 4301 5.1.2), fragments, ICMP.

Outer TTL is the inner one as it leaves the router, so that the path's length stays visible (reference 6.3, choice).
"""

from __future__ import annotations

import struct

from labctl.esp.errors import DropPacket, DropReason

IPV4_HEADER = 20
IPV6_HEADER = 40
MAX_PACKET = 65_535
PROTOCOL_ICMP = 1
PROTOCOL_TCP = 6
PROTOCOL_UDP = 17
PROTOCOL_IPV6 = 41
PROTOCOL_IPV4 = 4
PROTOCOL_ESP = 50
PROTOCOL_ICMPV6 = 58
PROTOCOL_DUMMY = 59

DF = 0x4000
MF = 0x2000
OFFSET = 0x1FFF

# Protocols whose first four octets are two ports: TCP, UDP, DCCP, SCTP, UDP-Lite.
PORT_PROTOCOLS = frozenset((6, 17, 33, 132, 136))

ECN_MASK = 3
ECN_CE = 3

# ICMP errors quote the IP header and at least eight octets (RFC 792); routers of today quote more (RFC 1812 4.3.2.3).
ICMP_QUOTE = 576 - IPV4_HEADER - 8
ICMPV6_QUOTE = 1280 - IPV6_HEADER - 8

_TEN_WORDS = struct.Struct("!10H")
_IPV4 = struct.Struct("!BBHHHBBH8s")
_WORD = struct.Struct("!H")


def checksum(data: bytes | bytearray | memoryview) -> int:
    """The Internet checksum (RFC 1071)."""
    if len(data) % 2:
        data = bytes(data) + b"\x00"
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


def header_checksum(header: bytes | bytearray | memoryview) -> int:
    """The checksum of an IPv4 header of 20 octets."""
    total: int = sum(_TEN_WORDS.unpack_from(header))
    total = (total & 0xFFFF) + (total >> 16)
    total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


def outer_ipv4(inner: memoryview, payload: int, identification: int) -> bytes:
    """An outer IPv4 header of 20 octets for `payload` octets of ESP: addresses, DSCP, ECN, DF and TTL of the inner."""
    flags = _WORD.unpack_from(inner, 6)[0] & DF
    addresses = bytes(inner[12:20])
    header = bytearray(
        _IPV4.pack(0x45, inner[1], IPV4_HEADER + payload, identification, flags, inner[8], PROTOCOL_ESP, 0, addresses)
    )
    _WORD.pack_into(header, 10, header_checksum(header))
    return bytes(header)


def outer_ipv6(inner: memoryview, payload: int) -> bytes:
    """An outer IPv6 header: traffic class, flow label, hop limit and addresses of the inner; no extension headers."""
    return bytes(inner[:4]) + payload.to_bytes(2, "big") + bytes((PROTOCOL_ESP, inner[7])) + bytes(inner[8:40])


def with_congestion(inner: bytes, outer_ecn: int) -> bytes:
    """Copy a congestion mark of the outer header back, where the inner one is capable of it (RFC 4301 5.1.2.1)."""
    if outer_ecn != ECN_CE:
        return inner
    version = inner[0] >> 4
    ecn = inner[1] & ECN_MASK if version == 4 else (inner[1] >> 4) & ECN_MASK
    if ecn in (0, ECN_CE):
        return inner
    changed = bytearray(inner)
    if version == 4:
        changed[1] |= ECN_CE
        changed[10:12] = b"\x00\x00"
        length = (changed[0] & 15) * 4
        _WORD.pack_into(changed, 10, checksum(changed[:length]))
    else:
        changed[1] |= ECN_CE << 4
    return bytes(changed)


def check_packet(packet: memoryview) -> None:
    """Version, header length and total length fit. Raises DropPacket."""
    size = len(packet)
    if size < IPV4_HEADER:
        raise DropPacket(DropReason.MALFORMED, "shorter than an IP header")
    version = packet[0] >> 4
    if version == 4:
        header = (packet[0] & 15) * 4
        total = _WORD.unpack_from(packet, 2)[0]
        if header < IPV4_HEADER or total < header or total != size:
            raise DropPacket(DropReason.MALFORMED, "lengths of the IPv4 header do not fit")
    elif version == 6:
        if size < IPV6_HEADER or _WORD.unpack_from(packet, 4)[0] + IPV6_HEADER != size:
            raise DropPacket(DropReason.MALFORMED, "lengths of the IPv6 header do not fit")
    else:
        raise DropPacket(DropReason.MALFORMED, f"IP version {version}")


def fragmentation_needed(packet: memoryview, source: bytes, mtu: int) -> bytes:
    """ICMP destination unreachable, fragmentation needed (RFC 1191 4), from `source` to the packet's sender."""
    quote = bytes(packet[:ICMP_QUOTE])
    message = bytearray(struct.pack("!BBHHH", 3, 4, 0, 0, mtu) + quote)
    _WORD.pack_into(message, 2, checksum(message))
    total = IPV4_HEADER + len(message)
    header = bytearray(_IPV4.pack(0x45, 0xC0, total, 0, 0, 64, PROTOCOL_ICMP, 0, source + bytes(packet[12:16])))
    _WORD.pack_into(header, 10, header_checksum(header))
    return bytes(header + message)


def packet_too_big(packet: memoryview, source: bytes, mtu: int) -> bytes:
    """ICMPv6 packet too big (RFC 4443 3.2), from `source` to the packet's sender."""
    quote = bytes(packet[:ICMPV6_QUOTE])
    message = bytearray(struct.pack("!BBHI", 2, 0, 0, mtu) + quote)
    destination = bytes(packet[8:24])
    pseudo = source + destination + struct.pack("!II", len(message), PROTOCOL_ICMPV6)
    _WORD.pack_into(message, 2, checksum(pseudo + message))
    return struct.pack("!IHBB", 6 << 28, len(message), PROTOCOL_ICMPV6, 64) + source + destination + bytes(message)
