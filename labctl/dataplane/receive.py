"""Frames of a packet socket in batches, in memory that stays where it is.

`ReceiveRing` is a ring of slots shared with the kernel (Documentation/networking/packet_mmap.rst): no system call and
no copy a frame. It is TPACKET_V2: a frame is there as soon as it came. TPACKET_V3 hands over blocks of frames, at the
latest a millisecond after the first of them, which is ten times what the way through a member takes
(docs/dataplane.md). `ReceiveBuffer` reads frame by frame, where a ring cannot be had.
"""

from __future__ import annotations

import mmap
import socket
import struct
from typing import TYPE_CHECKING, Protocol

from labctl.dataplane.memory import CACHE_LINE, PAGE, Frames, close_map, stride_for
from labctl.dataplane.packet_socket import LOST, SOL_PACKET, PacketSocket
from labctl.esp.transforms import HEADROOM
from labctl.kernel.vnet import MACS_OCTETS, NEEDS_CHECKSUM, VLAN_TAG, VNET, finish_checksum, read_vnet

if TYPE_CHECKING:
    from labctl.dataplane.segmentation import Segmenter

PACKET_RX_RING, PACKET_COPY_THRESH, PACKET_VERSION = 5, 7, 10
TPACKET_V2 = 1
TP_STATUS_KERNEL, TP_STATUS_USER, TP_STATUS_COPY, TP_STATUS_CSUMNOTREADY = 0, 1, 2, 8
TP_STATUS_VLAN_VALID, TP_STATUS_VLAN_TPID_VALID = 1 << 4, 1 << 6
_SPECIAL = TP_STATUS_COPY | TP_STATUS_CSUMNOTREADY | TP_STATUS_VLAN_VALID
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

# Memory of one ring, at least, which the kernel takes from no other: some 1,200 frames of 1,500 octets. At 100,000
# packets a second they last 12 ms, which is what the rest of the agent may take at a time.
RING_OCTETS = 2 * 1024 * 1024


class Receiver(Protocol):
    """Where frames come from, with the room around each that ciphers want."""

    oversize: int

    @property
    def pending(self) -> bool:
        """True while a frame has been taken of which more is to come, whether the socket has something or not."""

    def take(self, limit: int) -> tuple[memoryview, Frames]:
        """Up to `limit` frames that wait: the memory they are in, and the place of each and its size. Until `release`.

        No frames: nothing waits.
        """

    def release(self) -> None:
        """The frames taken are done with."""

    def close(self) -> None:
        """Let go of the memory."""


