"""TCP of up to 64 KB from the kernel, cut into the packets that a wire carries (RFC 9293 3.7; IPv4 and IPv6).

What a network card with segmentation offload does: the headers of the whole with their lengths, identifications,
sequence numbers and checksums, CWR in the first packet only, FIN and PSH in the last. All packets of a frame at once:
a checksum alone takes 3 microseconds in Python, and a fifth of one when numpy adds up those of all packets in one go.
"""

from __future__ import annotations

import mmap
import struct
import sys
from collections.abc import Iterator

from labctl.dataplane.arrays import np
from labctl.dataplane.memory import Frames, close_map, stride_for
from labctl.dataplane.transmit import PLACE
from labctl.esp.ip import PROTOCOL_TCP
from labctl.esp.transforms import TAILROOM
from labctl.kernel.vnet import (
    ETHERNET,
    GSO_ECN,
    GSO_TCPV4,
    GSO_TCPV6,
    LARGEST_FRAME,
    VLAN_TAG,
    VNET,
    in_machine_order,
    read_vnet,
)

# Packets that are cut at a time, in memory that stays in the caches meanwhile.
ROWS = 64

_ETHERTYPES = {b"\x08\x00": 4, b"\x86\xdd": 6}
_TAGS = (b"\x81\x00", b"\x88\xa8")
_CWR, _LAST_ONLY = 0x80, 0x09
_WORD = struct.Struct("!H")
_INDEX = np.arange(ROWS, dtype=np.int64)

# A multiple of 65,535 that is more than what is taken from it.
_WHOLE = 0xFFFF << 8


