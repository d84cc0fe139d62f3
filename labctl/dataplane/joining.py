"""Packets of a TCP stream that came in one batch, handed to the kernel as one.

What the kernel's own receive offload does, which sees our frames one by one: packets of one flow in their order, with
the same acknowledgement, window, options and IP header, full but for the last. Such a frame can be cut into what it
came from, so nothing is lost. Each checksum is verified, because the kernel takes the whole for right: a packet that is
not stays alone, as it came. Headers of a batch are compared, and sums made, in a few calls of numpy.
"""

from __future__ import annotations

import ctypes
import struct
import sys
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, NamedTuple

from labctl.dataplane.arrays import DTypeLike, NDArray, np
from labctl.dataplane.packet_socket import PacketSocket
from labctl.dataplane.transmit import PLACE, Message, Transmitter
from labctl.esp.ip import MAX_PACKET, PROTOCOL_TCP, header_checksum
from labctl.kernel.vnet import ETHERNET, GSO_TCPV4, NEEDS_CHECKSUM, VNET, in_machine_order

# A run of fewer costs more to find than to send one by one.
SHORTEST_RUN = 3

# Octets of a frame: shorter ones are acknowledgements.
_SMALL = 200

_IP, _TCP = ETHERNET, ETHERNET + 20
_HEADERS = _TCP + 60
_ACK, _PSH = 0x10, 0x08
_IPV4_WITHOUT_OPTIONS = b"\x08\x00\x45"
_WORD = struct.Struct("!H")

Truths = NDArray[np.bool_]

