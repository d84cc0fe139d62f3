"""Batches of frames from one side of a crypto map to the other.

One pass over a frame: read its headers at once, look its flow up, seal or open from the memory it came in to the memory
it leaves from, write its headers at once. No object lives longer than the frame, and flows keep their order, because a
batch does. What is not known well enough (labctl.esp.flows) goes through CryptoPolicy, in its turn.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Callable

from labctl.dataplane.crossing_ipv6 import ETHERTYPE_AND_VERSION, Ipv6Crossing
from labctl.dataplane.memory import Frames
from labctl.dataplane.transmit import Transmitter
from labctl.esp import CryptoPolicy, DropPacket, DropReason, ip
from labctl.esp.flows import KnownFlows
from labctl.esp.flows_ipv6 import KnownIpv6Flows
from labctl.esp.ip import PROTOCOL_ESP, PROTOCOL_IPV4
from labctl.esp.policy import VerdictAction
from labctl.kernel.vnet import ETHERNET

ETHERTYPE_IPV4, ETHERTYPE_IPV6 = 0x0800, 0x86DD

# A header of IPv4 without options, and ports behind it.
_HEADER = 20
_SHORTEST = _HEADER + 8

# Where ESP begins in a frame that we make.
_ESP = ETHERNET + _HEADER

# MACs | ethertype, version, header length, TOS | total length | flags, offset | TTL, protocol | both addresses, and two
# ports or an SPI. Between them identification and checksum, which nothing depends on.
_READ = struct.Struct("!12sIH2xHH2x12s")
# The same behind the MACs: TOS left out, protocol alone.
_INNER = struct.Struct("!BxH2xHxB2x12s")
# MACs | as above | length | identification | flags | TTL, protocol | checksum | addresses.
_WRITE = struct.Struct("!12sIHHHHH8s")
_MACS = struct.Struct("!12sH")
_VERSION_4_WITHOUT_OPTIONS = 0x45
_IPV4_WITHOUT_OPTIONS = 0x080045
_FRAGMENT = 0x3FFF

OUTBOUND, INBOUND = "outbound", "inbound"

OnDrop = Callable[[DropReason, memoryview], None]


class Crossing:
    """One policy at a time, both ways. Drops are counted here, and what could not be sent."""

    def __init__(self, policy: CryptoPolicy | None, on_drop: OnDrop | None) -> None:
        self.drops: Counter[str] = Counter()
        self._on_drop = on_drop
        self._flows: KnownFlows | None = None
        self._ipv6: Ipv6Crossing | None = None
        self.install(policy)

    def install(self, policy: CryptoPolicy | None) -> None:
        """The policy that counts from the next frame on; None lets everything pass."""
        self.policy = policy
        self._flows = None if policy is None else KnownFlows(policy)
        self._ipv6 = None if policy is None else Ipv6Crossing(KnownIpv6Flows(policy))

    def outbound(self, source: memoryview, frames: Frames, out: Transmitter, back: Transmitter) -> None:
        """Frames of the kernel's side, in `source`, to the wire. `back` is for what goes back to the kernel."""
        flows = self._flows
        if flows is None:
            self._copy(source, frames, out, OUTBOUND)
            return
        known, hits, read = flows.outbound.get, flows.policy.hits, _READ.unpack_from
        target, places, sizes, capacity = out.buffer, out.places, out.sizes, out.capacity
        df_kept, df_set = flows.df_masks
        number = 0
        rest = iter(frames)
        for start, size in rest:
            if number == capacity:
                number = self._send(out, number, OUTBOUND)
            macs, word, total, fragment, life, ends = read(source, start)
            if (
                word >> 8 == _IPV4_WITHOUT_OPTIONS
                and not fragment & _FRAGMENT
                and _SHORTEST <= total <= size - ETHERNET
            ):
                begin = start + ETHERNET
                finish = begin + total
                flow = known(ends)
                if flow is None or flow.protocol != life & 0xFF:
                    flow = flows.find_outbound(ends, life & 0xFF, source[begin:finish])
                if flow is not None and total <= flow.room:
                    hits[flow.index] += 1
                    place = places[number]
                    association = flow.association
                    if association is None:
                        target[place : place + size] = source[start : start + size]
                        sizes[number] = size
                        number += 1
                        continue
                    try:
                        end = association.seal_into(source, begin, finish, target, place + _ESP, PROTOCOL_IPV4)
                    except DropPacket as drop:
                        self._drop(drop.reason, source[begin:finish])
                        if self._flows is flows:
                            continue
                        break
                    association.identification = identification = (association.identification + 1) & 0xFFFF
                    total = end - place - ETHERNET
                    fragment = fragment & df_kept | df_set
                    life = life & 0xFF00 | PROTOCOL_ESP
                    check = flow.addresses_sum + (word & 0xFFFF) + total + identification + fragment + life
                    check = (check & 0xFFFF) + (check >> 16)
                    check = (check & 0xFFFF) + (check >> 16) ^ 0xFFFF
                    _WRITE.pack_into(
                        target, place, macs, word, total, identification, fragment, life, check, flow.addresses
                    )
                    sizes[number] = end - place
                    number += 1
                    continue
            elif word >> 12 == ETHERTYPE_AND_VERSION and self._ipv6 is not None:
                try:
                    octets = self._ipv6.outbound(source, start, size, target, places[number])
                except DropPacket as drop:
                    self._drop_ipv6(drop.reason, source, start)
                    if self._flows is flows:
                        continue
                    break
                if octets:
                    sizes[number] = octets
                    number += 1
                    continue
            number = self._slow(source[start : start + size], out, back, number, OUTBOUND)
            if self._flows is not flows:
                break
        self._send(out, number, OUTBOUND)
        if self._flows is not flows:  # what heard of a drop installed another policy
            self.outbound(source, list(rest), out, back)

    def inbound(self, source: memoryview, frames: Frames, out: Transmitter, back: Transmitter) -> None:
        """Frames of the wire, in `source`, to the kernel's side."""
        flows = self._flows
        if flows is None:
            self._copy(source, frames, out, INBOUND)
            return
        associations, opened, clear = flows.associations.get, flows.opened.get, flows.clear.get
        read, read_inner = _READ.unpack_from, _INNER.unpack_from
        target, places, sizes, capacity = out.buffer, out.places, out.sizes, out.capacity
        number = 0
        rest = iter(frames)
        for start, size in rest:
            if number == capacity:
                number = self._send(out, number, INBOUND)
            macs, word, total, fragment, life, ends = read(source, start)
            if (
                word >> 8 == _IPV4_WITHOUT_OPTIONS
                and not fragment & _FRAGMENT
                and _SHORTEST <= total <= size - ETHERNET
            ):
                place = places[number]
                begin = start + ETHERNET
                finish = begin + total
                protocol = life & 0xFF
                if protocol == PROTOCOL_ESP and (
                    (association := associations(ends) or flows.find_association(ends)) is not None
                ):
                    at = place + ETHERNET
                    try:
                        end = association.open_into(source, begin + _HEADER, finish, target, at, PROTOCOL_IPV4)
                        total = end - at
                        version, length, fragment, protocol, inner_ends = read_inner(target, at)
                        if (
                            version == _VERSION_4_WITHOUT_OPTIONS
                            and length == total >= _SHORTEST
                            and not fragment & _FRAGMENT
                            and word & ip.ECN_MASK != ip.ECN_CE
                            and inner_ends[:8] == ends[:8]
                        ):
                            association.packets_in += 1
                            association.octets_in += total
                            flow = opened(inner_ends)
                            if flow is None or flow.protocol != protocol or flow.outer != ends:
                                flows.check_opened(ends, inner_ends, protocol, target[at:end])
                        else:
                            inner = association.accept(source[begin:finish], bytes(target[at:end]))
                            flows.policy.check_selectors(association.spi, memoryview(inner))
                            target[at:end] = inner
                            flows.policy.tunnel.adjust(target[at:end])
                    except DropPacket as drop:
                        self._drop(drop.reason, source[begin:finish])
                        if self._flows is flows:
                            continue
                        break
                    _MACS.pack_into(target, place, macs, ETHERTYPE_IPV4)
                    sizes[number] = end - place
                    number += 1
                    continue
                if clear(ends) == protocol or flows.find_clear(ends, protocol, source[begin:finish]):
                    target[place : place + size] = source[start : start + size]
                    sizes[number] = size
                    number += 1
                    continue
            elif word >> 12 == ETHERTYPE_AND_VERSION and self._ipv6 is not None:
                try:
                    octets = self._ipv6.inbound(source, start, size, target, places[number])
                except DropPacket as drop:
                    self._drop_ipv6(drop.reason, source, start)
                    if self._flows is flows:
                        continue
                    break
                if octets:
                    sizes[number] = octets
                    number += 1
                    continue
            number = self._slow(source[start : start + size], out, back, number, INBOUND)
            if self._flows is not flows:
                break
        self._send(out, number, INBOUND)
        if self._flows is not flows:  # what heard of a drop installed another policy
            self.inbound(source, list(rest), out, back)

    def _slow(self, frame: memoryview, out: Transmitter, back: Transmitter, number: int, way: str) -> int:
        """A frame of no known flow. Takes its number in the batch, returns that of the next."""
        policy = self.policy
        kind = int.from_bytes(frame[12:14], "big")
        if policy is None or kind not in (ETHERTYPE_IPV4, ETHERTYPE_IPV6):
            return self._put(out, number, way, frame)
        packet = _without_padding(frame, kind)
        policy.tunnel.adjust(packet)
        verdict = policy.outbound(packet) if way == OUTBOUND else policy.inbound(packet)
        if verdict.action is VerdictAction.CLEAR and verdict.packets[0] is packet:
            return self._put(out, number, way, frame)
        for item in verdict.packets:
            number = self._put(out, number, way, frame[:ETHERNET], policy.tunnel.adjusted(item))
        if verdict.back is not None:
            back.send_now(frame[6:12], frame[:6], frame[12:14], verdict.back)
        if verdict.reason is not None:
            self._drop(verdict.reason, packet if verdict.dropped is None else memoryview(verdict.dropped))
        if policy.tunnel.take_change() and self.policy is policy:
            self.install(policy)
        return number

    def _copy(self, source: memoryview, frames: Frames, out: Transmitter, way: str) -> None:
        number = 0
        for start, size in frames:
            number = self._put(out, number, way, source[start : start + size])
        self._send(out, number, way)

    def _put(self, out: Transmitter, number: int, way: str, *parts: memoryview | bytes) -> int:
        if number == out.capacity:
            number = self._send(out, number, way)
        if not out.put(number, *parts):
            self.drops[f"{way}-lost"] += 1
            return number
        return number + 1

    def _send(self, out: Transmitter, number: int, way: str) -> int:
        if number and (lost := out.send(number)):
            self.drops[f"{way}-lost"] += lost
        return 0

    def _drop_ipv6(self, reason: DropReason, source: memoryview, start: int) -> None:
        begin = start + ETHERNET
        length = int.from_bytes(source[begin + 4 : begin + 6], "big")
        self._drop(reason, source[begin : begin + ip.IPV6_HEADER + length])

    def _drop(self, reason: DropReason, packet: memoryview) -> None:
        self.drops[reason.value] += 1
        if self._on_drop is not None:
            self._on_drop(reason, packet)


def _without_padding(frame: memoryview, kind: int) -> memoryview:
    """The IP packet of a frame, without what Ethernet pads short frames with."""
    size = int.from_bytes(frame[16:18], "big") if kind == ETHERTYPE_IPV4 else int.from_bytes(frame[18:20], "big") + 40
    end = ETHERNET + size
    return frame[ETHERNET:end] if ETHERNET < end <= len(frame) else frame[ETHERNET:]
