"""PIM version 2 messages: Hello, by which multicast routers find each other, and Assert (RFC 7761 4.9.2, 4.9.6).

Nothing else of PIM is spoken. Each router says in its hello how many steps it is away from the provider's core
(`level`), in an option of the private range; a hello of somebody else has none, and its sender counts as the core's.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from ipaddress import IPv4Address

from labctl.node.multicast.checksum import checksum

ALL_PIM_ROUTERS = IPv4Address("224.0.0.13")
PROTOCOL = 103

_VERSION = 2
_HELLO, _ASSERT = 0, 5
_HOLDTIME, _GENERATION = 1, 20
# RFC 7761 4.9.2: 65001 to 65535 are for private use. Wireshark takes the first of them for an address list of old
# routers.
_LEVEL = 65100

# Options of a hello that are looked at.
MAX_OPTIONS = 32

_OPTION = struct.Struct("!HH")
_ASSERT_GROUP = struct.Struct("!BBBB4s")
_ASSERT_SOURCE = struct.Struct("!BB4s")
_METRIC = struct.Struct("!II")


@dataclass(frozen=True, slots=True)
class Hello:
    """`holdtime` in seconds; 0 says farewell. `generation` is new after every start."""

    holdtime: int
    generation: int
    level: int


@dataclass(frozen=True, slots=True)
class Assert:
    """I forward this flow here, and my way to its source is so good; less is better."""

    source: IPv4Address
    group: IPv4Address
    preference: int
    metric: int


def hello(message: Hello) -> bytes:
    """The octets of a hello, without IP header."""
    body = b"".join(
        (
            _OPTION.pack(_HOLDTIME, 2) + message.holdtime.to_bytes(2, "big"),
            _OPTION.pack(_GENERATION, 4) + message.generation.to_bytes(4, "big"),
            _OPTION.pack(_LEVEL, 1) + bytes((message.level,)),
        )
    )
    return _sealed(_HELLO, body)


def assertion(message: Assert) -> bytes:
    """The octets of an assert, without IP header. Addresses are in their encoded forms (RFC 7761 4.9.1)."""
    group = _ASSERT_GROUP.pack(1, 0, 0, 32, message.group.packed)
    source = _ASSERT_SOURCE.pack(1, 0, message.source.packed)
    return _sealed(_ASSERT, group + source + _METRIC.pack(message.preference, message.metric))


def _sealed(kind: int, body: bytes) -> bytes:
    head = bytes((_VERSION << 4 | kind, 0))
    return head + checksum(head + b"\0\0" + body).to_bytes(2, "big") + body


def parse(data: bytes | memoryview) -> Hello | Assert | None:
    """A PIM message without its IP header; None for what is damaged or not for us."""
    data = bytes(data)
    if len(data) < 4 or data[0] >> 4 != _VERSION or checksum(data):
        return None
    kind = data[0] & 15
    if kind == _HELLO:
        return _hello(data[4:])
    return _assertion(data[4:]) if kind == _ASSERT else None


def _hello(body: bytes) -> Hello | None:
    holdtime, generation, level = 105, 0, 0
    offset = 0
    for _ in range(MAX_OPTIONS):
        if offset + _OPTION.size > len(body):
            break
        option, length = _OPTION.unpack_from(body, offset)
        value = body[offset + _OPTION.size : offset + _OPTION.size + length]
        if len(value) != length:
            return None
        offset += _OPTION.size + length
        number = int.from_bytes(value[:4], "big")
        if option == _HOLDTIME and length == 2:
            holdtime = number
        elif option == _GENERATION and length == 4:
            generation = number
        elif option == _LEVEL and length == 1:
            level = number
    return Hello(holdtime, generation, level)


def _assertion(body: bytes) -> Assert | None:
    if len(body) < _ASSERT_GROUP.size + _ASSERT_SOURCE.size + _METRIC.size:
        return None
    family, _, _, mask, group = _ASSERT_GROUP.unpack_from(body)
    source_family, _, source = _ASSERT_SOURCE.unpack_from(body, _ASSERT_GROUP.size)
    if (family, source_family, mask) != (1, 1, 32):
        return None
    preference, metric = _METRIC.unpack_from(body, _ASSERT_GROUP.size + _ASSERT_SOURCE.size)
    return Assert(IPv4Address(source), IPv4Address(group), preference, metric)
