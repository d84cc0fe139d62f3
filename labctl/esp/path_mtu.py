"""The path MTU that routers on the way tell of: RFC 1191, RFC 8201, and RFC 4301 8.2 for who encrypts. Sans-IO.

With the addresses kept, a router that has no room for a packet of ours writes to the host whose address is on it, and
quotes ESP, of which the host knows nothing. The message passes this member, though: it alone can tell what it means.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import NamedTuple

from labctl.esp import ip

# What a path is told to have is believed so long, lab seconds (RFC 1191 6.3); then larger packets are tried again.
LIFETIME = 600.0
MAX_PATHS = 1024
# Nothing says that a path has less: hosts take no smaller packets (RFC 791 3.2, RFC 8200 5).
LEAST_IPV4, LEAST_IPV6 = 576, 1280

# Where a router does not say its MTU, the largest of these below the packet (RFC 1191 7.1).
_PLATEAUS = (32_000, 17_914, 8_166, 4_352, 2_002, 1_492, 1_006, 576)

_UNREACHABLE, _FRAGMENTATION_NEEDED, _PACKET_TOO_BIG = 3, 4, 2
_ICMP_HEADER = 8
_ESP_START = 8


class TooBig(NamedTuple):
    """What a router says about an ESP packet: its MTU, and of the packet destination, length, SPI and number."""

    mtu: int
    destination: bytes
    length: int
    spi: int
    sequence: int


def read_too_big(packet: memoryview) -> TooBig | None:
    """What an ICMP error says about ESP that did not fit; None for any other packet."""
    return _read_ipv4(packet) if packet[0] >> 4 == 4 else _read_ipv6(packet)


def _read_ipv4(packet: memoryview) -> TooBig | None:
    start = (packet[0] & 15) * 4
    fragment = int.from_bytes(packet[6:8], "big") & (ip.MF | ip.OFFSET)
    if packet[9] != ip.PROTOCOL_ICMP or fragment or len(packet) < start + _ICMP_HEADER + ip.IPV4_HEADER:
        return None
    message = packet[start:]
    if message[0] != _UNREACHABLE or message[1] != _FRAGMENTATION_NEEDED or ip.checksum(message):
        return None
    quote = message[_ICMP_HEADER:]
    behind = (quote[0] & 15) * 4
    if quote[0] >> 4 != 4 or quote[9] != ip.PROTOCOL_ESP or len(quote) < behind + _ESP_START:
        return None
    if int.from_bytes(quote[6:8], "big") & ip.OFFSET:  # has no SPI
        return None
    length = int.from_bytes(quote[2:4], "big")
    mtu = int.from_bytes(message[6:8], "big") or next((size for size in _PLATEAUS if size < length), 0)
    spi, sequence = struct.unpack_from("!II", quote, behind)
    # Sent to whom it is about: the packet's own source.
    if packet[16:20] != quote[12:16]:
        return None
    return TooBig(mtu, bytes(quote[16:20]), length, spi, sequence)


def _read_ipv6(packet: memoryview) -> TooBig | None:
    least = ip.IPV6_HEADER + _ICMP_HEADER + ip.IPV6_HEADER + _ESP_START
    if packet[6] != ip.PROTOCOL_ICMPV6 or len(packet) < least:
        return None
    message = packet[ip.IPV6_HEADER :]
    quote = message[_ICMP_HEADER:]
    if message[0] != _PACKET_TOO_BIG or quote[0] >> 4 != 6 or quote[6] != ip.PROTOCOL_ESP:
        return None
    pseudo = bytes(packet[8:40]) + struct.pack("!II", len(message), ip.PROTOCOL_ICMPV6)
    if packet[24:40] != quote[8:24] or ip.checksum(pseudo + message):
        return None
    spi, sequence = struct.unpack_from("!II", quote, ip.IPV6_HEADER)
    length = int.from_bytes(quote[4:6], "big") + ip.IPV6_HEADER
    return TooBig(int.from_bytes(message[4:8], "big"), bytes(quote[24:40]), length, spi, sequence)


class PathMtus:
    """Destination -> what its path has room for, as long as it is believed. `now` gives lab seconds."""

    def __init__(self, now: Callable[[], float]) -> None:
        # Set where somebody learned, or a belief ended.
        self.changed = False
        self._now = now
        self._known: dict[bytes, tuple[int, float]] = {}

    def __len__(self) -> int:
        return len(self._known)

    def of(self, destination: bytes, mtu: int) -> int:
        """The MTU towards `destination`; `mtu` is the link's."""
        known = self._known.get(destination)
        if known is None:
            return mtu
        if self._now() >= known[1]:
            del self._known[destination]
            self.changed = True
            return mtu
        return min(known[0], mtu)

    def learn(self, told: TooBig, mtu: int) -> bool:
        """Take what a router said of a packet that was ours; False where it says nothing new, or nothing credible.

        Only less than the packet had can be true; and whatever is said, no less than every path has.
        """
        if not told.mtu < told.length <= mtu:
            return False
        lowered = max(told.mtu, LEAST_IPV4 if len(told.destination) == 4 else LEAST_IPV6)
        if lowered >= self.of(told.destination, mtu):
            return False
        self._known.pop(told.destination, None)
        if len(self._known) >= MAX_PATHS:
            del self._known[next(iter(self._known))]
        self._known[told.destination] = lowered, self._now() + LIFETIME
        self.changed = True
        return True

    def known(self) -> dict[bytes, int]:
        """What is believed now."""
        now = self._now()
        return {destination: mtu for destination, (mtu, until) in self._known.items() if now < until}
