"""Chains of payloads behind generic headers (RFC 2408 3.2)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

from labctl.isakmp.errors import MalformedMessage, NotifyType, PeerError
from labctl.isakmp.header import PayloadType
from labctl.isakmp.reader import Reader

GENERIC_OCTETS = 4

# The most payloads in one message; Main Mode with certificates and vendor IDs stays under twenty.
MAX_PAYLOADS = 64


class Payload(Protocol):
    """What every payload class offers beside its `parse`."""

    TYPE: ClassVar[int]

    def pack(self) -> bytes:
        """The body's octets."""


Parser = Callable[[Reader], Payload]

_parsers: dict[int, Parser] = {}


def register(payload_type: int, parser: Parser) -> None:
    """Teach chains a payload type. A room that brings payloads of its own calls it on import."""
    _parsers[payload_type] = parser


@dataclass(frozen=True, slots=True)
class Chained:
    """A payload as it was received: parsed, and its whole octets with the generic header."""

    payload: Payload
    whole: bytes

    @property
    def body(self) -> bytes:
        """The octets behind the generic header."""
        return self.whole[GENERIC_OCTETS:]


def parse_chain(
    first: int, reader: Reader, parsers: dict[int, Parser] | None = None, *, padded: bool = False
) -> tuple[Chained, ...]:
    """Parse a chain that begins with type `first`.

    `parsers` replace or extend the registered ones for this chain. With `padded`, octets behind the last payload are
    encryption padding and ignored (RFC 2409 appendix B); else they are an error. Raises PeerError.
    """
    found: list[Chained] = []
    kind = first
    known = _parsers if parsers is None else {**_parsers, **parsers}
    while kind:  # PayloadType.NONE ends a chain
        if len(found) >= MAX_PAYLOADS:
            raise MalformedMessage(f"more than {MAX_PAYLOADS} payloads")
        parser = known.get(kind)
        if parser is None:
            raise PeerError(f"payload type {kind} is not known here", NotifyType.INVALID_PAYLOAD_TYPE)
        whole = reader.peek()
        following, _, length = reader.generic_header()
        if length < GENERIC_OCTETS:
            raise MalformedMessage(f"a payload of {length} octets")
        body = reader.restrict_to(length - GENERIC_OCTETS)
        payload = parser(body)
        body.finish(type(payload).__name__)
        found.append(Chained(payload, whole[:length]))
        kind = following
    if not padded:
        reader.finish("the message")
    return tuple(found)


def pack_payload(payload: Payload, following: int) -> bytes:
    """Generic header and body; `following` is the type of the next payload, 0 for none."""
    body = payload.pack()
    length = GENERIC_OCTETS + len(body)
    if length > 0xFFFF:
        raise ValueError(f"a payload of {length} octets does not fit its length field")
    return bytes((following, 0)) + length.to_bytes(2, "big") + body


def pack_chain(payloads: Sequence[Payload], last: int = PayloadType.NONE) -> bytes:
    """Octets of a chain; its type goes into whatever stands before it. `last` follows the last payload."""
    packed: list[bytes] = []
    following = last
    for payload in reversed(payloads):
        packed.append(pack_payload(payload, following))
        following = payload.TYPE
    packed.reverse()
    return b"".join(packed)
