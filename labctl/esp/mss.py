"""`ip tcp adjust-mss` in the data path, for members whose kernel cannot do it (labctl.kernel.mss). Pure."""

from __future__ import annotations

import struct

from labctl.esp import ip

_SYN, _RST = 0x02, 0x04
_END, _NO_OPERATION, _MSS, _MSS_LENGTH = 0, 1, 2, 4
_TCP_HEADER = 20
_WORD = struct.Struct("!H")


def adjust_mss(packet: memoryview, size: int) -> bool:
    """Have a SYN over IPv4 offer no segments of more than `size` octets (RFC 9293 3.7.1), where it lies.

    True if it was changed. Whatever is no such packet, or is malformed, stays as it is.
    """
    if len(packet) < ip.IPV4_HEADER + _TCP_HEADER or packet[0] >> 4 != 4 or packet[9] != ip.PROTOCOL_TCP:
        return False
    start = (packet[0] & 15) * 4
    if _WORD.unpack_from(packet, 6)[0] & ip.OFFSET or len(packet) < start + _TCP_HEADER:
        return False
    if packet[start + 13] & (_SYN | _RST) != _SYN:
        return False
    at, end = start + _TCP_HEADER, min(start + (packet[start + 12] >> 4) * 4, len(packet))
    while at < end and (kind := packet[at]) != _END:
        if kind == _NO_OPERATION:
            at += 1
            continue
        length = packet[at + 1] if at + 1 < end else 0
        if length < 2 or at + length > end:
            return False
        if kind == _MSS and length == _MSS_LENGTH:
            return _lower(packet, start, at + 2, size)
        at += length
    return False


def _lower(packet: memoryview, start: int, at: int, size: int) -> bool:
    offered = _WORD.unpack_from(packet, at)[0]
    if offered <= size:
        return False
    _WORD.pack_into(packet, at, size)
    # The checksum's words begin with the header: at an odd place, an option's octets are in two of them (RFC 1624 3).
    before, after = (offered, size) if (at - start) % 2 == 0 else (_swapped(offered), _swapped(size))
    total = (_WORD.unpack_from(packet, start + 16)[0] ^ 0xFFFF) + (before ^ 0xFFFF) + after
    total = (total & 0xFFFF) + (total >> 16)
    _WORD.pack_into(packet, start + 16, ((total & 0xFFFF) + (total >> 16)) ^ 0xFFFF)
    return True


def _swapped(word: int) -> int:
    return (word & 0xFF) << 8 | word >> 8
