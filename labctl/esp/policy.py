"""The policy of a group on a crypto interface: which packet is encrypted, passes in clear, or is dropped.

Entries are tried in order, the first match counts; no match passes in clear (reference 6.2), or not at all while the
policy is closed (fail-close). Inbound, a clear packet whose mirror the policy encrypts is dropped (symmetry), unless
the entry accepts it: reference/cisco-getvpn.md 2.6, 2.7.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from labctl.configuration import AccessListEntry, Action
from labctl.esp import ip, ipv6
from labctl.esp.association import SecurityAssociation
from labctl.esp.errors import DropPacket, DropReason
from labctl.esp.exemptions import Exemptions
from labctl.esp.reassembly import is_fragment_of
from labctl.esp.selectors import Flow, Matcher, read_flow
from labctl.esp.tunnel import Tunnel, interfaces_of

# Flows whose decision is remembered; the cache starts over when it is full.
MAX_FLOWS = 65_536

_TELLS_OF_PATHS = frozenset((ip.PROTOCOL_ICMP, ip.PROTOCOL_ICMPV6))

# What decides a flow that no entry does.
NO_MATCH, EXEMPT = -1, -2


class VerdictAction(Enum):
    """What becomes of a packet."""

    CLEAR = "clear"
    ESP = "esp"
    DROP = "drop"
    HELD = "held"


class Verdict(NamedTuple):
    """`packets` go on in the direction of travel; `back` goes back where the packet came from (ICMP).

    HELD: it is one part of what is yet to come, or was for us. `dropped` is what `reason` is about, where that is not
    the packet that came.
    """

    action: VerdictAction
    packets: Sequence[bytes | memoryview] = ()
    reason: DropReason | None = None
    back: bytes | None = None
    dropped: bytes | None = None


@dataclass(frozen=True, slots=True)
class PolicyEntry:
    """One entry. A PERMIT sends under `spi` (None: no key, drop) and accepts all of `accepted`.

    With `send_clear` (receive-only) it sends as if it were no entry; with `accept_clear` (receive-only, passive) it
    takes packets that are not encrypted, too.
    """

    entry: AccessListEntry
    spi: int | None = None
    accepted: frozenset[int] = frozenset()
    send_clear: bool = False
    accept_clear: bool = False


class CryptoPolicy:
    """Entries with their SAs. `tunnel` is the interface's; without one it has `mtu`, and ICMP errors come from `own`.

    `hits` counts the packets of each entry; its last place, packets that no entry decided.

    `closed` has the versions of IP of which what no entry matches is dropped, both ways (fail-close): nothing but
    `exemptions` passes beside DENYs.
    """

    def __init__(
        self,
        entries: Sequence[PolicyEntry],
        associations: Mapping[int, SecurityAssociation],
        *,
        own: Sequence[bytes] = (),
        exemptions: Exemptions | None = None,
        closed: Collection[int] = (),
        mtu: int = 1500,
        tunnel: Tunnel | None = None,
    ) -> None:
        self.entries = tuple(entries)
        self.associations = dict(associations)
        self.closed = frozenset(closed)
        self.hits = [0] * (len(self.entries) + 1)
        self._exemptions = exemptions or Exemptions()
        self.tunnel = Tunnel(mtu, interfaces_of(own)) if tunnel is None else tunnel
        self._outbound = [Matcher(entry.entry) for entry in self.entries]
        self._inbound = [Matcher(entry.entry.mirrored()) for entry in self.entries]
        self._by_ports = any(entry.entry.source_port or entry.entry.destination_port for entry in self.entries)
        self._cache: dict[bytes, int] = {}

    def succeed(self, previous: CryptoPolicy) -> None:
        """Go on with the counts of the entries that the previous policy had as well."""
        known: dict[tuple[AccessListEntry, int], int] = {}
        for index, place in enumerate(_places(previous.entries)):
            known[place] = previous.hits[index]
        for index, place in enumerate(_places(self.entries)):
            if known.get(place):
                self.hits[index] = known[place]

    def outbound(self, packet: bytes | memoryview) -> Verdict:
        """A packet that the kernel sends."""
        view = memoryview(packet)
        try:
            ip.check_packet(view)
            index = self.decide(view)
            if index == EXEMPT:
                return Verdict(VerdictAction.CLEAR, (packet,))
            if index == NO_MATCH:
                return self._unmatched(packet)
            self.hits[index] += 1
            chosen = self.entries[index]
            if chosen.entry.action is Action.DENY or chosen.send_clear:
                return Verdict(VerdictAction.CLEAR, (packet,))
            association = None if chosen.spi is None else self.associations.get(chosen.spi)
            if association is None:
                return Verdict(VerdictAction.DROP, reason=DropReason.NO_SA)
            return Verdict(VerdictAction.ESP, self.tunnel.protect(view, association))
        except DropPacket as drop:
            return Verdict(VerdictAction.DROP, reason=drop.reason, back=drop.back)

    def inbound(self, packet: bytes | memoryview) -> Verdict:
        """A packet that came off the wire."""
        view = memoryview(packet)
        try:
            ip.check_packet(view)
            if is_fragment_of(view, ip.PROTOCOL_ESP):
                return self._reassemble(view)
            flow = read_flow(view)
            if flow.protocol == ip.PROTOCOL_ESP:
                return self._open(view, flow)
            if flow.protocol in _TELLS_OF_PATHS and self.tunnel.learn(view, self.associations):
                return Verdict(VerdictAction.HELD)
            if self._exemptions.passes(view, flow, outbound=False):
                return Verdict(VerdictAction.CLEAR, (packet,))
            expected = self._expected(flow)
            if expected is None:
                return self._unmatched(packet)
            if expected.entry.action is Action.PERMIT and not expected.accept_clear:
                return Verdict(VerdictAction.DROP, reason=DropReason.NOT_IPSEC)
            return Verdict(VerdictAction.CLEAR, (packet,))
        except DropPacket as drop:
            return Verdict(VerdictAction.DROP, reason=drop.reason)

    def _unmatched(self, packet: bytes | memoryview) -> Verdict:
        if packet[0] >> 4 in self.closed:
            return Verdict(VerdictAction.DROP, reason=DropReason.FAIL_CLOSE)
        return Verdict(VerdictAction.CLEAR, (packet,))

    def _expected(self, flow: Flow) -> PolicyEntry | None:
        """The entry that an inbound flow should have been sent by."""
        return next(
            (entry for entry, matcher in zip(self.entries, self._inbound, strict=True) if matcher.matches(flow)), None
        )

    def decide(self, view: memoryview) -> int:
        """The index of the entry that matches an outbound packet, or NO_MATCH, EXEMPT; remembered by flow."""
        key: bytes | None
        if view[0] >> 4 == 4:
            key = bytes(view[8:10]) + bytes(view[12:20])
            if self._by_ports or view[9] == ip.PROTOCOL_UDP:
                # Header length and fragment offset decide where, and whether, there are ports.
                header = (view[0] & 15) * 4
                key += bytes(view[0:1]) + bytes(view[6:8]) + bytes(view[header : header + 4])
        else:
            key = ipv6.decision_key(view)
        found = None if key is None else self._cache.get(key)
        if found is not None:
            return found
        flow = read_flow(view)
        index = EXEMPT
        if not self._exemptions.passes(view, flow, outbound=True):
            index = next((number for number, item in enumerate(self._outbound) if item.matches(flow)), NO_MATCH)
        if len(self._cache) >= MAX_FLOWS:
            self._cache.clear()
        if key is not None:
            self._cache[key] = index
        return index

    def _reassemble(self, view: memoryview) -> Verdict:
        whole = self.tunnel.reassemble(view)
        if whole is None:
            return Verdict(VerdictAction.HELD)
        packet = memoryview(whole.packet)
        try:
            verdict = self._open(packet, read_flow(packet))
            if verdict.packets[0] is packet:  # of the hosts themselves, who put it together
                return Verdict(VerdictAction.CLEAR, whole.fragments)
            return Verdict(VerdictAction.CLEAR, self.tunnel.fit_inside(bytes(verdict.packets[0])))
        except DropPacket as drop:
            return Verdict(VerdictAction.DROP, reason=drop.reason, dropped=whole.packet)

    def _open(self, view: memoryview, flow: Flow) -> Verdict:
        start = (view[0] & 15) * 4
        if flow.version == 6:
            chain = ipv6.read_chain(view)
            if chain.fragment:  # behind other headers: only what a member splits is put together
                raise DropPacket(DropReason.MALFORMED, "a fragment of ESP behind other headers")
            start = chain.start
        if len(view) < start + 4:
            raise DropPacket(DropReason.MALFORMED)
        spi = int.from_bytes(view[start : start + 4], "big")
        association = self.associations.get(spi)
        if association is None:
            # ESP of the hosts themselves passes where the policy says so.
            outer = self._expected(flow)
            if outer is not None and outer.entry.action is Action.DENY:
                return Verdict(VerdictAction.CLEAR, (view,))
            raise DropPacket(DropReason.INVALID_SPI)
        inner = association.decapsulate(view, start)
        self.check_selectors(spi, memoryview(inner))
        return Verdict(VerdictAction.CLEAR, (inner,))

    def check_selectors(self, spi: int, inner: memoryview) -> None:
        """Raises DropPacket unless an entry accepts this packet under this SPI."""
        flow = read_flow(inner)
        for entry, direct, mirrored in zip(self.entries, self._outbound, self._inbound, strict=True):
            if spi in entry.accepted and (direct.matches(flow) or mirrored.matches(flow)):
                return
        raise DropPacket(DropReason.SELECTOR_MISMATCH)


def _places(entries: Sequence[PolicyEntry]) -> Iterator[tuple[AccessListEntry, int]]:
    """Each entry with how many equal ones stand before it."""
    seen: Counter[AccessListEntry] = Counter()
    for item in entries:
        yield item.entry, seen[item.entry]
        seen[item.entry] += 1
