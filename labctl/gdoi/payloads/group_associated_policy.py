"""GAP, group associated policy (RFC 6407 5.4): inside the SA payload, and on top in message 3 of a PULL."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from labctl.gdoi.numbers import GapAttribute
from labctl.isakmp.attributes import Attribute, pack_attributes, parse_attributes, single
from labctl.isakmp.header import PayloadType
from labctl.isakmp.reader import Reader

_KNOWN = frozenset(GapAttribute)


@dataclass(frozen=True, slots=True)
class GroupAssociatedPolicy:
    """Delays and sender-ID requests, as attributes."""

    TYPE: ClassVar[int] = PayloadType.GAP
    attributes: tuple[Attribute, ...]

    @classmethod
    def of(cls, values: dict[GapAttribute, int]) -> GroupAssociatedPolicy:
        """From numbers, each a basic attribute."""
        return cls(tuple(Attribute.tv(kind, value) for kind, value in values.items()))

    @classmethod
    def parse(cls, reader: Reader) -> GroupAssociatedPolicy:
        return cls(parse_attributes(reader))

    def pack(self) -> bytes:
        return pack_attributes(self.attributes)

    def value(self, kind: GapAttribute) -> int | None:
        """A number, None where it is absent."""
        found = single(self.attributes, kind)
        return None if found is None else found.number

    @property
    def unknown(self) -> tuple[int, ...]:
        """Attributes that a conforming member must refuse (RFC 6407 5.4)."""
        return tuple(item.kind for item in self.attributes if item.kind not in _KNOWN)
