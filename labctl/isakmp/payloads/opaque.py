"""Payloads whose body is plain data (RFC 2408 3.7, 3.11-3.13, 3.16; RFC 3947 3.2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from labctl.isakmp.errors import MalformedMessage
from labctl.isakmp.header import PayloadType
from labctl.isakmp.payloads.chain import register
from labctl.isakmp.reader import Reader

# Nonces (RFC 2409 5).
MIN_NONCE_OCTETS = 8
MAX_NONCE_OCTETS = 256


@dataclass(frozen=True, slots=True)
class KeyExchange:
    """KE: a Diffie-Hellman public value."""

    TYPE: ClassVar[int] = PayloadType.KE
    data: bytes

    @classmethod
    def parse(cls, reader: Reader) -> KeyExchange:
        return cls(reader.rest())

    def pack(self) -> bytes:
        return self.data


@dataclass(frozen=True, slots=True)
class HashPayload:
    """HASH."""

    TYPE: ClassVar[int] = PayloadType.HASH
    data: bytes

    @classmethod
    def parse(cls, reader: Reader) -> HashPayload:
        return cls(reader.rest())

    def pack(self) -> bytes:
        return self.data


@dataclass(frozen=True, slots=True)
class Signature:
    """SIG."""

    TYPE: ClassVar[int] = PayloadType.SIG
    data: bytes

    @classmethod
    def parse(cls, reader: Reader) -> Signature:
        return cls(reader.rest())

    def pack(self) -> bytes:
        return self.data


@dataclass(frozen=True, slots=True)
class Nonce:
    """NONCE: 8 to 256 octets."""

    TYPE: ClassVar[int] = PayloadType.NONCE
    data: bytes

    @classmethod
    def parse(cls, reader: Reader) -> Nonce:
        if not MIN_NONCE_OCTETS <= reader.left <= MAX_NONCE_OCTETS:
            raise MalformedMessage(f"a nonce of {reader.left} octets")
        return cls(reader.rest())

    def pack(self) -> bytes:
        return self.data


@dataclass(frozen=True, slots=True)
class VendorId:
    """VID."""

    TYPE: ClassVar[int] = PayloadType.VID
    data: bytes

    @classmethod
    def parse(cls, reader: Reader) -> VendorId:
        return cls(reader.rest())

    def pack(self) -> bytes:
        return self.data


@dataclass(frozen=True, slots=True)
class NatDiscovery:
    """NAT-D."""

    TYPE: ClassVar[int] = PayloadType.NAT_D
    data: bytes

    @classmethod
    def parse(cls, reader: Reader) -> NatDiscovery:
        return cls(reader.rest())

    def pack(self) -> bytes:
        return self.data


@dataclass(frozen=True, slots=True)
class ProofOfPossession:
    """POP of RFC 3547 5.7, gone from RFC 6407: known by name so that a peer of that age is read, never sent."""

    TYPE: ClassVar[int] = PayloadType.POP
    data: bytes

    @classmethod
    def parse(cls, reader: Reader) -> ProofOfPossession:
        return cls(reader.rest())

    def pack(self) -> bytes:
        return self.data


for _kind, _parser in (
    (PayloadType.KE, KeyExchange.parse),
    (PayloadType.HASH, HashPayload.parse),
    (PayloadType.SIG, Signature.parse),
    (PayloadType.NONCE, Nonce.parse),
    (PayloadType.VID, VendorId.parse),
    (PayloadType.NAT_D, NatDiscovery.parse),
    (PayloadType.POP, ProofOfPossession.parse),
):
    register(_kind, _parser)
