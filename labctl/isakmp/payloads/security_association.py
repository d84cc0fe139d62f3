"""The SA payload of phase 1 with its proposals and transforms (RFC 2408 3.4-3.6)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from labctl.isakmp.attributes import Attribute, pack_attributes, parse_attributes
from labctl.isakmp.errors import MalformedMessage
from labctl.isakmp.header import PayloadType
from labctl.isakmp.payloads.chain import GENERIC_OCTETS, pack_payload, register
from labctl.isakmp.reader import Reader

# The most transforms an offer may hold: a real one has under twenty.
MAX_TRANSFORMS = 128


@dataclass(frozen=True, slots=True)
class Transform:
    """T: one way to protect, as attributes in the order received."""

    TYPE: ClassVar[int] = PayloadType.TRANSFORM
    number: int
    identifier: int
    attributes: tuple[Attribute, ...]

    @classmethod
    def parse(cls, reader: Reader) -> Transform:
        number, identifier, _ = reader.u8(), reader.u8(), reader.u16()
        return cls(number, identifier, parse_attributes(reader))

    def pack(self) -> bytes:
        return bytes((self.number, self.identifier, 0, 0)) + pack_attributes(self.attributes)


@dataclass(frozen=True, slots=True)
class Proposal:
    """P: a protocol with transforms to choose one of."""

    TYPE: ClassVar[int] = PayloadType.PROPOSAL
    number: int
    protocol: int
    spi: bytes
    transforms: tuple[Transform, ...]

    @classmethod
    def parse(cls, reader: Reader) -> Proposal:
        number, protocol, spi_size, count = reader.u8(), reader.u8(), reader.u8(), reader.u8()
        spi = reader.take(spi_size)
        transforms = []
        for index in range(count):
            following, _, length = reader.generic_header()
            expected = PayloadType.TRANSFORM if index < count - 1 else PayloadType.NONE
            if following != expected or length < GENERIC_OCTETS:
                raise MalformedMessage("the chain of transforms does not fit its count")
            body = reader.restrict_to(length - GENERIC_OCTETS)
            transforms.append(Transform.parse(body))
        if not transforms or len(transforms) > MAX_TRANSFORMS:
            raise MalformedMessage(f"a proposal with {len(transforms)} transforms")
        return cls(number, protocol, spi, tuple(transforms))

    def pack(self) -> bytes:
        head = bytes((self.number, self.protocol, len(self.spi), len(self.transforms))) + self.spi
        kinds = [PayloadType.TRANSFORM] * (len(self.transforms) - 1) + [PayloadType.NONE]
        return head + b"".join(pack_payload(item, kind) for item, kind in zip(self.transforms, kinds, strict=True))


@dataclass(frozen=True, slots=True)
class SecurityAssociation:
    """SA of phase 1: DOI, situation, proposals."""

    TYPE: ClassVar[int] = PayloadType.SA
    doi: int
    situation: int
    proposals: tuple[Proposal, ...]

    @classmethod
    def parse(cls, reader: Reader) -> SecurityAssociation:
        doi, situation = reader.u32(), reader.u32()
        proposals = []
        more = True
        while more:
            following, _, length = reader.generic_header()
            if following not in (PayloadType.PROPOSAL, PayloadType.NONE) or length < GENERIC_OCTETS:
                raise MalformedMessage("the chain of proposals is broken")
            body = reader.restrict_to(length - GENERIC_OCTETS)
            proposals.append(Proposal.parse(body))
            body.finish("a proposal")
            more = following == PayloadType.PROPOSAL
        return cls(doi, situation, tuple(proposals))

    def pack(self) -> bytes:
        kinds = [PayloadType.PROPOSAL] * (len(self.proposals) - 1) + [PayloadType.NONE]
        head = self.doi.to_bytes(4, "big") + self.situation.to_bytes(4, "big")
        return head + b"".join(pack_payload(item, kind) for item, kind in zip(self.proposals, kinds, strict=True))


register(PayloadType.SA, SecurityAssociation.parse)
