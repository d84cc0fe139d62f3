"""Splitting packets into fragments: IPv4 (RFC 791 2.3, 3.1, 3.2), and our own ESP over IPv6 (RFC 8200 4.5). Pure."""

from __future__ import annotations

import struct

from labctl.esp import ip
from labctl.esp.errors import DropPacket, DropReason

PROTOCOL_FRAGMENT = 44
IPV6_FRAGMENT_HEADER = 8
IPV6_MORE = 1

_END_OF_OPTIONS, _NO_OPERATION = 0, 1
_COPIED = 0x80

_WORD = struct.Struct("!H")


def copied_options(options: bytes | memoryview) -> bytes:
    """The options that every fragment carries, those with the copied flag, padded to words (RFC 791 3.1).

    Raises DropPacket for a list that cannot be read.
    """
    found = bytearray()
    place = 0
    while place < len(options) and (kind := options[place]) != _END_OF_OPTIONS:
        if kind == _NO_OPERATION:
            place += 1
            continue
        size = options[place + 1] if place + 1 < len(options) else 0
        if size < 2 or place + size > len(options):
            raise DropPacket(DropReason.MALFORMED, f"option {kind} of the IPv4 header has no end")
        if kind & _COPIED:
            found += options[place : place + size]
        place += size
    return bytes(found) + bytes(-len(found) % 4)


def fragment_ipv4(packet: memoryview, mtu: int) -> list[bytes]:
    """Split an IPv4 packet, or a fragment of one, so that no part is longer than `mtu`; DF is the caller's to judge.

    Raises DropPacket where there is no room for data, or options that cannot be read.
    """
    octets = (packet[0] & 15) * 4
    header, data = bytearray(packet[:octets]), packet[octets:]
    later = header
    if octets > ip.IPV4_HEADER:
        later = header[: ip.IPV4_HEADER] + copied_options(packet[ip.IPV4_HEADER : octets])
        later[0] = 0x40 | len(later) // 4
    word = _WORD.unpack_from(packet, 6)[0]
    flags, offset, more = word & ~(ip.OFFSET | ip.MF), word & ip.OFFSET, word & ip.MF
    parts: list[bytes] = []
    start = 0
    while start < len(data):
        room = mtu - len(header)
        if len(data) - start > room:
            room &= ~7
        if room < 8:
            raise DropPacket(DropReason.TOO_BIG, f"no room for data in {mtu} octets")
        part = data[start : start + room]
        last = start + len(part) == len(data)
        _WORD.pack_into(header, 2, len(header) + len(part))
        _WORD.pack_into(header, 6, flags | (offset + start // 8) | (more if last else ip.MF))
        _WORD.pack_into(header, 10, 0)
        _WORD.pack_into(header, 10, ip.checksum(header))
        parts.append(bytes(header) + bytes(part))
        start += len(part)
        header = later
    return parts


def fragment_ipv6(packet: memoryview, mtu: int, identification: int) -> list[bytes]:
    """Split a packet that has no extension header, which its own source alone may do: ours is the ESP around another's.

    Raises DropPacket where `mtu` leaves no room for data.
    """
    data, following = packet[ip.IPV6_HEADER :], packet[6]
    room = (mtu - ip.IPV6_HEADER - IPV6_FRAGMENT_HEADER) & ~7
    if room < 8:
        raise DropPacket(DropReason.TOO_BIG, f"no room for data in {mtu} octets")
    parts = []
    for start in range(0, len(data), room):
        part = data[start : start + room]
        header = bytearray(packet[: ip.IPV6_HEADER])
        _WORD.pack_into(header, 4, IPV6_FRAGMENT_HEADER + len(part))
        header[6] = PROTOCOL_FRAGMENT
        more = IPV6_MORE if start + len(part) < len(data) else 0
        parts.append(bytes(header) + struct.pack("!BBHI", following, 0, start | more, identification) + bytes(part))
    return parts


def with_df(packet: bytes, *, df: bool) -> bytes:
    """An IPv4 packet with its DF bit as asked for; its header has no options."""
    word = _WORD.unpack_from(packet, 6)[0]
    if bool(word & ip.DF) is df:
        return packet
    changed = bytearray(packet)
    _WORD.pack_into(changed, 6, word ^ ip.DF)
    _WORD.pack_into(changed, 10, 0)
    _WORD.pack_into(changed, 10, ip.header_checksum(changed))
    return bytes(changed)
