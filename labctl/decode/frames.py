"""GDOI in Ethernet frames: IPv4, UDP, port 848, whole datagrams."""

from __future__ import annotations

from collections.abc import Mapping

from labctl.decode.isakmp import Exchanges, is_opened, readable
from labctl.decode.keys import ExchangeKey, RekeyKey
from labctl.isakmp.datagram import GDOI_PORT
from labctl.isakmp.header import ExchangeType

ETHERNET = 14
ETHERTYPE_IPV4, ETHERTYPE_IPV6 = b"\x08\x00", b"\x86\xdd"
UDP, ESP = 17, 50
UDP_HEADER = 8
EXCHANGE = 18

# Of these Wireshark's chain of IVs advances with each frame that it sees: a copy would break it (reference 10.1).
_ONCE = (ExchangeType.MAIN_MODE, ExchangeType.INFORMATIONAL, ExchangeType.GROUPKEY_PULL)


class Frames:
    """Makes frames readable, one after the other; `opened` and `locked` count rekeys."""

    def __init__(self, keys: Mapping[bytes, RekeyKey], exchanges: Mapping[bytes, ExchangeKey]) -> None:
        self.opened = self.locked = self.copies = 0
        self._keys = keys
        self._exchanges = Exchanges(exchanges)
        self._seen: set[bytes] = set()

    def take(self, frame: bytes) -> bytes | None:
        """The frame as Wireshark reads it. None for a copy, which is to be left out."""
        start = _datagram_start(frame)
        if start is None:
            return frame
        end = start - UDP_HEADER + int.from_bytes(frame[start - 4 : start - 2], "big")
        data = frame[start:end]
        if len(data) <= EXCHANGE or end > len(frame):
            return frame
        if data[EXCHANGE] in _ONCE:
            # Also by another link of the same capture, with other MAC addresses and a smaller TTL.
            copy = frame[26:34] + data
            if copy in self._seen:
                self.copies += 1
                return None
            self._seen.add(copy)
        changed = self._exchanges.readable(readable(data, self._keys))
        if is_opened(data, changed):
            self.opened += 1
        elif data[EXCHANGE] == ExchangeType.GROUPKEY_PUSH:
            self.locked += 1
        return frame if changed is data else _with_datagram(frame, start, changed)


def esp_spi(frame: bytes) -> int | None:
    """The SPI of an ESP packet, or of its first fragment; None of every other frame."""
    kind = frame[12:14]
    if kind == ETHERTYPE_IPV4 and len(frame) > ETHERNET + 9 and frame[ETHERNET + 9] == ESP:
        if int.from_bytes(frame[ETHERNET + 6 : ETHERNET + 8], "big") & 0x1FFF:
            return None
        start = ETHERNET + (frame[ETHERNET] & 15) * 4
    elif kind == ETHERTYPE_IPV6 and len(frame) > ETHERNET + 6 and frame[ETHERNET + 6] == ESP:
        start = ETHERNET + 40
    else:
        return None
    return int.from_bytes(frame[start : start + 4], "big") if len(frame) >= start + 4 else None


def _datagram_start(frame: bytes) -> int | None:
    """Where the datagram of a GDOI packet begins; None for every other packet, and for parts of one."""
    if frame[12:14] != ETHERTYPE_IPV4 or len(frame) < ETHERNET + 20 or frame[ETHERNET + 9] != UDP:
        return None
    if int.from_bytes(frame[ETHERNET + 6 : ETHERNET + 8], "big") & 0x3FFF:
        return None
    udp = ETHERNET + (frame[ETHERNET] & 15) * 4
    ports = (int.from_bytes(frame[udp : udp + 2], "big"), int.from_bytes(frame[udp + 2 : udp + 4], "big"))
    return udp + UDP_HEADER if GDOI_PORT in ports and len(frame) >= udp + UDP_HEADER else None


def _with_datagram(frame: bytes, start: int, data: bytes) -> bytes:
    """The frame with another datagram: lengths and the header's checksum fit, UDP's says that there is none."""
    udp = start - UDP_HEADER
    header = bytearray(frame[ETHERNET:udp])
    header[2:4] = (udp - ETHERNET + UDP_HEADER + len(data)).to_bytes(2, "big")
    header[10:12] = bytes(2)
    total = sum(int.from_bytes(header[place : place + 2], "big") for place in range(0, len(header), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    header[10:12] = (total ^ 0xFFFF).to_bytes(2, "big")
    length = (UDP_HEADER + len(data)).to_bytes(2, "big")
    return b"".join((frame[:ETHERNET], header, frame[udp : udp + 4], length, bytes(2), data))
