"""Payloads with a small head before their data: certificates, their requests, NAT-OA, configuration attributes.

Main Mode with pre-shared keys and GDOI have no use for them; a peer may send them all the same, and they are read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from labctl.isakmp.attributes import Attribute, pack_attributes, parse_attributes
from labctl.isakmp.errors import MalformedMessage
from labctl.isakmp.header import PayloadType
from labctl.isakmp.payloads.chain import register
from labctl.isakmp.payloads.identification import SIZES, IdType
from labctl.isakmp.reader import Reader


@dataclass(frozen=True, slots=True)
class Certificate:
    """CERT (RFC 2408 3.9): `encoding` 4 is an X.509 certificate for signatures."""

    TYPE: ClassVar[int] = PayloadType.CERT
    encoding: int
    data: bytes

    @classmethod
    def parse(cls, reader: Reader) -> Certificate:
        return cls(reader.u8(), reader.rest())

    def pack(self) -> bytes:
        return bytes((self.encoding,)) + self.data


@dataclass(frozen=True, slots=True)
class CertificateRequest:
    """CR (RFC 2408 3.10): `authority` is the DER name of a CA, or empty for any."""

    TYPE: ClassVar[int] = PayloadType.CR
    encoding: int
    authority: bytes

    @classmethod
    def parse(cls, reader: Reader) -> CertificateRequest:
        return cls(reader.u8(), reader.rest())

    def pack(self) -> bytes:
        return bytes((self.encoding,)) + self.authority


@dataclass(frozen=True, slots=True)
class NatOriginalAddress:
    """NAT-OA (RFC 3947 5.2): an IPv4 or IPv6 address, typed like an identity."""

    TYPE: ClassVar[int] = PayloadType.NAT_OA
    kind: int
    address: bytes

    @classmethod
    def parse(cls, reader: Reader) -> NatOriginalAddress:
        kind, _ = reader.u8(), reader.take(3)
        address = reader.rest()
        if kind not in (IdType.IPV4_ADDR, IdType.IPV6_ADDR) or len(address) != SIZES[IdType(kind)]:
            raise MalformedMessage(f"an original address of type {kind} with {len(address)} octets")
        return cls(kind, address)

    def pack(self) -> bytes:
        return bytes((self.kind, 0, 0, 0)) + self.address


@dataclass(frozen=True, slots=True)
class Configuration:
    """Attributes of a transaction exchange (draft-ietf-ipsec-isakmp-mode-cfg 3.2): request, reply, set, acknowledge."""

    TYPE: ClassVar[int] = PayloadType.CONFIGURATION
    kind: int
    identifier: int
    attributes: tuple[Attribute, ...]

    @classmethod
    def parse(cls, reader: Reader) -> Configuration:
        kind, _, identifier = reader.u8(), reader.u8(), reader.u16()
        return cls(kind, identifier, parse_attributes(reader))

    def pack(self) -> bytes:
        return bytes((self.kind, 0)) + self.identifier.to_bytes(2, "big") + pack_attributes(self.attributes)


register(PayloadType.CERT, Certificate.parse)
register(PayloadType.CR, CertificateRequest.parse)
register(PayloadType.NAT_OA, NatOriginalAddress.parse)
register(PayloadType.CONFIGURATION, Configuration.parse)