class ReceiveRing:
    """Slots that the kernel fills. Made before the socket is bound. Raises OSError where a ring cannot be had.

    Of a frame that is longer than a slot the kernel keeps a copy for recv(2), if there is a `segmenter` to cut it.
    """

    def __init__(self, packets: PacketSocket, mtu: int, segmenter: Segmenter | None = None) -> None:
        self.oversize = 0
        self._packets, self._segmenter = packets, segmenter
        self._stride = stride_for(mtu)
        # Slots fill a block to its end, and a block is whole pages, so that slot n is at n times the stride.
        block = self._stride * PAGE // CACHE_LINE
        blocks = -(-RING_OCTETS // block)
        self._slots = blocks * PAGE // CACHE_LINE
        request = struct.pack("IIII", block, blocks, self._stride, self._slots)
        packets.raw.setsockopt(SOL_PACKET, PACKET_VERSION, TPACKET_V2)
        packets.raw.setsockopt(SOL_PACKET, PACKET_RX_RING, request)
        if segmenter is not None:
            packets.raw.setsockopt(SOL_PACKET, PACKET_COPY_THRESH, 1)
        self._map = mmap.mmap(packets.fileno(), self._slots * self._stride)
        self.buffer = memoryview(self._map)
        self._words = self.buffer.cast("I")
        self._next = 0
        self._taken: list[int] = []

    @property
    def pending(self) -> bool:
        return self._segmenter is not None and self._segmenter.pending

    def take(self, limit: int) -> tuple[memoryview, Frames]:
        segmenter = self._segmenter
        if segmenter is not None and segmenter.pending:
            return segmenter.buffer, segmenter.take(limit)
        frames: Frames = []
        words, stride, slots, number = self._words, self._stride, self._slots, self._next
        step = stride // 4
        for _ in range(limit):
            word = number * step
            status = words[word]
            if not status & TP_STATUS_USER:
                break
            place = number * stride
            _, size, captured, start, _ = _SLOT.unpack_from(self.buffer, place)
            start += place
            self._taken.append(word)
            number = number + 1 if number + 1 < slots else 0
            if status & _SPECIAL:
                if segmenter is not None and (status & TP_STATUS_COPY or self._is_to_cut(status, start)):
                    if self._begin(segmenter, status, start, captured):
                        break
                    self.oversize += 1
                    continue
                start, captured = self._mend(status, place, start, captured, size)
            if captured < size:
                self.oversize += 1
                continue
            frames.append((start, captured))
        self._next = number
        if not frames and segmenter is not None and segmenter.pending:
            return segmenter.buffer, segmenter.take(limit)
        return self.buffer, frames

    def _is_to_cut(self, status: int, start: int) -> bool:
        return bool(status & TP_STATUS_CSUMNOTREADY and read_vnet(self.buffer, start - VNET.size).kind)

    def _begin(self, segmenter: Segmenter, status: int, start: int, size: int) -> bool:
        """Cut a frame of the kernel's that is several, from the next call of `take` on. False if it cannot be cut."""
        if not status & TP_STATUS_COPY:
            segmenter.frame[: VNET.size + size] = self.buffer[start - VNET.size : start + size]
            return segmenter.begin(size)
        try:
            return segmenter.begin(self._packets.raw.recv_into(segmenter.frame) - VNET.size)
        except OSError as error:
            if error.errno in LOST:
                return False
            raise

    def _mend(self, status: int, place: int, start: int, captured: int, size: int) -> tuple[int, int]:
        """Put into a frame what the kernel took out of it, or left out. Returns where it starts then, and its size."""
        if captured < size:
            return start, captured
        if status & TP_STATUS_CSUMNOTREADY and self._packets.vnet:
            finish_checksum(self.buffer, start, size, read_vnet(self.buffer, start - VNET.size))
        if status & TP_STATUS_VLAN_VALID:
            return put_tag(self.buffer, start, captured, status, *_TAG.unpack_from(self.buffer, place + _TAG_AT))
        return start, captured

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

    def __init__(self, packets: PacketSocket, mtu: int, slots: int, segmenter: Segmenter | None = None) -> None:
        self.oversize = 0
        self._packets, self._segmenter = packets, segmenter
        packets.raw.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
        stride = stride_for(mtu)
        self._starts = [number * stride + HEADROOM + VLAN_TAG for number in range(slots)]
        self._room = stride - 2 * HEADROOM - VLAN_TAG
        self._map = mmap.mmap(-1, slots * stride)
        self.buffer = memoryview(self._map)

    @property
    def pending(self) -> bool:
        return self._segmenter is not None and self._segmenter.pending

    def take(self, limit: int) -> tuple[memoryview, Frames]:
        segmenter = self._segmenter
        frames: Frames = []
        for start in self._starts[:limit]:
            if segmenter is not None and segmenter.pending:
                break
            into = self.buffer[start : start + self._room] if segmenter is None else segmenter.frame
            try:
                size, ancillary, flags, _ = self._packets.raw.recvmsg_into([into], _ANCILLARY)
            except OSError as error:
                if error.errno in LOST:
                    break
                raise
            if segmenter is not None:
                size -= VNET.size
                if segmenter.begin(size):
                    break
                if size <= self._room:
                    self._move(segmenter.frame, start, size)
            if flags & socket.MSG_TRUNC or size > self._room:
                self.oversize += 1
                continue
            place = start
            for level, kind, value in ancillary:
                if level == SOL_PACKET and kind == PACKET_AUXDATA:
                    status, tci, tpid = _AUXDATA.unpack_from(value)
                    if status & TP_STATUS_VLAN_VALID:
                        place, size = put_tag(self.buffer, start, size, status, tci, tpid)
            frames.append((place, size))
        if not frames and segmenter is not None and segmenter.pending:
            return segmenter.buffer, segmenter.take(limit)
        return self.buffer, frames

    def _move(self, whole: memoryview, start: int, size: int) -> None:
        """A frame that has a vnet header, without it and with its checksum."""
        self.buffer[start : start + size] = whole[VNET.size : VNET.size + size]
        vnet = read_vnet(whole, 0)
        if vnet.flags & NEEDS_CHECKSUM:
            finish_checksum(self.buffer, start, size, vnet)

    def release(self) -> None:
        """Each batch has the same slots."""

    def close(self) -> None:
        self.buffer.release()
        close_map(self._map)


def put_tag(buffer: memoryview, start: int, size: int, status: int, tci: int, tpid: int) -> tuple[int, int]:
    """Put back the VLAN tag that the kernel took out of a frame. Returns where the frame starts then, and its size."""
    first = start - VLAN_TAG
    buffer[first : first + MACS_OCTETS] = bytes(buffer[start : start + MACS_OCTETS])
    tpid = tpid if status & TP_STATUS_VLAN_TPID_VALID else ETH_P_8021Q
    _WIRE_TAG.pack_into(buffer, first + MACS_OCTETS, tpid, tci)
    return first, size + VLAN_TAG
