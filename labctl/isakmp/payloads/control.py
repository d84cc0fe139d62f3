"""Notification (RFC 2408 3.14) and Delete (RFC 2408 3.15)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from labctl.isakmp.errors import MalformedMessage, NotifyType
from labctl.isakmp.header import Doi, PayloadType
from labctl.isakmp.payloads.chain import register
from labctl.isakmp.reader import Reader

PROTOCOL_ISAKMP = 1
INITIAL_CONTACT_DATA = b""

# The most SPIs one Delete may name.
MAX_SPIS = 512


@dataclass(frozen=True, slots=True)
class Notification:
    """N: a notify type with the SPI it is about and data."""

    TYPE: ClassVar[int] = PayloadType.NOTIFY
    kind: int
    doi: int = Doi.GDOI
    protocol: int = PROTOCOL_ISAKMP
    spi: bytes = b""
    data: bytes = b""

    @classmethod
    def parse(cls, reader: Reader) -> Notification:
        doi, protocol, spi_size, kind = reader.u32(), reader.u8(), reader.u8(), reader.u16()
        return cls(kind, doi, protocol, reader.take(spi_size), reader.rest())

    def pack(self) -> bytes:
        head = self.doi.to_bytes(4, "big") + bytes((self.protocol, len(self.spi))) + self.kind.to_bytes(2, "big")
        return head + self.spi + self.data

    @property
    def name(self) -> str:
        """The type's name, or its number."""
        return next((known.name.replace("_", "-") for known in NotifyType if known == self.kind), str(self.kind))

    @property
    def is_error(self) -> bool:
        """Error types are 1-16383 (RFC 2408 3.14.1)."""
        return 0 < self.kind < NotifyType.CONNECTED


@dataclass(frozen=True, slots=True)
class Delete:
    """D: SPIs of one protocol that are no more."""

    TYPE: ClassVar[int] = PayloadType.DELETE
    doi: int
    protocol: int
    spi_size: int
    spis: tuple[bytes, ...]

    @classmethod
    def parse(cls, reader: Reader) -> Delete:
        doi, protocol, spi_size, count = reader.u32(), reader.u8(), reader.u8(), reader.u16()
        if count > MAX_SPIS:
            raise MalformedMessage(f"a Delete of {count} SPIs")
        return cls(doi, protocol, spi_size, tuple(reader.take(spi_size) for _ in range(count)))

    def pack(self) -> bytes:
        head = self.doi.to_bytes(4, "big") + bytes((self.protocol, self.spi_size)) + len(self.spis).to_bytes(2, "big")
        return head + b"".join(self.spis)


register(PayloadType.NOTIFY, Notification.parse)
register(PayloadType.DELETE, Delete.parse)
