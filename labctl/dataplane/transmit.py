"""Frames to a packet socket in batches: one system call for all of a batch, sendmmsg(2).

A transmit ring would spare that call the copy of the frame, but not on a veth: there the kernel copies the frame out of
the ring again (skb_orphan_frags), page by page, and takes longer for it (docs/dataplane.md).
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import socket

from labctl.dataplane.memory import close_map, stride_for
from labctl.dataplane.packet_socket import GONE, LOST, PacketSocket
from labctl.esp.transforms import HEADROOM
from labctl.kernel.vnet import VNET

# Where a frame begins in its slot: IP and TCP headers then do so at a multiple of four octets, where sums are fastest.
PLACE = HEADROOM + 2

_libc = ctypes.CDLL(None, use_errno=True)


class Vector(ctypes.Structure):
    """struct iovec."""

    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class Message(ctypes.Structure):
    """struct mmsghdr: a struct msghdr and what was sent of it."""

    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint32),
        ("vectors", ctypes.c_void_p),
        ("vector_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
        ("sent", ctypes.c_uint32),
    )


class Transmitter:
    """`buffer` has a place for each frame of a batch, with the room around it that ciphers want.

    Frame number n is written to buffer[places[n]:], its size to sizes[n]. `send(count)` sends the first `count`.
    On a socket with vnet headers each frame gets one that leaves the kernel nothing to do.
    """

    def __init__(self, packets: PacketSocket, mtu: int, slots: int) -> None:
        self._packets = packets
        self.capacity = slots
        self._stride = stride = stride_for(mtu)
        self.room = stride - 2 * HEADROOM
        self._map = mmap.mmap(-1, slots * stride)
        self.buffer = memoryview(self._map)
        self.places = tuple(number * stride + PLACE for number in range(slots))
        self._anchor = ctypes.c_char.from_buffer(self._map)
        self._base = ctypes.addressof(self._anchor)
        self._headers = (ctypes.c_char * (VNET.size * slots))()
        # Vectors of a message: its vnet header, if it has one, and its frame.
        step = 2 if packets.vnet else 1
        self._vectors = (Vector * (step * slots))()
        self._messages = (Message * slots)()
        first, header = ctypes.addressof(self._vectors), ctypes.addressof(self._headers)
        for number, (message, place) in enumerate(zip(self._messages, self.places, strict=True)):
            message.vectors, message.vector_count = first + number * step * ctypes.sizeof(Vector), step
            if step == 2:
                vector = self._vectors[2 * number]
                vector.base, vector.length = header + number * VNET.size, VNET.size
            self._vectors[step * (number + 1) - 1].base = self._base + place
        # Of the words of the vectors, the length of each frame.
        self.sizes = memoryview(self._vectors).cast("B").cast("P")[2 * step - 1 :: 2 * step]
        self._first, size = ctypes.addressof(self._messages), ctypes.sizeof(Message)
        self._pointers = tuple(ctypes.c_void_p(self._first + number * size) for number in range(slots))

    def put(self, number: int, *parts: bytes | memoryview) -> bool:
        """Write frame `number` from its parts. False for one that is too long for the interface by far."""
        at = place = self.places[number]
        end = place + self.room
        for part in parts:
            begin, at = at, at + len(part)
            if at > end:
                return False
            self.buffer[begin:at] = part
        self.sizes[number] = at - place
        return True

    def send(self, count: int) -> int:
        """Send the first `count` frames. Returns how many are lost: no room, or the interface is down."""
        return self._send_messages(count)

    def _send_messages(self, count: int) -> int:
        lost = begin = 0
        while begin < count:
            sent = _libc.sendmmsg(self._packets.fileno(), self._pointers[begin], count - begin, socket.MSG_DONTWAIT)
            if sent > 0:
                begin += sent
                continue
            code = ctypes.get_errno()
            if code == errno.EINTR:
                continue
            if code not in LOST:
                raise OSError(code, os.strerror(code))
            if code in GONE:
                return lost + count - begin
            lost += 1
            begin += 1
        return lost

    def send_now(self, *parts: bytes | memoryview) -> int:
        """Send one frame, not of a batch. Returns how many are lost."""
        try:
            self._packets.raw.send(b"".join((bytes(VNET.size), *parts) if self._packets.vnet else parts))
        except OSError as error:
            if error.errno in LOST:
                return 1
            raise
        return 0

    def close(self) -> None:
        """Let go of the memory."""
        self.sizes.release()
        self.buffer.release()
        del self._anchor
        close_map(self._map)
