"""Putting fragments of ESP together again before they are opened (RFC 4303 3.4.1). Sans-IO, off the fast path.

Limits are on datagrams, octets, fragments and time. What overlaps is an attack or an accident, never a service: the
whole datagram goes, and what comes of it later too (RFC 5722; RFC 1858 and RFC 3128 say what overlaps do in IPv4).
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from labctl.esp import ip
from labctl.esp.errors import DropPacket, DropReason
from labctl.esp.fragments import IPV6_FRAGMENT_HEADER, IPV6_MORE, PROTOCOL_FRAGMENT

# Datagrams under way and octets of them, of one interface; fragments of one datagram; real seconds from the first to
# the last. Hosts wait 30 to 60 seconds; a provider's network has long forgotten a packet by then.
MAX_DATAGRAMS = 256
MAX_OCTETS = 4 * 1024 * 1024
MAX_FRAGMENTS = 128
LIFETIME = 15.0

_WORD = struct.Struct("!H")


class Whole(NamedTuple):
    """A datagram, and the fragments that it came in, in order of arrival."""

    packet: bytes
    fragments: Sequence[bytes]


class _Fragment(NamedTuple):
    key: bytes
    start: int
    data: bytes
    more: bool
    # What stands in front of the data once the datagram is whole, its lengths still to be said.
    header: bytes
    congested: bool


class _Datagram:
    __slots__ = ("congested", "dead", "end", "fragments", "header", "octets", "parts", "since")

    def __init__(self, since: float) -> None:
        self.since = since
        self.parts: dict[int, bytes] = {}
        self.fragments: list[bytes] = []
        self.octets = 0
        self.end: int | None = None
        self.header: bytes | None = None
        self.congested = False
        self.dead = False


class Reassembly:
    """Datagrams under way. `drops` counts, by reason, fragments that were held and will never be whole."""

    def __init__(self) -> None:
        self.drops: Counter[DropReason] = Counter()
        self._datagrams: dict[bytes, _Datagram] = {}
        self._octets = 0

    def __len__(self) -> int:
        return len(self._datagrams)

    def take(self, packet: memoryview, now: float) -> Whole | None:
        """A fragment, whose lengths `ip.check_packet` accepted; the datagram, if it was the last that was missing.

        Raises DropPacket for one that cannot be used.
        """
        self.expire(now)
        fragment = _read_ipv4(packet) if packet[0] >> 4 == 4 else _read_ipv6(packet)
        if fragment.start == 0 and not fragment.more:  # an atomic fragment of IPv6 (RFC 6946)
            return Whole(_joined(fragment.header, fragment.data, congested=fragment.congested), (bytes(packet),))
        datagram = self._datagrams.get(fragment.key)
        if datagram is None:
            self._make_room(len(packet))
            datagram = self._datagrams[fragment.key] = _Datagram(now)
        if datagram.dead:
            raise DropPacket(DropReason.FRAGMENT_OVERLAP, "of a datagram that had overlapping fragments")
        self._put(datagram, fragment)
        datagram.fragments.append(bytes(packet))
        datagram.octets += len(packet)
        self._octets += len(packet)
        if datagram.end is None or sum(map(len, datagram.parts.values())) < datagram.end:
            return None
        self._forget(fragment.key)
        assert datagram.header is not None, "what begins with 0 and has no gap has a first fragment"
        data = b"".join(datagram.parts[start] for start in sorted(datagram.parts))
        return Whole(_joined(datagram.header, data, congested=datagram.congested), datagram.fragments)

    def expire(self, now: float) -> None:
        """Give up datagrams that have taken too long."""
        while self._datagrams:
            key, oldest = next(iter(self._datagrams.items()))
            if now < oldest.since + LIFETIME:
                return
            self._give_up(key, DropReason.FRAGMENT_TIMEOUT)

    def _put(self, datagram: _Datagram, fragment: _Fragment) -> None:
        start, end = fragment.start, fragment.start + len(fragment.data)
        if datagram.parts.get(start) == fragment.data and fragment.more is (end != datagram.end):
            raise DropPacket(DropReason.FRAGMENT_DUPLICATE)
        if any(start < at + len(part) and at < end for at, part in datagram.parts.items()):
            self._kill(datagram, DropReason.FRAGMENT_OVERLAP)
        # Two ends, or data behind the end: somebody else writes into this datagram.
        known = datagram.end
        last = not fragment.more
        behind = known is not None and (last or end > known)
        if behind or (last and any(at + len(part) > end for at, part in datagram.parts.items())):
            self._kill(datagram, DropReason.FRAGMENT_OVERLAP)
        if len(datagram.parts) >= MAX_FRAGMENTS:
            self._kill(datagram, DropReason.FRAGMENT_LIMIT)
        if last:
            datagram.end = end
        if start == 0:
            datagram.header = fragment.header
        datagram.congested |= fragment.congested
        datagram.parts[start] = fragment.data

    def _kill(self, datagram: _Datagram, reason: DropReason) -> None:
        """Nothing of this datagram counts any more; it is remembered, empty, until its time is over."""
        self.drops[reason] += len(datagram.fragments)
        self._octets -= datagram.octets
        datagram.parts, datagram.fragments, datagram.octets, datagram.dead = {}, [], 0, True
        raise DropPacket(reason)

    def _make_room(self, octets: int) -> None:
        """The oldest give way: who floods must not keep others out for longer than it floods."""
        while self._datagrams and (len(self._datagrams) >= MAX_DATAGRAMS or self._octets + octets > MAX_OCTETS):
            self._give_up(next(iter(self._datagrams)), DropReason.FRAGMENT_LIMIT)

    def _give_up(self, key: bytes, reason: DropReason) -> None:
        datagram = self._forget(key)
        if datagram.fragments:
            self.drops[reason] += len(datagram.fragments)

    def _forget(self, key: bytes) -> _Datagram:
        datagram = self._datagrams.pop(key)
        self._octets -= datagram.octets
        return datagram


def is_fragment_of(packet: memoryview, protocol: int) -> bool:
    """True for a fragment of a datagram of `protocol`; of IPv6, where nothing but the fragment header is in between."""
    if packet[0] >> 4 == 4:
        return packet[9] == protocol and bool(_WORD.unpack_from(packet, 6)[0] & (ip.MF | ip.OFFSET))
    return packet[6] == PROTOCOL_FRAGMENT and len(packet) > ip.IPV6_HEADER and packet[ip.IPV6_HEADER] == protocol


def _read_ipv4(packet: memoryview) -> _Fragment:
    octets = (packet[0] & 15) * 4
    word = _WORD.unpack_from(packet, 6)[0]
    start, more = (word & ip.OFFSET) * 8, bool(word & ip.MF)
    header = bytearray(packet[:octets])
    _WORD.pack_into(header, 6, word & ip.DF)
    data = bytes(packet[octets:])
    _check(start, data, more, ip.MAX_PACKET - octets)
    key = bytes(packet[12:20]) + bytes(packet[4:6])
    return _Fragment(key, start, data, more, bytes(header), packet[1] & ip.ECN_MASK == ip.ECN_CE)


def _read_ipv6(packet: memoryview) -> _Fragment:
    behind = ip.IPV6_HEADER + IPV6_FRAGMENT_HEADER
    if len(packet) < behind:
        raise DropPacket(DropReason.MALFORMED, "no room for a fragment header")
    word = _WORD.unpack_from(packet, ip.IPV6_HEADER + 2)[0]
    start, more = word & ~7, bool(word & IPV6_MORE)
    header = bytearray(packet[: ip.IPV6_HEADER])
    header[6] = packet[ip.IPV6_HEADER]
    data = bytes(packet[behind:])
    _check(start, data, more, ip.MAX_PACKET)
    key = bytes(packet[8:40]) + bytes(packet[ip.IPV6_HEADER + 4 : behind])
    return _Fragment(key, start, data, more, bytes(header), (packet[1] >> 4) & ip.ECN_MASK == ip.ECN_CE)


def _check(start: int, data: bytes, more: bool, most: int) -> None:
    if not data or (more and len(data) % 8) or start + len(data) > most:
        raise DropPacket(DropReason.MALFORMED, "a fragment of no data, of no multiple of eight, or beyond any packet")


def _joined(header: bytes, data: bytes, *, congested: bool) -> bytes:
    """The datagram; a congestion mark on one fragment is one on all of it (RFC 3168 5.3)."""
    packet = bytearray(header + data)
    if header[0] >> 4 == 4:
        _WORD.pack_into(packet, 2, len(packet))
        packet[1] |= ip.ECN_CE if congested else 0
        _WORD.pack_into(packet, 10, 0)
        _WORD.pack_into(packet, 10, ip.checksum(packet[: len(header)]))
    else:
        _WORD.pack_into(packet, 4, len(data))
        packet[1] |= ip.ECN_CE << 4 if congested else 0
    return bytes(packet)
