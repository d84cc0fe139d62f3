"""One key of an LKH tree on the wire (RFC 6407 5.6.3.1).

An entry does not say its length: it follows from the KEK's algorithm and key length, which SAK says for all of them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from labctl.isakmp.errors import MalformedMessage
from labctl.isakmp.reader import Reader

LKH_VERSION = 1

# Octets of an entry before its key data, and of an array before its keys.
LKH_KEY_HEADER_OCTETS = 16
LKH_ARRAY_HEADER_OCTETS = 4

# LKH IDs have 16 bits and number the nodes of a binary tree: no path from a leaf to the root is longer.
MAX_LKH_KEYS = 16


@dataclass(frozen=True, slots=True)
class LkhKey:
    """A node's key: `data` is IV | key, encrypted in updates. Dates are seconds since 1970 (UTC), 0 where unbounded."""

    lkh_id: int
    kind: int
    handle: int
    data: bytes = field(repr=False)
    created: int = 0
    expires: int = 0

    @classmethod
    def parse(cls, reader: Reader, data_octets: int) -> LkhKey:
        lkh_id, kind = reader.u16(), reader.u8()
        if reader.u8() != 0:
            raise MalformedMessage("the reserved field of an LKH key is not zero")
        created, expires, handle = reader.u32(), reader.u32(), reader.u32()
        return cls(lkh_id, kind, handle, reader.take(data_octets), created, expires)

    def pack(self) -> bytes:
        return b"".join(
            (
                self.lkh_id.to_bytes(2, "big"),
                bytes((self.kind, 0)),
                self.created.to_bytes(4, "big"),
                self.expires.to_bytes(4, "big"),
                self.handle.to_bytes(4, "big"),
                self.data,
            )
        )


def parse_array_header(reader: Reader) -> int:
    """Version, number of keys, reserved: returns the number. Raises MalformedMessage."""
    version, count, reserved = reader.u8(), reader.u16(), reader.u8()
    if version != LKH_VERSION:
        raise MalformedMessage(f"an LKH array of version {version}")
    if reserved != 0:
        raise MalformedMessage("the reserved field of an LKH array is not zero")
    if not 1 <= count <= MAX_LKH_KEYS:
        raise MalformedMessage(f"an LKH array of {count} keys")
    return count


def pack_array_header(count: int) -> bytes:
    """Its octets."""
    return bytes((LKH_VERSION,)) + count.to_bytes(2, "big") + bytes(1)


def parse_keys(reader: Reader, count: int, data_octets: int) -> tuple[LkhKey, ...]:
    """All keys of an array, which they fill. No node stands there twice. Raises MalformedMessage."""
    keys = tuple(LkhKey.parse(reader, data_octets) for _ in range(count))
    reader.finish("an LKH array")
    if len({key.lkh_id for key in keys}) != count:
        raise MalformedMessage("an LKH array with two keys for one node")
    return keys
