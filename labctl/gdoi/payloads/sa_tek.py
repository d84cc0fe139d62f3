"""SAT, SA TEK payload (RFC 6407 5.5): one selector pair and how its traffic is protected."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network
from typing import ClassVar

from labctl.configuration import AccessListEntry, Action
from labctl.configuration.policy import Network
from labctl.gdoi.numbers import SaProtocol
from labctl.isakmp.attributes import Attribute, pack_attributes, parse_attributes
from labctl.isakmp.errors import MalformedMessage, NotifyType, PeerError
from labctl.isakmp.header import PayloadType
from labctl.isakmp.payloads import IdType
from labctl.isakmp.reader import Reader

SPI_OCTETS = 4

# SPIs below are reserved (RFC 4303 2.1).
SMALLEST_SPI = 256


@dataclass(frozen=True, slots=True)
class Selector:
    """One side of a SAT: an identity of an address type, and a port (0 = any)."""

    kind: int
    data: bytes
    port: int = 0

    @classmethod
    def of(cls, network: Network, port: int) -> Selector:
        """Always as address and mask: any is 0.0.0.0/0 (reference 3.6)."""
        kind = IdType.IPV4_ADDR_SUBNET if isinstance(network, IPv4Network) else IdType.IPV6_ADDR_SUBNET
        return cls(kind, network.network_address.packed + network.netmask.packed, port)

    @classmethod
    def parse(cls, reader: Reader) -> Selector:
        kind, port = reader.u8(), reader.u16()
        return cls(kind, reader.take(reader.u8()), port)

    def pack(self) -> bytes:
        return bytes((self.kind,)) + self.port.to_bytes(2, "big") + bytes((len(self.data),)) + self.data

    @property
    def network(self) -> Network:
        """The prefix it selects. Raises PeerError for what is no prefix."""
        return _network(self.kind, self.data)


# A member reads the same few selectors at every rekey.
@lru_cache(maxsize=1024)
def _network(kind: int, data: bytes) -> Network:
    size = len(data)
    try:
        if kind == IdType.IPV4_ADDR and size == 4:
            return IPv4Network((data, 32))
        if kind == IdType.IPV6_ADDR and size == 16:
            return IPv6Network((data, 128))
        if kind == IdType.IPV4_ADDR_SUBNET and size == 8:
            return IPv4Network((data[:4], _prefix_length(data[4:])))
        if kind == IdType.IPV6_ADDR_SUBNET and size == 32:
            return IPv6Network((data[:16], _prefix_length(data[16:])))
        # Any source of a multi-sender group (RFC 3547, RFC 6407 5.5.1.1): no data, or three octets of zero.
        if kind in (IdType.IPV4_ADDR, IdType.IPV4_ADDR_SUBNET) and data in (b"", bytes(3)):
            return IPv4Network("0.0.0.0/0")
    except ValueError as error:
        raise PeerError(f"a selector that is no prefix: {error}", NotifyType.INVALID_ID_INFORMATION) from None
    raise PeerError(f"a selector of type {kind} with {size} octets", NotifyType.INVALID_ID_INFORMATION)


def _prefix_length(mask: bytes) -> int:
    number = int.from_bytes(mask, "big")
    bits = len(mask) * 8
    length = number.bit_count()
    if number != ((1 << length) - 1) << (bits - length):
        raise ValueError(f"the mask {mask.hex()} has holes")
    return length


@dataclass(frozen=True, slots=True)
class SaTek:
    """A policy entry. For BYPASS, transform and SPI are 0."""

    TYPE: ClassVar[int] = PayloadType.SAT
    sa_protocol: int
    protocol: int
    source: Selector
    destination: Selector
    transform: int
    spi: bytes
    attributes: tuple[Attribute, ...]

    @classmethod
    def parse(cls, reader: Reader) -> SaTek:
        sa_protocol = reader.u8()
        if sa_protocol not in (SaProtocol.ESP, SaProtocol.AH, SaProtocol.BYPASS):
            raise PeerError(f"SAT of protocol {sa_protocol}", NotifyType.INVALID_PROTOCOL_ID)
        protocol = reader.u8()
        source, destination = Selector.parse(reader), Selector.parse(reader)
        transform, spi = reader.u8(), reader.take(SPI_OCTETS)
        if sa_protocol != SaProtocol.BYPASS and int.from_bytes(spi, "big") < SMALLEST_SPI:
            raise MalformedMessage("SAT with a reserved SPI")
        return cls(sa_protocol, protocol, source, destination, transform, spi, parse_attributes(reader))

    def pack(self) -> bytes:
        head = bytes((self.sa_protocol, self.protocol)) + self.source.pack() + self.destination.pack()
        return head + bytes((self.transform,)) + self.spi + pack_attributes(self.attributes)

    @property
    def spi_number(self) -> int:
        """The SPI as ESP counts it."""
        return int.from_bytes(self.spi, "big")

    def entry(self) -> AccessListEntry:
        """The access-list entry that this is. Raises PeerError where a selector is no prefix."""
        source, destination = self.source.network, self.destination.network
        if source.version != destination.version:
            raise PeerError("a SAT of two address families", NotifyType.INVALID_ID_INFORMATION)
        action = Action.DENY if self.sa_protocol == SaProtocol.BYPASS else Action.PERMIT
        return AccessListEntry(action, self.protocol, source, destination, self.source.port, self.destination.port)
