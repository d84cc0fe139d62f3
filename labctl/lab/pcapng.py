"""A pcapng file written as packets come (draft-ietf-opsawg-pcapng, sections 4.1, 4.2, 4.3 and 4.6).

One section, little-endian; one interface block for each captured interface, with its name and a resolution of
nanoseconds; enhanced packet blocks; at the end the interface's statistics, so that a reader sees what was lost.
"""

from __future__ import annotations

import struct
from typing import BinaryIO

SECTION_HEADER = 0x0A0D0D0A
INTERFACE_DESCRIPTION = 1
INTERFACE_STATISTICS = 5
ENHANCED_PACKET = 6

BYTE_ORDER_MAGIC = 0x1A2B3C4D
LINKTYPE_ETHERNET = 1
LENGTH_UNKNOWN = 0xFFFFFFFFFFFFFFFF

# Option codes, each in the namespace of its block.
SHB_USERAPPL = 4
IF_NAME, IF_DESCRIPTION, IF_TSRESOL = 2, 3, 9
ISB_IFRECV, ISB_IFDROP = 4, 5

NANOSECONDS = 9  # if_tsresol: negative power of ten


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def _option(code: int, value: bytes) -> bytes:
    return struct.pack("<HH", code, len(value)) + _padded(value)


def _block(kind: int, body: bytes) -> bytes:
    length = 12 + len(body)
    return struct.pack("<II", kind, length) + body + struct.pack("<I", length)


def _timestamp(time_ns: int) -> bytes:
    return struct.pack("<II", time_ns >> 32 & 0xFFFFFFFF, time_ns & 0xFFFFFFFF)


class PcapngWriter:
    """Writes to an open binary stream and flushes at `flush()`; closing the stream is the caller's."""

    def __init__(self, stream: BinaryIO, application: str) -> None:
        self._stream = stream
        self._interfaces = 0
        body = struct.pack("<IHHQ", BYTE_ORDER_MAGIC, 1, 0, LENGTH_UNKNOWN)
        stream.write(_block(SECTION_HEADER, body + _option(SHB_USERAPPL, application.encode()) + _option(0, b"")))

    def interface(self, name: str, description: str = "", snaplen: int = 0) -> int:
        """Declare an Ethernet interface; returns its number for `packet`. A snaplen of 0 is no limit."""
        options = _option(IF_NAME, name.encode())
        if description:
            options += _option(IF_DESCRIPTION, description.encode())
        options += _option(IF_TSRESOL, bytes([NANOSECONDS])) + _option(0, b"")
        body = struct.pack("<HHI", LINKTYPE_ETHERNET, 0, snaplen)
        self._stream.write(_block(INTERFACE_DESCRIPTION, body + options))
        self._interfaces += 1
        return self._interfaces - 1

    def packet(self, interface: int, time_ns: int, original_length: int, data: bytes) -> None:
        """Write one packet, captured `time_ns` nanoseconds after 1970, of which `data` was kept."""
        body = struct.pack("<I", interface) + _timestamp(time_ns) + struct.pack("<II", len(data), original_length)
        self._stream.write(_block(ENHANCED_PACKET, body + _padded(data)))

    def statistics(self, interface: int, time_ns: int, received: int, dropped: int) -> None:
        """Say how many packets the interface saw and how many of them are missing here."""
        options = _option(ISB_IFRECV, struct.pack("<Q", received)) + _option(ISB_IFDROP, struct.pack("<Q", dropped))
        body = struct.pack("<I", interface) + _timestamp(time_ns)
        self._stream.write(_block(INTERFACE_STATISTICS, body + options + _option(0, b"")))

    def flush(self) -> None:
        """Let a reader at the other end of a pipe see what was written."""
        self._stream.flush()
