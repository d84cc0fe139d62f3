"""SEQ, the sequence number of rekeys (RFC 6407 5.7)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from labctl.isakmp.header import PayloadType
from labctl.isakmp.reader import Reader


@dataclass(frozen=True, slots=True)
class SequenceNumber:
    """The last number used under a KEK, 32 bits."""

    TYPE: ClassVar[int] = PayloadType.SEQ
    number: int

    @classmethod
    def parse(cls, reader: Reader) -> SequenceNumber:
        return cls(reader.u32())

    def pack(self) -> bytes:
        return self.number.to_bytes(4, "big")