class Segmenter:
    """One frame at a time: `begin` takes it, `take` gives its packets in `buffer` until `pending` is false.

    The kernel's frame is read into `frame`, behind its vnet header.
    """

    def __init__(self, mtu: int) -> None:
        self.frame = memoryview(bytearray(VNET.size + LARGEST_FRAME))
        self._octets = np.frombuffer(self.frame, np.uint8)
        self._stride = stride_for(mtu)
        self._map = mmap.mmap(-1, ROWS * self._stride)
        self.buffer = memoryview(self._map)
        self._rows = np.frombuffer(self.buffer, np.uint8).reshape(ROWS, self._stride)
        self._places = range(PLACE, ROWS * self._stride, self._stride)
        self.pending = False

    def begin(self, size: int) -> bool:
        """Take the frame of `size` octets in `frame`. False for one that is no TCP to cut."""
        vnet = read_vnet(self.frame, 0)
        if vnet.kind & ~GSO_ECN not in (GSO_TCPV4, GSO_TCPV6):
            return False
        begin = VNET.size
        packet = ETHERNET
        while self.frame[begin + packet - 2 : begin + packet] in _TAGS:
            packet += VLAN_TAG
        version = _ETHERTYPES.get(bytes(self.frame[begin + packet - 2 : begin + packet]))
        if version is None or vnet.start + 20 > size:
            return False
        data = vnet.start + (self.frame[begin + vnet.start + 12] >> 4) * 4
        if not 0 < vnet.segment <= self._stride - PLACE - TAILROOM - data or data >= size:
            return False
        self._version, self._packet, self._tcp, self._data = version, packet, vnet.start, data
        self._size, self._segment = size, vnet.segment
        self._count = -(-(size - data) // vnet.segment)
        self._next = 0
        self._read_header()
        self.pending = True
        return True

    def _read_header(self) -> None:
        """What all packets have, as a whole one in the middle has it, and the sums of it."""
        header = bytearray(self.frame[VNET.size : VNET.size + self._data])
        packet, tcp = self._packet, self._tcp
        self._sequence = int.from_bytes(header[tcp + 4 : tcp + 8], "big")
        self._flags = header[tcp + 13]
        header[tcp + 13] &= ~(_CWR | _LAST_ONLY)
        header[tcp + 16 : tcp + 18] = b"\x00\x00"
        self._length_at = packet + 2 if self._version == 4 else packet + 4
        self._length = self._data + self._segment - (packet if self._version == 4 else packet + 40)
        _WORD.pack_into(header, self._length_at, self._length)
        addresses = header[packet + 12 : packet + 20] if self._version == 4 else header[packet + 8 : packet + 40]
        if self._version == 4:
            self._identification = _WORD.unpack_from(header, packet + 4)[0]
            header[packet + 4 : packet + 6] = header[packet + 10 : packet + 12] = b"\x00\x00"
            self._header_sum = int.from_bytes(header[packet:tcp], "big") % 0xFFFF
        self._header = np.frombuffer(bytes(header), np.uint8)
        octets = self._data - tcp + self._segment
        pseudo = int.from_bytes(addresses, sys.byteorder) + in_machine_order(octets) + in_machine_order(PROTOCOL_TCP)
        # What a sum is taken from, so that the difference modulo 65,535 is the checksum.
        self._complement = np.uint64((1 << 48) * 0xFFFF - pseudo % 0xFFFF)

    def take(self, limit: int) -> Frames:
        """The next packets, at most `limit`, as frames in `buffer`; they are there until the next call."""
        first = self._next
        count = min(limit, ROWS, self._count - first)
        self._next = first + count
        self.pending = self._next < self._count
        whole = self._data + self._segment
        last = whole if self.pending else self._size - (self._count - 1) * self._segment
        self._fill(first, count, last)
        self._number(first, count, whole - last)
        self._sum(count, whole - last)
        frames = [(place, whole) for place in self._places[:count]]
        frames[-1] = (self._places[count - 1], last)
        return frames

    def all(self) -> Iterator[memoryview]:
        """All packets, each there until the next."""
        while self.pending:
            for place, size in self.take(ROWS):
                yield self.buffer[place : place + size]

    def _fill(self, first: int, count: int, last: int) -> None:
        """Headers and data; zeros behind, so that sums may end at a multiple of four octets."""
        rows, segment = self._rows, self._segment
        data, end = PLACE + self._data, PLACE + self._data + segment
        begin = VNET.size + self._data + first * segment
        behind = begin + (count - 1) * segment
        rows[:count, PLACE:data] = self._header
        rows[: count - 1, data:end] = self._octets[begin:behind].reshape(count - 1, segment)
        if (end - PLACE - self._tcp) % 4:
            rows[:count, end : end + 3] = 0
        place = self._places[count - 1]
        at, octets = place + self._data, last - self._data
        self.buffer[at : at + octets] = self.frame[behind : behind + octets]
        self.buffer[place + last : at + segment] = bytes(segment - octets)

    def _number(self, first: int, count: int, missing: int) -> None:
        """Identifications, sequence numbers, the flags of the first and the last and what the last is shorter."""
        packet, tcp = PLACE + self._packet, PLACE + self._tcp
        final = self._places[count - 1]
        if missing:
            _WORD.pack_into(self.buffer, final + self._length_at, self._length - missing)
        if self._version == 4:
            identifications = (self._identification + first + _INDEX[:count]) & 0xFFFF
            sums = (_WHOLE - self._header_sum - identifications) % 0xFFFF
            self._column(">u2", packet + 4, count)[:] = identifications
            self._column(">u2", packet + 10, count)[:] = sums
            if missing:
                check = (int(sums[-1]) + missing) % 0xFFFF
                _WORD.pack_into(self.buffer, final + self._packet + 10, check)
        numbers = _INDEX[:count] * self._segment + (self._sequence + first * self._segment)
        self._column(">u4", tcp + 4, count)[:] = numbers & 0xFFFFFFFF
        if first == 0:
            self.buffer[tcp + 13] |= self._flags & _CWR
        if not self.pending:
            self.buffer[final + self._tcp + 13] |= self._flags & _LAST_ONLY

    def _sum(self, count: int, missing: int) -> None:
        """The checksums of TCP (RFC 9293 3.1), in the machine's order of octets (RFC 1071 2 B)."""
        tcp = PLACE + self._tcp
        words = -(-(self._data - self._tcp + self._segment) // 4)
        view = np.ndarray((count, words), np.uint32, self.buffer, tcp, (self._stride, 4))
        sums = (self._complement - view.sum(axis=1, dtype=np.uint64)) % 0xFFFF
        self._column("=u2", tcp + 16, count)[:] = sums
        if missing:
            # The pseudo header of the last says less, by octets in the network's order.
            octets = self._data - self._tcp + self._segment
            less = in_machine_order(octets) - in_machine_order(octets - missing)
            self._column("=u2", tcp + 16, count)[-1] = (int(sums[-1]) + less) % 0xFFFF

    def _column(self, kind: str, at: int, count: int) -> np.ndarray[tuple[int], np.dtype[np.uint32]]:
        """One field of all rows."""
        return np.ndarray((count,), kind, self.buffer, at, (self._stride,))

    def close(self) -> None:
        """Let go of the memory."""
        del self._rows
        self.buffer.release()
        close_map(self._map)
