"""A pcapng file, block by block (draft-ietf-opsawg-pcapng 3.1, 4.1, 4.3): packets change, all else stays as it is."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import BinaryIO

from labctl.decode.frames import Frames
from labctl.decode.keys import ExchangeKey, RekeyKey

SECTION_HEADER, ENHANCED_PACKET = 0x0A0D0D0A, 6
BYTE_ORDER_MAGIC = b"\x4d\x3c\x2b\x1a"

# A block of our captures holds one frame; nothing sane is longer.
MAX_BLOCK = 1 << 24


class NotPcapng(ValueError):
    """The file is no pcapng of little-endian machines, or it is cut off."""


@dataclass(frozen=True, slots=True)
class Counts:
    """Packets written, rekeys decrypted and rekeys without a key, copies left out."""

    packets: int
    opened: int
    locked: int
    copies: int


def decode(
    source: BinaryIO,
    target: BinaryIO,
    keys: Mapping[bytes, RekeyKey],
    exchanges: Mapping[bytes, ExchangeKey] = MappingProxyType({}),
) -> Counts:
    """Copy a capture, made readable. Raises NotPcapng."""
    frames, packets = Frames(keys, exchanges), 0
    for kind, block in _blocks(source):
        body = _packet(block, frames) if kind == ENHANCED_PACKET else block
        if body is None:
            continue
        packets += kind == ENHANCED_PACKET
        length = 12 + len(body)
        target.write(struct.pack("<II", kind, length) + body + struct.pack("<I", length))
    return Counts(packets, frames.opened, frames.locked, frames.copies)


def _blocks(source: BinaryIO) -> Iterator[tuple[int, bytes]]:
    first = True
    while head := source.read(8):
        if len(head) < 8:
            raise NotPcapng("it ends in the middle of a block")
        kind, length = struct.unpack("<II", head)
        if first and kind != SECTION_HEADER:
            raise NotPcapng("it does not begin as pcapng does")
        if length < 12 or length % 4 or length > MAX_BLOCK:
            raise NotPcapng(f"a block of {length} octets")
        body = source.read(length - 12)
        if len(body) < length - 12 or len(source.read(4)) < 4:
            raise NotPcapng("it ends in the middle of a block")
        if kind == SECTION_HEADER and body[:4] != BYTE_ORDER_MAGIC:
            raise NotPcapng("it was written on a machine of another byte order")
        first = False
        yield kind, body


def _packet(body: bytes, frames: Frames) -> bytes | None:
    """An enhanced packet block: interface, time (high, low), captured length, original length, data, options."""
    if len(body) < 20:
        raise NotPcapng("a packet block that is too short")
    captured, original = struct.unpack_from("<II", body, 12)
    if 20 + captured > len(body):
        raise NotPcapng("a packet that is longer than its block")
    if captured < original:
        return body  # what was cut off cannot be decrypted
    data = body[20 : 20 + captured]
    changed = frames.take(data)
    if changed is None or changed is data:
        return None if changed is None else body
    options = body[20 + captured + -captured % 4 :]
    sizes = struct.pack("<II", len(changed), len(changed))
    return body[:12] + sizes + changed + bytes(-len(changed) % 4) + options
