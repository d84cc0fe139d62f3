"""ID payload (RFC 2407 4.6.2; RFC 6407 5.1: three zero octets where phase 1 has protocol and port)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from ipaddress import IPv4Address
from typing import ClassVar

from labctl.crypto import name_of
from labctl.isakmp.errors import MalformedMessage
from labctl.isakmp.header import PayloadType
from labctl.isakmp.payloads.chain import register
from labctl.isakmp.reader import Reader


class IdType(IntEnum):
    """RFC 2407 4.6.2.1."""

    IPV4_ADDR = 1
    FQDN = 2
    USER_FQDN = 3
    IPV4_ADDR_SUBNET = 4
    IPV6_ADDR = 5
    IPV6_ADDR_SUBNET = 6
    IPV4_ADDR_RANGE = 7
    IPV6_ADDR_RANGE = 8
    DER_ASN1_DN = 9
    DER_ASN1_GN = 10
    KEY_ID = 11


# Fixed sizes of the address types.
SIZES: dict[int, int] = {
    IdType.IPV4_ADDR: 4,
    IdType.IPV4_ADDR_SUBNET: 8,
    IdType.IPV4_ADDR_RANGE: 8,
    IdType.IPV6_ADDR: 16,
    IdType.IPV6_ADDR_SUBNET: 32,
    IdType.IPV6_ADDR_RANGE: 32,
}


@dataclass(frozen=True, slots=True)
class Identification:
    """An identity: `kind` is an IdType number, `data` its octets."""

    TYPE: ClassVar[int] = PayloadType.ID
    kind: int
    data: bytes
    protocol: int = 0
    port: int = 0

    @classmethod
    def ipv4(cls, address: IPv4Address) -> Identification:
        """An IPv4 address with protocol and port 0."""
        return cls(IdType.IPV4_ADDR, address.packed)

    @classmethod
    def parse(cls, reader: Reader) -> Identification:
        kind, protocol, port = reader.u8(), reader.u8(), reader.u16()
        data = reader.rest()
        if len(data) != SIZES.get(kind, len(data)):
            raise MalformedMessage(f"an identity of type {kind} with {len(data)} octets")
        return cls(kind, data, protocol, port)

    def pack(self) -> bytes:
        return bytes((self.kind, self.protocol)) + self.port.to_bytes(2, "big") + self.data

    def __str__(self) -> str:
        if self.kind == IdType.IPV4_ADDR:
            return str(IPv4Address(self.data))
        if self.kind in (IdType.FQDN, IdType.USER_FQDN):
            return self.data.decode("ascii", "backslashreplace")
        if self.kind == IdType.DER_ASN1_DN:
            return name_of(self.data) or f"type {self.kind} {self.data.hex()}"
        return f"type {self.kind} {self.data.hex()}"


register(PayloadType.ID, Identification.parse)
