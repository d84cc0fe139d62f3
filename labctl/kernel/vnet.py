"""The header that the kernel puts before a frame, and we before ours, to leave work to the other (virtio 1.2, 5.1.6).

Between a node's kernel and its agent nothing is a wire: TCP crosses there in frames of up to 64 KB, and checksums may
be missing. Whoever puts such a frame on a wire cuts it and sums it: labctl.dataplane.segmentation.
"""

from __future__ import annotations

import struct
import sys
from typing import NamedTuple

ETHERNET, VLAN_TAG, MACS_OCTETS = 14, 4, 12

# Of a frame from the kernel: Ethernet, with tags, and what the length of an IP packet can say.
LARGEST_FRAME = ETHERNET + 2 * VLAN_TAG + 40 + 65_535

# Of SOL_PACKET: a vnet header before every frame, both ways (linux/if_packet.h).
PACKET_VNET_HDR = 15

# flags, kind of segmentation, header octets, payload octets of a segment, where a checksum begins, its place from
# there. All in the machine's byte order (packet(7)).
VNET = struct.Struct("=BBHHHH")
NEEDS_CHECKSUM = 1
GSO_NONE, GSO_TCPV4, GSO_TCPV6, GSO_ECN = 0, 1, 4, 0x80


class VnetHeader(NamedTuple):
    """What is left to do to a frame."""

    flags: int
    kind: int
    header: int
    segment: int
    start: int
    offset: int


def read_vnet(buffer: memoryview, at: int) -> VnetHeader:
    """The header at buffer[at:]."""
    return VnetHeader(*VNET.unpack_from(buffer, at))


def finish_checksum(buffer: memoryview, frame: int, size: int, vnet: VnetHeader) -> None:
    """Write the checksum that a frame at buffer[frame:] lacks. The sum of its pseudo header stands in its place."""
    begin = frame + vnet.start
    data = buffer[begin : frame + size]
    total = int.from_bytes(data, "big") << 8 * (len(data) & 1)
    # The sum of 16-bit words is what is left of the whole number modulo 65,535. It is never of zeros alone, and a UDP
    # checksum of 0 would mean none; 0xffff says the same.
    place = begin + vnet.offset
    buffer[place : place + 2] = (0xFFFF - total % 0xFFFF).to_bytes(2, "big")


def in_machine_order(number: int) -> int:
    """What a 16-bit number in network order adds to a sum in the machine's order of octets (RFC 1071 2 B)."""
    return int.from_bytes(number.to_bytes(2, "big"), sys.byteorder)