# Headers are compared eight octets at a time, from two octets before the frame on.
_WORDS_AT = PLACE - 2
_WORDS = -(-(_HEADERS + 2) // 8)


def _masks() -> list[NDArray[np.uint64]]:
    """By header length of TCP in words: which bits of the headers must be the same in all of a run."""
    masks = []
    for words in range(16):
        octets = np.zeros(8 * _WORDS, np.uint8)
        frame = octets[2:]
        frame[: _TCP + 4 * words] = 0xFF
        for begin, count in ((_IP + 2, 4), (_IP + 10, 2), (_TCP + 4, 4), (_TCP + 16, 2)):
            frame[begin : begin + count] = 0
        frame[_TCP + 13] &= ~_PSH & 0xFF
        masks.append(octets.view(np.uint64))
    return masks


_MASKS = _masks()


class Run(NamedTuple):
    """Packets `first` to `last` are one: each has `header` octets of headers, and `data` octets, or fewer the last."""

    first: int
    last: int
    header: int
    data: int


class Batch:
    """The first frames of a transmitter's buffer. Finds which of them may be joined."""

    def __init__(self, buffer: memoryview, stride: int, sizes: NDArray[np.int64]) -> None:
        self._buffer, self._stride, self._sizes = buffer, stride, sizes

    def runs(self, sample: int) -> Iterator[Run]:
        """Runs of packets with right checksums, in order, whose TCP header is as long as that of frame `sample`."""
        words = self._buffer[sample * self._stride + PLACE + _TCP + 12] >> 4
        header = _TCP + 4 * words
        follows = self._follow(words, self._sizes - header)
        edges = np.flatnonzero(follows[1:] != follows[:-1]).tolist()
        sizes = self._sizes.tolist()
        for begin, end in zip(edges[::2], edges[1::2], strict=True):
            first = begin
            while end - first + 1 >= SHORTEST_RUN:
                # Sizes do not rise: what is shorter than the first ends a run, or has no data and is none of it.
                last = end
                if sizes[end - 1] != sizes[first]:
                    last = first + sizes[first : end + 1].count(sizes[first])
                behind = last + 1
                if sizes[last] <= header:
                    last -= 1
                if last - first + 1 >= SHORTEST_RUN and sizes[first] > header and self._is_plain(first, words):
                    yield from self._verified(Run(first, last, header, sizes[first] - header))
                first = behind

    def _follow(self, words: int, data: NDArray[np.int64]) -> Truths:
        """For each frame, whether it goes on where the one before it ends; false for one more at the end."""
        headers = self._columns(np.uint64, _WORDS_AT, _WORDS) & _MASKS[words]
        flags = self._columns(np.uint8, PLACE + _TCP + 13, 1)[:-1, 0]
        sequence = self._columns(">u4", PLACE + _TCP + 4, 1)[:, 0].astype(np.uint32)
        identification = self._columns(">u2", PLACE + _IP + 4, 1)[:, 0].astype(np.uint16)
        found = np.zeros(len(data) + 1, np.bool_)
        found[1:-1] = (
            (headers[1:] == headers[:-1]).all(axis=1)
            & (flags == _ACK)
            & (sequence[1:] == sequence[:-1] + data[:-1].astype(np.uint32))
            & (identification[1:] == identification[:-1] + np.uint16(1))
            & (data[1:] <= data[:-1])
        )
        return found

    def _is_plain(self, first: int, words: int) -> bool:
        """Whether a frame is TCP over IPv4 without options, whole, and nothing special. All of its run are then."""
        frame = self._buffer[first * self._stride + PLACE :]
        return (
            frame[12:15] == _IPV4_WITHOUT_OPTIONS
            and frame[_IP + 6] & 0xBF == 0
            and frame[_IP + 7] == 0
            and frame[_IP + 9] == PROTOCOL_TCP
            and frame[_TCP + 12] >> 4 == words >= 5
        )

    def _verified(self, run: Run) -> Iterator[Run]:
        """The parts of a run whose lengths and checksums are right, each no longer than a packet can be."""
        count = run.last - run.first + 1
        at = run.first * self._stride + PLACE
        last = int(self._sizes[run.last])
        # Zeros behind each packet, up to where the longest of them ends and then to a multiple of four octets.
        end = run.header + run.data
        behind = (count - 1) * self._stride + at
        self._buffer[behind + last : behind + end] = bytes(end - last)
        length = end - _TCP
        if length % 4:
            self._columns(np.uint8, at + end, 3, count)[:] = 0
        sums = self._columns(np.uint32, at + _TCP, -(-length // 4), count).sum(axis=1, dtype=np.uint64)
        pseudo = bytes(self._buffer[at + _IP + 12 : at + _TCP]) + bytes((0, PROTOCOL_TCP))
        sums += np.uint64(int.from_bytes(pseudo, sys.byteorder) % 0xFFFF + in_machine_order(length))
        sums[-1] += np.uint64(0xFFFF + in_machine_order(last - _TCP) - in_machine_order(length))
        headers = self._columns(np.uint32, at + _IP, 5, count).sum(axis=1, dtype=np.uint64)
        lengths = self._columns(">u2", at + _IP + 2, 1, count)[:, 0] != end - ETHERNET
        lengths[-1] = _WORD.unpack_from(self._buffer, behind + _IP + 2)[0] != last - ETHERNET
        wrong = np.flatnonzero((sums % 0xFFFF) | (headers % 0xFFFF) | lengths).tolist()
        most = (MAX_PACKET - run.header + ETHERNET) // run.data
        edges = [-1, *wrong, count]
        for before, following in pairwise(edges):
            for first in range(before + 1, following, most):
                final = min(first + most, following) - 1
                if final - first + 1 >= SHORTEST_RUN:
                    yield run._replace(first=run.first + first, last=run.first + final)

    def _columns(self, kind: DTypeLike, at: int, width: int, count: int = 0) -> NDArray[Any]:
        """Fields of `count` frames (all), `at` octets from the start of a slot."""
        octets = np.dtype(kind).itemsize
        return np.ndarray((count or len(self._sizes), width), kind, self._buffer, at, (self._stride, octets))


class JoiningTransmitter(Transmitter):
    """A transmitter, on a socket with vnet headers, that joins what it can.

    Nothing is copied for it: the vectors of a run's frames stand one behind the other, and all but the first lose their
    headers.
    """

    def __init__(self, packets: PacketSocket, mtu: int, slots: int) -> None:
        super().__init__(packets, mtu, slots)
        # Base and length of each vector: of frame n, its vnet header in row 2n, and itself in row 2n + 1.
        self._words = np.frombuffer(memoryview(self._vectors).cast("B"), np.uintp).reshape(2 * slots, 2)
        self._lengths = self._words[1::2, 1]
        self._bases = self._words[1::2, 0].copy()
        # Where the vectors of each message begin, and how many they are.
        messages = np.frombuffer(memoryview(self._messages).cast("B"), np.uint8).reshape(slots, ctypes.sizeof(Message))
        self._begins = messages[:, Message.vectors.offset : Message.vectors.offset + 8].view(np.uintp)[:, 0]
        self._counts = messages[:, Message.vector_count.offset : Message.vector_count.offset + 8].view(np.uintp)[:, 0]
        self._alone = self._begins.copy()

    def send(self, count: int) -> int:
        if count < SHORTEST_RUN or (sample := self._sample(count)) is None:
            return self._send_messages(count)
        sizes = self._lengths[:count].astype(np.int64)
        runs = list(Batch(self.buffer, self._stride, sizes).runs(sample))
        if not runs:
            return self._send_messages(count)
        number = following = 0
        for run in runs:
            number = self._put_alone(number, following, run.first)
            self._join(run, int(sizes[run.last]))
            self._begins[number] = self._alone[run.first]
            self._counts[number] = 2 * (run.last - run.first + 1)
            number, following = number + 1, run.last + 1
        number = self._put_alone(number, following, count)
        lost = self._send_messages(number)
        self._begins[:count] = self._alone[:count]
        self._counts[:count] = 2
        self._words[1 : 2 * count : 2, 0] = self._bases[:count]
        self._words[: 2 * count : 2, 1] = VNET.size
        for run in runs:
            VNET.pack_into(self._headers, run.first * VNET.size, 0, 0, 0, 0, 0, 0)
        return lost

    def _sample(self, count: int) -> int | None:
        """A frame with TCP and data; None where a look at three says that a look at all is not worth it."""
        for number in (count // 2, 0, count - 2):
            if self.buffer[self.places[number] + _IP + 9] == PROTOCOL_TCP and self.sizes[number] > _SMALL:
                return number
        return None

    def _put_alone(self, number: int, first: int, behind: int) -> int:
        """Frames that no run has, as messages from `number` on. Returns the number of the next message."""
        count = behind - first
        self._begins[number : number + count] = self._alone[first:behind]
        return number + count

    def _join(self, run: Run, last: int) -> None:
        """Make the first frame of a run the head of all of it."""
        buffer, place = self.buffer, self.places[run.first]
        rest = slice(2 * run.first + 3, 2 * run.last + 2, 2)
        self._words[rest, 0] += run.header
        self._words[rest, 1] -= run.header
        self._words[2 * run.first + 2 : 2 * run.last + 1 : 2, 1] = 0
        total = run.header - ETHERNET + (run.last - run.first) * run.data + last - run.header
        ip, tcp = place + _IP, place + _TCP
        _WORD.pack_into(buffer, ip + 2, total)
        _WORD.pack_into(buffer, ip + 10, 0)
        _WORD.pack_into(buffer, ip + 10, header_checksum(buffer[ip : ip + 20]))
        buffer[tcp + 13] |= buffer[self.places[run.last] + _TCP + 13]
        # What the kernel will add the rest to: the sum of the pseudo header.
        pseudo = int.from_bytes(buffer[ip + 12 : ip + 20], "big") + PROTOCOL_TCP + total - 20
        _WORD.pack_into(buffer, tcp + 16, pseudo % 0xFFFF)
        VNET.pack_into(self._headers, run.first * VNET.size, NEEDS_CHECKSUM, GSO_TCPV4, run.header, run.data, _TCP, 16)

    def close(self) -> None:
        del self._words, self._lengths, self._begins, self._counts
        super().close()
