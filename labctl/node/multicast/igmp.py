"""IGMP messages: queries and membership reports of versions 1 to 3 (RFC 1112, RFC 2236, RFC 3376 4)."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address

from labctl.node.multicast.checksum import checksum

QUERY, V1_REPORT, V2_REPORT, V2_LEAVE, V3_REPORT = 0x11, 0x12, 0x16, 0x17, 0x22

# Group record types (RFC 3376 4.2.12).
IS_INCLUDE, IS_EXCLUDE, TO_INCLUDE, TO_EXCLUDE, ALLOW_NEW, BLOCK_OLD = range(1, 7)

ALL_SYSTEMS = IPv4Address("224.0.0.1")
ALL_ROUTERS = IPv4Address("224.0.0.2")
ALL_V3_ROUTERS = IPv4Address("224.0.0.22")
NO_GROUP = IPv4Address("0.0.0.0")

_GROUPS = range(int(IPv4Address("224.0.0.0")), int(IPv4Address("239.255.255.255")) + 1)
_LINK_LOCAL = range(int(IPv4Address("224.0.0.0")), int(IPv4Address("224.0.0.255")) + 1)

# A report of a full Ethernet frame has some 180 records; no host of ours is in more groups than this.
MAX_RECORDS = 256

_SHORT = struct.Struct("!BBH4s")
_QUERY = struct.Struct("!BBH4sBBH")
_RECORD = struct.Struct("!BBH4s")


@dataclass(frozen=True, slots=True)
class Query:
    """`group` is None in a general query. Seconds."""

    group: IPv4Address | None
    response: float
    suppress: bool = False


@dataclass(frozen=True, slots=True)
class Membership:
    """A host wants a group, or (`leaves`) perhaps nobody does any more."""

    group: IPv4Address
    leaves: bool = False


def is_routed(group: IPv4Address) -> bool:
    """True for groups that routers carry at all: 224.0.0.0/24 stays on its link (RFC 5771 4)."""
    return int(group) in _GROUPS and int(group) not in _LINK_LOCAL


def parse(data: bytes | memoryview) -> Query | list[Membership] | None:
    """An IGMP message without its IP header; None for what is damaged, unknown or too long."""
    data = bytes(data)
    if len(data) < _SHORT.size or checksum(data):
        return None
    kind, code, _, address = _SHORT.unpack_from(data)
    group = IPv4Address(address)
    if kind == QUERY:
        return _query(data, code, group)
    if kind in (V1_REPORT, V2_REPORT):
        return [Membership(group)] if is_routed(group) else []
    if kind == V2_LEAVE:
        return [Membership(group, leaves=True)] if is_routed(group) else []
    if kind == V3_REPORT:
        return _v3_report(data)
    return None


def _query(data: bytes, code: int, group: IPv4Address) -> Query | None:
    asked = None if group == NO_GROUP else group
    if asked is not None and not is_routed(asked):
        return None
    if len(data) == _SHORT.size:
        return Query(asked, code / 10 if code else 10.0)
    if len(data) < _QUERY.size:
        return None
    return Query(asked, _floating(code) / 10, bool(data[8] & 0x08))


def _floating(code: int) -> int:
    """The times of version 3: a mantissa and an exponent above 127 (RFC 3376 4.1.1)."""
    return code if code < 128 else (code & 15 | 16) << ((code >> 4 & 7) + 3)


def _v3_report(data: bytes) -> list[Membership] | None:
    found = []
    for count, (kind, sources, group) in enumerate(_records(data)):
        if count == MAX_RECORDS:
            return None
        if not is_routed(group):
            continue
        # Who excludes sources wants the group; who includes some wants these: we hand out groups, hosts pick.
        if kind in (IS_EXCLUDE, TO_EXCLUDE) or (kind in (IS_INCLUDE, TO_INCLUDE, ALLOW_NEW) and sources):
            found.append(Membership(group))
        elif kind == TO_INCLUDE or (kind == BLOCK_OLD and sources):
            found.append(Membership(group, leaves=True))
    return found


def _records(data: bytes) -> Iterator[tuple[int, int, IPv4Address]]:
    """Type, number of sources and group of each record that is whole."""
    offset = _SHORT.size
    for _ in range(int.from_bytes(data[6:8], "big")):
        if offset + _RECORD.size > len(data):
            return
        kind, auxiliary, sources, group = _RECORD.unpack_from(data, offset)
        offset += _RECORD.size + 4 * (sources + auxiliary)
        if offset > len(data):
            return
        yield kind, sources, IPv4Address(group)


def query(group: IPv4Address | None, response: float, interval: float, robustness: int) -> bytes:
    """A version 3 query (RFC 3376 4.1); every version answers it."""
    tenths = min(127, max(1, round(response * 10)))
    seconds = min(127, round(interval))
    body = _QUERY.pack(QUERY, tenths, 0, (group or NO_GROUP).packed, robustness & 7, seconds, 0)
    return body[:2] + checksum(body).to_bytes(2, "big") + body[4:]
