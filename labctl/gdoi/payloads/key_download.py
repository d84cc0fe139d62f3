"""KD, key download (RFC 6407 5.6): key packets for TEKs, the KEK, LKH arrays and sender IDs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from labctl.gdoi.numbers import KdType
from labctl.isakmp.attributes import Attribute, pack_attributes, parse_attributes, single
from labctl.isakmp.errors import MalformedMessage
from labctl.isakmp.header import PayloadType
from labctl.isakmp.reader import Reader

PACKET_HEADER_OCTETS = 4

# More packets than any policy has TEKs.
MAX_KEY_PACKETS = 1024

SPI_SIZES: dict[int, int] = {KdType.TEK: 4, KdType.KEK: 16, KdType.LKH: 16, KdType.SID: 0}


@dataclass(frozen=True, slots=True)
class KeyPacket:
    """Keys for one SPI. The attributes' numbers depend on the kind."""

    kind: int
    spi: bytes
    attributes: tuple[Attribute, ...] = field(repr=False)

    @classmethod
    def parse(cls, reader: Reader) -> KeyPacket:
        kind, _, length = reader.generic_header()
        if length < PACKET_HEADER_OCTETS + 1:
            raise MalformedMessage(f"a key packet of {length} octets")
        body = reader.restrict_to(length - PACKET_HEADER_OCTETS)
        spi = body.take(body.u8())
        if len(spi) != SPI_SIZES.get(kind, len(spi)):
            raise MalformedMessage(f"a key packet of type {kind} with an SPI of {len(spi)} octets")
        return cls(kind, spi, parse_attributes(body))

    def pack(self) -> bytes:
        body = bytes((len(self.spi),)) + self.spi + pack_attributes(self.attributes)
        return bytes((self.kind, 0)) + (PACKET_HEADER_OCTETS + len(body)).to_bytes(2, "big") + body

    def octets(self, kind: int) -> bytes | None:
        """The value of an attribute that stands there at most once."""
        found = single(self.attributes, kind)
        return None if found is None else found.value


@dataclass(frozen=True, slots=True)
class KeyDownload:
    """All key packets of a message."""

    TYPE: ClassVar[int] = PayloadType.KD
    packets: tuple[KeyPacket, ...]

    @classmethod
    def parse(cls, reader: Reader) -> KeyDownload:
        count, reserved = reader.u16(), reader.u16()
        if reserved != 0:
            raise MalformedMessage("the reserved field of KD is not zero")
        if count > MAX_KEY_PACKETS:
            raise MalformedMessage(f"KD with {count} key packets")
        packets = tuple(KeyPacket.parse(reader) for _ in range(count))
        for kind in (KdType.KEK, KdType.LKH, KdType.SID):
            if sum(packet.kind == kind for packet in packets) > 1:
                raise MalformedMessage(f"KD with several {kind.name} packets")
        return cls(packets)

    def pack(self) -> bytes:
        return len(self.packets).to_bytes(2, "big") + bytes(2) + b"".join(packet.pack() for packet in self.packets)

    def of(self, kind: KdType) -> tuple[KeyPacket, ...]:
        """The packets of a kind."""
        return tuple(packet for packet in self.packets if packet.kind == kind)
