"""Data attributes (RFC 2408 3.3): TV with a 16-bit value, TLV with any."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from labctl.isakmp.errors import MalformedMessage
from labctl.isakmp.reader import Reader

# The most attributes that one transform or policy may carry; real ones have under ten.
MAX_ATTRIBUTES = 64

_BASIC = 0x8000


@dataclass(frozen=True, slots=True)
class Attribute:
    """One attribute. `basic` says that it travels as TV; then `value` is two octets."""

    kind: int
    value: bytes
    basic: bool

    @classmethod
    def tv(cls, kind: int, value: int) -> Attribute:
        """A basic attribute."""
        return cls(kind, value.to_bytes(2, "big"), True)

    @classmethod
    def tlv(cls, kind: int, value: bytes) -> Attribute:
        """A variable attribute."""
        return cls(kind, value, False)

    @property
    def number(self) -> int:
        """The value as an unsigned number, whichever form it came in: a receiver must take both (RFC 2408 3.3)."""
        return int.from_bytes(self.value, "big")

    def pack(self) -> bytes:
        """Wire octets."""
        if self.basic:
            return (_BASIC | self.kind).to_bytes(2, "big") + self.value
        return self.kind.to_bytes(2, "big") + len(self.value).to_bytes(2, "big") + self.value


def parse_attributes(reader: Reader) -> tuple[Attribute, ...]:
    """Everything that is left in `reader`, as attributes. Raises MalformedMessage."""
    found: list[Attribute] = []
    while reader.left:
        if len(found) >= MAX_ATTRIBUTES:
            raise MalformedMessage(f"more than {MAX_ATTRIBUTES} attributes")
        # Both forms begin with two numbers: TV's second one is the value.
        kind, second = reader.two_u16()
        if kind & _BASIC:
            found.append(Attribute(kind & ~_BASIC, second.to_bytes(2, "big"), True))
        else:
            found.append(Attribute(kind, reader.take(second), False))
    return tuple(found)


def pack_attributes(attributes: Iterable[Attribute]) -> bytes:
    """Wire octets of a list of attributes."""
    return b"".join(attribute.pack() for attribute in attributes)


def single(attributes: Iterable[Attribute], kind: int) -> Attribute | None:
    """The attribute of a kind, None if absent. Raises MalformedMessage if it stands there twice."""
    found = None
    for attribute in attributes:
        if attribute.kind == kind:
            if found is not None:
                raise MalformedMessage(f"attribute {kind} stands there more than once")
            found = attribute
    return found
