"""Batches of frames from one side of a crypto map to the other.

One pass over a frame: read its headers at once, look its flow up, seal or open from the memory it came in to the memory
it leaves from, write its headers at once. No object lives longer than the frame, and flows keep their order, because a
batch does. What is not known well enough (labctl.esp.flows) goes through CryptoPolicy, in its turn.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Callable

from labctl.dataplane.receive import ETHERNET, Frames
from labctl.dataplane.transmit import Transmitter
from labctl.esp import CryptoPolicy, DropPacket, DropReason, SecurityAssociation, ip
from labctl.esp.flows import KnownFlows
from labctl.esp.ip import DF, PORT_PROTOCOLS, PROTOCOL_ESP, PROTOCOL_IPV4
from labctl.esp.policy import VerdictAction

ETHERTYPE_IPV4, ETHERTYPE_IPV6 = 0x0800, 0x86DD

# The longest IPv4 header that is known well enough, and ports behind it.
_HEADER = 20
_SHORTEST = _HEADER + 8

# MACs, ethertype | version, length, TOS | length | identification | flags, offset | TTL, protocol | checksum |
# both addresses | two ports, or an SPI.
_READ = struct.Struct("!12sHHHHHHHQI")
_WRITE = struct.Struct("!12sHHHHHHHQ")
_MACS = struct.Struct("!12sH")
_VERSION_4_NO_OPTIONS = 0x45
_FRAGMENT = 0x3FFF

# Where ESP begins in a frame that we make.
_ESP = ETHERNET + _HEADER

OUTBOUND, INBOUND = "outbound", "inbound"

OnDrop = Callable[[DropReason, memoryview], None]


class Crossing:
    """One policy at a time, both ways. Drops are counted here, and what could not be sent."""

    def __init__(self, policy: CryptoPolicy | None, on_drop: OnDrop | None) -> None:
        self.drops: Counter[str] = Counter()
        self._on_drop = on_drop
        self._flows: KnownFlows | None = None
        self.install(policy)

    def install(self, policy: CryptoPolicy | None) -> None:
        """The policy that counts from the next frame on; None lets everything pass."""
        self.policy = policy
        self._flows = None if policy is None else KnownFlows(policy)

    def outbound(self, source: memoryview, frames: Frames, out: Transmitter, back: Transmitter) -> None:
        """Frames of the kernel's side, in `source`, to the wire. `back` is for what goes back to the kernel."""
        flows = self._flows
        if flows is None:
            self._copy(source, frames, out, OUTBOUND)
            return
        known, hits, read = flows.outbound, flows.policy.hits, _READ.unpack_from
        target, places, sizes, capacity = out.buffer, out.places, out.sizes, out.capacity
        number = 0
        rest = iter(frames)
        for start, size in rest:
            if number == capacity:
                number = self._send(out, number, OUTBOUND)
            macs, kind, first, total, identification, fragment, life, _, addresses, ports = read(source, start)
            if (
                kind == ETHERTYPE_IPV4
                and first >> 8 == _VERSION_4_NO_OPTIONS
                and _SHORTEST <= total <= size - ETHERNET
                and not fragment & _FRAGMENT
            ):
                begin = start + ETHERNET
                protocol = life & 0xFF
                key = (addresses, protocol, ports) if protocol in PORT_PROTOCOLS else (addresses, protocol)
                flow = known.get(key) or flows.learn_outbound(key, source[begin : begin + total])
                if flow is not None and total <= flow.room:
                    hits[flow.index] += 1
                    place = places[number]
                    association = flow.association
                    if association is None:
                        target[place : place + size] = source[start : start + size]
                        sizes[number + number] = size
                        number += 1
                        continue
                    finish = begin + total
                    try:
                        end = association.seal_into(source, begin, finish, target, place + _ESP, PROTOCOL_IPV4)
                    except DropPacket as drop:
                        self._drop(drop.reason, source[begin:finish])
                        if self._flows is flows:
                            continue
                        break
                    association.identification = identification = (association.identification + 1) & 0xFFFF
                    total = end - place - ETHERNET
                    fragment &= DF
                    life = life & 0xFF00 | PROTOCOL_ESP
                    check = flow.addresses_sum + first + total + identification + fragment + life
                    check = (check & 0xFFFF) + (check >> 16)
                    check = (check & 0xFFFF) + (check >> 16) ^ 0xFFFF
                    _WRITE.pack_into(
                        target, place, macs, kind, first, total, identification, fragment, life, check, addresses
                    )
                    sizes[number + number] = end - place
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
        associations, clear, read = flows.policy.associations, flows.clear, _READ.unpack_from
        target, places, sizes, capacity = out.buffer, out.places, out.sizes, out.capacity
        number = 0
        rest = iter(frames)
        for start, size in rest:
            if number == capacity:
                number = self._send(out, number, INBOUND)
            macs, kind, first, total, _, fragment, life, _, addresses, ports = read(source, start)
            if (
                kind == ETHERTYPE_IPV4
                and first >> 8 == _VERSION_4_NO_OPTIONS
                and _SHORTEST <= total <= size - ETHERNET
                and not fragment & _FRAGMENT
            ):
                place = places[number]
                protocol = life & 0xFF
                if protocol == PROTOCOL_ESP and (association := associations.get(ports)) is not None:
                    at, begin = place + ETHERNET, start + ETHERNET
                    finish = begin + total
                    try:
                        end = association.open_into(source, begin + _HEADER, finish, target, at, PROTOCOL_IPV4)
                        end = self._accept(flows, association, addresses, first, source, begin, target, place, end)
                    except DropPacket as drop:
                        self._drop(drop.reason, source[begin:finish])
                        if self._flows is flows:
                            continue
                        break
                    _MACS.pack_into(target, place, macs, kind)
                    sizes[number + number] = end - place
                    number += 1
                    continue
                key = (addresses, protocol, ports) if protocol in PORT_PROTOCOLS else (addresses, protocol)
                if key in clear or flows.learn_clear(key, source[start + ETHERNET : start + ETHERNET + total]):
                    target[place : place + size] = source[start : start + size]
                    sizes[number + number] = size
                    number += 1
                    continue
            number = self._slow(source[start : start + size], out, back, number, INBOUND)
            if self._flows is not flows:
                break
        self._send(out, number, INBOUND)
        if self._flows is not flows:  # what heard of a drop installed another policy
            self.inbound(source, list(rest), out, back)

    def _accept(
        self,
        flows: KnownFlows,
        association: SecurityAssociation,
        outer: int,
        outer_first: int,
        source: memoryview,
        begin: int,
        target: memoryview,
        place: int,
        end: int,
    ) -> int:
        """Look at what was opened to target[place + 14 : end], and return its end. Raises DropPacket.

        `outer` and `outer_first` are addresses and first word of the packet around it, which begins at source[begin].
        """
        _, _, first, total, _, fragment, life, _, addresses, ports = _READ.unpack_from(target, place)
        if (
            first >> 8 == _VERSION_4_NO_OPTIONS
            and _SHORTEST <= total == end - place - ETHERNET
            and not fragment & _FRAGMENT
            and addresses == outer
            and outer_first & ip.ECN_MASK != ip.ECN_CE
        ):
            association.packets_in += 1
            association.octets_in += total
            protocol, spi = life & 0xFF, association.spi
            key = (spi, addresses, protocol, ports) if protocol in PORT_PROTOCOLS else (spi, addresses, protocol)
            if key not in flows.opened:
                flows.learn_opened(key, target[place + ETHERNET : end])
            return end
        at = place + ETHERNET
        inner = association.accept(source[begin : begin + _HEADER], bytes(target[at:end]))
        flows.policy.check_selectors(association.spi, memoryview(inner))
        target[at:end] = inner
        return end

    def _slow(self, frame: memoryview, out: Transmitter, back: Transmitter, number: int, way: str) -> int:
        """A frame of no known flow. Takes its number in the batch, returns that of the next."""
        policy = self.policy
        kind = int.from_bytes(frame[12:14], "big")
        if policy is None or kind not in (ETHERTYPE_IPV4, ETHERTYPE_IPV6):
            return self._put(out, number, way, frame)
        packet = _without_padding(frame, kind)
        verdict = policy.outbound(packet) if way == OUTBOUND else policy.inbound(packet)
        if verdict.action is VerdictAction.CLEAR and verdict.packets[0] is packet:
            return self._put(out, number, way, frame)
        for item in verdict.packets:
            number = self._put(out, number, way, frame[:ETHERNET], item)
        if verdict.back is not None:
            back.send_now(frame[6:12], frame[:6], frame[12:14], verdict.back)
        if verdict.reason is not None:
            self._drop(verdict.reason, packet)
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

    def _drop(self, reason: DropReason, packet: memoryview) -> None:
        self.drops[reason.value] += 1
        if self._on_drop is not None:
            self._on_drop(reason, packet)


def _without_padding(frame: memoryview, kind: int) -> memoryview:
    """The IP packet of a frame, without what Ethernet pads short frames with."""
    size = int.from_bytes(frame[16:18], "big") if kind == ETHERTYPE_IPV4 else int.from_bytes(frame[18:20], "big") + 40
    end = ETHERNET + size
    return frame[ETHERNET:end] if ETHERNET < end <= len(frame) else frame[ETHERNET:]
