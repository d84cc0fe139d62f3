"""An adapter between the captures of the reference implementation and the strict product.

The numbers are those of the deviations in the captures' README. Every one can be left as it is, to see what the product
says of it.
"""

from __future__ import annotations

from dataclasses import replace
from enum import Enum

from labctl.gdoi.numbers import KdType, SaAttribute, SidKey
from labctl.gdoi.payloads import PARSERS, GdoiSa, KeyDownload, KeyPacket
from labctl.isakmp.attributes import Attribute, single
from labctl.isakmp.header import PayloadType
from labctl.isakmp.payloads.chain import Parser
from labctl.isakmp.reader import Reader


class Deviation(Enum):
    """What is mended."""

    SAK_RESERVED = 1
    SAT_ADDRESSES = 3
    GCM_KEY_LENGTH = 10
    SID_OCTETS = 11


def parsers(*as_it_is: Deviation) -> dict[int, Parser]:
    """Parsers that mend before the product's own ones parse; what is named stays as it is."""

    def mending_sa(reader: Reader) -> GdoiSa:
        sa = GdoiSa.parse(Reader(mended_sa(reader.rest(), as_it_is)))
        return sa if Deviation.GCM_KEY_LENGTH in as_it_is else without_salt_in_key_length(sa)

    def mending_keys(reader: Reader) -> KeyDownload:
        keys = KeyDownload.parse(reader)
        return keys if Deviation.SID_OCTETS in as_it_is else with_sender_ids_in_network_order(keys)

    return {**PARSERS, PayloadType.SA: mending_sa, PayloadType.KD: mending_keys}


def mended_sa(body: bytes, as_it_is: tuple[Deviation, ...]) -> bytes:
    """Two octets too many in SAK; addresses of SAT in reversed octet order."""
    fixed, kind, rest = body[:12], int.from_bytes(body[8:10], "big"), body[12:]
    parts = []
    while kind:
        following, length = rest[0], int.from_bytes(rest[2:4], "big")
        inner, rest = rest[4:length], rest[length:]
        if kind == PayloadType.SAK and Deviation.SAK_RESERVED not in as_it_is:
            destination = 5 + inner[4]
            spi_end = destination + 4 + inner[destination + 3] + 16
            assert inner[spi_end : spi_end + 6] == bytes(6), "deviation 1"
            inner = inner[: spi_end + 4] + inner[spi_end + 6 :]
        elif kind == PayloadType.SAT and Deviation.SAT_ADDRESSES not in as_it_is:
            inner = _with_addresses_in_network_order(inner)
        parts.append(bytes((following, 0)) + (len(inner) + 4).to_bytes(2, "big") + inner)
        kind = following
    return fixed + b"".join(parts)


def _with_addresses_in_network_order(inner: bytes) -> bytes:
    out, position = bytearray(inner), 2
    for _ in ("source", "destination"):
        size = out[position + 3]
        start = position + 4
        for offset in range(start, start + size, 4):
            out[offset : offset + 4] = bytes(reversed(out[offset : offset + 4]))
        position = start + size
    return bytes(out)


def without_salt_in_key_length(sa: GdoiSa) -> GdoiSa:
    """Key length 160 is 128 bits of key and 32 of salt."""

    def mended(item: Attribute) -> Attribute:
        counted = item.kind == SaAttribute.KEY_LENGTH and item.number == 160
        return Attribute.tv(SaAttribute.KEY_LENGTH, 128) if counted else item

    teks = tuple(replace(tek, attributes=tuple(mended(item) for item in tek.attributes)) for tek in sa.teks)
    return replace(sa, teks=teks)


def with_sender_ids_in_network_order(keys: KeyDownload) -> KeyDownload:
    """Sender IDs of four octets, little endian, whatever their width."""

    def mended(packet: KeyPacket) -> KeyPacket:
        bits = single(packet.attributes, SidKey.NUMBER_OF_SID_BITS)
        if packet.kind != KdType.SID or bits is None:
            return packet
        size = (bits.number + 7) // 8
        values = tuple(
            Attribute.tlv(item.kind, item.value[::-1][-size:]) if item.kind == SidKey.SID_VALUE else item
            for item in packet.attributes
        )
        return replace(packet, attributes=values)

    return KeyDownload(tuple(mended(packet) for packet in keys.packets))


def under_spi(keys: KeyDownload, spi: bytes) -> KeyDownload:
    """Deviation 7: the key of a new KEK comes under the old SPI."""
    return KeyDownload(
        tuple(replace(packet, spi=spi) if packet.kind == KdType.KEK else packet for packet in keys.packets)
    )
