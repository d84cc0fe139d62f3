"""LKH_UPDATE_ARRAY (RFC 6407 5.6.3.2): new keys from a node to the root, for those who hold one key below them."""

from __future__ import annotations

from dataclasses import dataclass

from labctl.gdoi.payloads.lkh_key import LkhKey, pack_array_header, parse_array_header, parse_keys
from labctl.isakmp.errors import MalformedMessage
from labctl.isakmp.reader import Reader


@dataclass(frozen=True, slots=True)
class LkhUpdateArray:
    """`lkh_id` and `handle` name the key that encrypts the first of `keys`; each encrypts the next.

    The last is the new KEK.
    """

    lkh_id: int
    handle: int
    keys: tuple[LkhKey, ...]

    @classmethod
    def parse(cls, reader: Reader, data_octets: int) -> LkhUpdateArray:
        """`data_octets`: of encrypted IV and key, as SAK says."""
        count = parse_array_header(reader)
        lkh_id, reserved, handle = reader.u16(), reader.u16(), reader.u32()
        if reserved != 0:
            raise MalformedMessage("the second reserved field of an LKH update is not zero")
        keys = parse_keys(reader, count, data_octets)
        if any(key.lkh_id == lkh_id for key in keys):
            raise MalformedMessage("an LKH update that encrypts a node's key under itself")
        return cls(lkh_id, handle, keys)

    def pack(self) -> bytes:
        head = self.lkh_id.to_bytes(2, "big") + bytes(2) + self.handle.to_bytes(4, "big")
        return pack_array_header(len(self.keys)) + head + b"".join(key.pack() for key in self.keys)
