"""One IPv6 frame across the crypto map, from buffer to buffer, as labctl.dataplane.crossing does it with IPv4.

Each way gives the octets that now stand in `target`; 0 for a frame that goes the long way, through CryptoPolicy. What
the two ways give is the same to the octet.
"""

from __future__ import annotations

import struct

from labctl.esp.flows_ipv6 import ADDRESSES, UNKNOWABLE, KnownIpv6Flows
from labctl.esp.ip import IPV6_HEADER, PROTOCOL_ESP, PROTOCOL_IPV6
from labctl.kernel.vnet import ETHERNET

# A header, and ports behind it.
_SHORTEST = IPV6_HEADER + 4
_ESP = ETHERNET + IPV6_HEADER

# MACs, ethertype | version, traffic class, flow label | length | next header | hop limit | addresses, ports or SPI.
_READ = struct.Struct("!14sIHBB36s")
_INNER = struct.Struct("!IHBx36s")
_WRITE = struct.Struct("!14sIHBB32s")

# Ethertype, and the first four bits behind it.
ETHERTYPE_AND_VERSION = 0x86DD6

_CONGESTED = 3 << 20


class Ipv6Crossing:
    """The flows of one policy. Both raise DropPacket, for the packet at source[start + ETHERNET:]."""

    def __init__(self, flows: KnownIpv6Flows) -> None:
        self._flows = flows
        self._hits = flows.policy.hits

    def outbound(self, source: memoryview, start: int, size: int, target: memoryview, place: int) -> int:
        """A frame of the kernel's side."""
        head, first, length, protocol, hop_limit, ends = _READ.unpack_from(source, start)
        total = length + IPV6_HEADER
        if not _SHORTEST <= total <= size - ETHERNET:
            return 0
        begin = start + ETHERNET
        finish = begin + total
        flow = self._flows.outbound.get(ends)
        if flow is None or flow.protocol != protocol:
            flow = self._flows.find_outbound(ends, protocol, source[begin:finish])
        if flow is None or total > flow.room:
            return 0
        self._hits[flow.index] += 1
        association = flow.association
        if association is None:
            target[place : place + size] = source[start : start + size]
            return size
        end = association.seal_into(source, begin, finish, target, place + _ESP, PROTOCOL_IPV6)
        _WRITE.pack_into(target, place, head, first, end - place - _ESP, PROTOCOL_ESP, hop_limit, flow.addresses)
        return end - place

    def inbound(self, source: memoryview, start: int, size: int, target: memoryview, place: int) -> int:
        """A frame of the wire."""
        flows = self._flows
        head, first, length, protocol, _, ends = _READ.unpack_from(source, start)
        total = length + IPV6_HEADER
        if not _SHORTEST <= total <= size - ETHERNET:
            return 0
        begin = start + ETHERNET
        finish = begin + total
        if protocol != PROTOCOL_ESP:
            if flows.clear.get(ends) == protocol or flows.find_clear(ends, protocol, source[begin:finish]):
                target[place : place + size] = source[start : start + size]
                return size
            return 0
        association = flows.associations.get(ends) or flows.find_association(ends)
        if association is None:
            return 0
        at = place + ETHERNET
        end = association.open_into(source, begin + IPV6_HEADER, finish, target, at, PROTOCOL_IPV6)
        total = end - at
        inner_first, length, protocol, inner_ends = _INNER.unpack_from(target, at)
        if (
            inner_first >> 28 == 6
            and length + IPV6_HEADER == total >= _SHORTEST
            and protocol not in UNKNOWABLE
            and first & _CONGESTED != _CONGESTED
            and inner_ends[:ADDRESSES] == ends[:ADDRESSES]
        ):
            association.count_in(total)
            flow = flows.opened.get(inner_ends)
            if flow is None or flow.protocol != protocol or flow.outer != ends:
                flows.check_opened(ends, inner_ends, protocol, target[at:end])
        else:
            inner = association.accept(source[begin:finish], bytes(target[at:end]))
            flows.policy.check_selectors(association.spi, memoryview(inner))
            target[at:end] = inner
        target[place:at] = head
        return end - place
