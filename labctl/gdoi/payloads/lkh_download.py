"""LKH_DOWNLOAD_ARRAY (RFC 6407 5.6.3.1): a member's keys from its leaf to the root; the last is the group's KEK."""

from __future__ import annotations

from dataclasses import dataclass

from labctl.gdoi.payloads.lkh_key import LkhKey, pack_array_header, parse_array_header, parse_keys
from labctl.isakmp.reader import Reader


@dataclass(frozen=True, slots=True)
class LkhDownloadArray:
    """Keys in clear, which travel in a registration alone. At least the KEK."""

    keys: tuple[LkhKey, ...]

    @classmethod
    def parse(cls, reader: Reader, data_octets: int) -> LkhDownloadArray:
        """`data_octets`: of IV and key, as SAK says."""
        return cls(parse_keys(reader, parse_array_header(reader), data_octets))

    def pack(self) -> bytes:
        return pack_array_header(len(self.keys)) + b"".join(key.pack() for key in self.keys)
