"""The Internet checksum (RFC 1071), for rooms that load no ESP."""

from __future__ import annotations

import struct


def checksum(data: bytes) -> int:
    """0 over data that holds its own, right, checksum."""
    if len(data) % 2:
        data += b"\0"
    total = int(sum(struct.unpack(f"!{len(data) // 2}H", data)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF
