"""Frames of a packet socket in batches, in memory that stays where it is.

`ReceiveRing` is a ring of slots shared with the kernel (Documentation/networking/packet_mmap.rst): no system call and
no copy a frame. It is TPACKET_V2: a frame is there as soon as it came. TPACKET_V3 hands over blocks of frames, at the
latest a millisecond after the first of them, which is ten times what the way through a member takes
(docs/dataplane.md). `ReceiveBuffer` reads frame by frame, where a ring cannot be had.
"""

from __future__ import annotations

import contextlib
import mmap
import socket
import struct
from typing import Protocol

from labctl.dataplane.packet_socket import LOST, SOL_PACKET, PacketSocket
from labctl.esp.transforms import HEADROOM, TAILROOM

ETHERNET, VLAN_TAG, ADDRESSES = 14, 4, 12

PACKET_RX_RING, PACKET_VERSION = 5, 10
TPACKET_V2 = 1
TP_STATUS_KERNEL, TP_STATUS_USER = 0, 1
TP_STATUS_VLAN_VALID, TP_STATUS_VLAN_TPID_VALID = 1 << 4, 1 << 6
ETH_P_8021Q = 0x8100

# struct tpacket2_hdr: status, length, snapshot length, where the frame and where its packet starts; tag and its type
# behind two times of 32 bits.
_SLOT = struct.Struct("=IIIHH")
_TAG = struct.Struct("=HH")
_TAG_AT = 24
_WIRE_TAG = struct.Struct("!HH")

# struct tpacket_auxdata: status first, tag and its type last.
PACKET_AUXDATA = 8
_AUXDATA = struct.Struct("=I12xHH")
_ANCILLARY = socket.CMSG_SPACE(20)

# What stands before a frame in its slot: the structures above and a sockaddr_ll, aligned.
_SLOT_HEADER = 80

# Memory of one ring, at least, which the kernel takes from no other: some 1,200 frames of 1,500 octets. At 100,000
# packets a second they last 12 ms, which is what the rest of the agent may take at a time.
RING_OCTETS = 2 * 1024 * 1024
PAGE, CACHE_LINE = mmap.PAGESIZE, 64

Frames = list[tuple[int, int]]


class Receiver(Protocol):
    """Where frames come from. `buffer` has each of them, with the room around it that ciphers want."""

    buffer: memoryview
    oversize: int

    def take(self, limit: int) -> Frames:
        """Up to `limit` frames that wait, each with its place in `buffer` and its size. Theirs until `release`."""

    def release(self) -> None:
        """The frames taken are done with."""

    def close(self) -> None:
        """Let go of the memory."""


def stride_for(mtu: int) -> int:
    """Octets of a slot for frames of an interface: an odd number of cache lines.

    With a power of two, the headers of all slots share a few sets of the processor's caches, and push each other out.
    """
    room = _SLOT_HEADER + HEADROOM + ETHERNET + VLAN_TAG + max(mtu, 1500) + TAILROOM
    return -(-room // (2 * CACHE_LINE)) * 2 * CACHE_LINE + CACHE_LINE


class ReceiveRing:
    """Slots that the kernel fills. Made before the socket is bound. Raises OSError where a ring cannot be had."""

    def __init__(self, packets: PacketSocket, mtu: int) -> None:
        self.oversize = 0
        self._stride = stride_for(mtu)
        # Slots fill a block to its end, and a block is whole pages, so that slot n is at n times the stride.
        block = self._stride * PAGE // CACHE_LINE
        blocks = -(-RING_OCTETS // block)
        self._slots = blocks * PAGE // CACHE_LINE
        request = struct.pack("IIII", block, blocks, self._stride, self._slots)
        packets.raw.setsockopt(SOL_PACKET, PACKET_VERSION, TPACKET_V2)
        packets.raw.setsockopt(SOL_PACKET, PACKET_RX_RING, request)
        self._map = mmap.mmap(packets.fileno(), self._slots * self._stride)
        self.buffer = memoryview(self._map)
        self._words = self.buffer.cast("I")
        self._next = 0
        self._taken: list[int] = []

    def take(self, limit: int) -> Frames:
        frames: Frames = []
        words, stride, slots, number = self._words, self._stride, self._slots, self._next
        step = stride // 4
        for _ in range(limit):
            word = number * step
            if not words[word] & TP_STATUS_USER:
                break
            place = number * stride
            status, size, captured, start, _ = _SLOT.unpack_from(self.buffer, place)
            self._taken.append(word)
            number = number + 1 if number + 1 < slots else 0
            start += place
            if captured < size:
                self.oversize += 1
                continue
            if status & TP_STATUS_VLAN_VALID:
                tag = _TAG.unpack_from(self.buffer, place + _TAG_AT)
                start, captured = put_tag(self.buffer, start, captured, status, *tag)
            frames.append((start, captured))
        self._next = number
        return frames

    def release(self) -> None:
        words = self._words
        for word in self._taken:
            words[word] = TP_STATUS_KERNEL
        self._taken.clear()

    def close(self) -> None:
        self._words.release()
        self.buffer.release()
        close_map(self._map)


class ReceiveBuffer:
    """Frames read one at a time into slots of our own."""

    def __init__(self, packets: PacketSocket, mtu: int, slots: int) -> None:
        self.oversize = 0
        self._packets = packets
        packets.raw.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
        stride = stride_for(mtu)
        self._starts = [number * stride + HEADROOM + VLAN_TAG for number in range(slots)]
        self._room = stride - 2 * HEADROOM - VLAN_TAG
        self._map = mmap.mmap(-1, slots * stride)
        self.buffer = memoryview(self._map)

    def take(self, limit: int) -> Frames:
        frames: Frames = []
        for start in self._starts[:limit]:
            try:
                size, ancillary, flags, _ = self._packets.raw.recvmsg_into(
                    [self.buffer[start : start + self._room]], _ANCILLARY
                )
            except OSError as error:
                if error.errno in LOST:
                    break
                raise
            if flags & socket.MSG_TRUNC:
                self.oversize += 1
                continue
            place = start
            for level, kind, value in ancillary:
                if level == SOL_PACKET and kind == PACKET_AUXDATA:
                    status, tci, tpid = _AUXDATA.unpack_from(value)
                    if status & TP_STATUS_VLAN_VALID:
                        place, size = put_tag(self.buffer, start, size, status, tci, tpid)
            frames.append((place, size))
        return frames

    def release(self) -> None:
        """Each batch has the same slots."""

    def close(self) -> None:
        self.buffer.release()
        close_map(self._map)


def close_map(memory: mmap.mmap) -> None:
    """Let go of memory now, or with the last packet in it that somebody still looks at."""
    with contextlib.suppress(BufferError):
        memory.close()


def put_tag(buffer: memoryview, start: int, size: int, status: int, tci: int, tpid: int) -> tuple[int, int]:
    """Put back the VLAN tag that the kernel took out of a frame. Returns where the frame starts then, and its size."""
    first = start - VLAN_TAG
    buffer[first : first + ADDRESSES] = bytes(buffer[start : start + ADDRESSES])
    tpid = tpid if status & TP_STATUS_VLAN_TPID_VALID else ETH_P_8021Q
    _WIRE_TAG.pack_into(buffer, first + ADDRESSES, tpid, tci)
    return first, size + VLAN_TAG
