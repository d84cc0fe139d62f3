"""SAK, SA KEK payload (RFC 6407 5.3): the policy of rekeys. As the RFC's figure has it: no DST protocol octet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from labctl.isakmp.attributes import Attribute, pack_attributes, parse_attributes
from labctl.isakmp.errors import MalformedMessage
from labctl.isakmp.header import PayloadType
from labctl.isakmp.reader import Reader

KEK_SPI_OCTETS = 16
UDP = 17


@dataclass(frozen=True, slots=True)
class SaKek:
    """Where rekeys come from and go to, the KEK's SPI (cookies of the PUSH) and its attributes."""

    TYPE: ClassVar[int] = PayloadType.SAK
    source_kind: int
    source: bytes
    source_port: int
    destination_kind: int
    destination: bytes
    destination_port: int
    spi: bytes
    attributes: tuple[Attribute, ...]
    protocol: int = UDP

    @classmethod
    def parse(cls, reader: Reader) -> SaKek:
        protocol = reader.u8()
        source_kind, source_port = reader.u8(), reader.u16()
        source = reader.take(reader.u8())
        destination_kind, destination_port = reader.u8(), reader.u16()
        destination = reader.take(reader.u8())
        spi = reader.take(KEK_SPI_OCTETS)
        if reader.u32() != 0:
            raise MalformedMessage("SAK asks for proof of possession, which RFC 6407 removed")
        if reader.left and reader.peek()[:2] == bytes(2):
            # Attribute type 0 is reserved: the octets of zero that some implementation sends are none.
            raise MalformedMessage("SAK has octets of zero too many between SPI and attributes")
        attributes = parse_attributes(reader)
        return cls(
            source_kind,
            source,
            source_port,
            destination_kind,
            destination,
            destination_port,
            spi,
            attributes,
            protocol,
        )

    def pack(self) -> bytes:
        return b"".join(
            (
                bytes((self.protocol, self.source_kind)),
                self.source_port.to_bytes(2, "big"),
                bytes((len(self.source),)),
                self.source,
                bytes((self.destination_kind,)),
                self.destination_port.to_bytes(2, "big"),
                bytes((len(self.destination),)),
                self.destination,
                self.spi,
                bytes(4),
                pack_attributes(self.attributes),
            )
        )
