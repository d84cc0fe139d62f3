"""The policy of a group on a crypto interface: which packet is encrypted, passes in clear, or is dropped.

Entries are tried in order, the first match counts; no match passes in clear (reference 6.2). Inbound, a clear packet
whose mirror the policy encrypts is dropped (reference/cisco-getvpn.md 2.6: symmetry).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from labctl.configuration import AccessListEntry, Action
from labctl.esp import ip
from labctl.esp.association import SecurityAssociation
from labctl.esp.errors import DropPacket, DropReason

# Flows whose decision is remembered; the cache starts over when it is full.
MAX_FLOWS = 65_536

REGISTRATION_PORT = 848


class VerdictAction(Enum):
    """What becomes of a packet."""

    CLEAR = "clear"
    ESP = "esp"
    DROP = "drop"


class Verdict(NamedTuple):
    """`packets` go on in the direction of travel; `back` goes back where the packet came from (ICMP)."""

    action: VerdictAction
    packets: Sequence[bytes | memoryview] = ()
    reason: DropReason | None = None
    back: bytes | None = None


@dataclass(frozen=True, slots=True)
class PolicyEntry:
    """One entry. A PERMIT sends under `spi` (None: no key, drop) and accepts all of `accepted`."""

    entry: AccessListEntry
    spi: int | None = None
    accepted: frozenset[int] = frozenset()


class _Flow(NamedTuple):
    version: int
    source: int
    destination: int
    protocol: int
    source_port: int
    destination_port: int
    has_ports: bool


class _Matcher:
    """An entry with its numbers ready."""

    __slots__ = (
        "destination",
        "destination_mask",
        "destination_port",
        "policy_entry",
        "protocol",
        "source",
        "source_mask",
        "source_port",
        "version",
    )

    def __init__(self, policy_entry: PolicyEntry, entry: AccessListEntry) -> None:
        self.policy_entry = policy_entry
        self.version = entry.source.version
        self.source = int(entry.source.network_address)
        self.source_mask = int(entry.source.netmask)
        self.destination = int(entry.destination.network_address)
        self.destination_mask = int(entry.destination.netmask)
        self.protocol = entry.protocol
        self.source_port = entry.source_port
        self.destination_port = entry.destination_port

    def matches(self, flow: _Flow) -> bool:
        if flow.version != self.version or (self.protocol and flow.protocol != self.protocol):
            return False
        if flow.source & self.source_mask != self.source:
            return False
        if flow.destination & self.destination_mask != self.destination:
            return False
        # A fragment without ports matches entries of any port only (reference 6.4, choice).
        if self.source_port and (not flow.has_ports or flow.source_port != self.source_port):
            return False
        return not (self.destination_port and (not flow.has_ports or flow.destination_port != self.destination_port))


def read_flow(packet: memoryview) -> _Flow:
    """Addresses, protocol and ports of a packet that `ip.check_packet` accepted."""
    if packet[0] >> 4 == 4:
        header = (packet[0] & 15) * 4
        protocol = packet[9]
        later = int.from_bytes(packet[6:8], "big") & ip.OFFSET
        source = int.from_bytes(packet[12:16], "big")
        destination = int.from_bytes(packet[16:20], "big")
        version = 4
    else:
        header, protocol, later, version = ip.IPV6_HEADER, packet[6], 0, 6
        source = int.from_bytes(packet[8:24], "big")
        destination = int.from_bytes(packet[24:40], "big")
    has_ports = protocol in ip.PORT_PROTOCOLS and not later and len(packet) >= header + 4
    source_port = int.from_bytes(packet[header : header + 2], "big") if has_ports else 0
    destination_port = int.from_bytes(packet[header + 2 : header + 4], "big") if has_ports else 0
    return _Flow(version, source, destination, protocol, source_port, destination_port, has_ports)


class CryptoPolicy:
    """Entries with their SAs. `own` are the node's addresses: registration to and from them is never encrypted."""

    def __init__(
        self,
        entries: Sequence[PolicyEntry],
        associations: Mapping[int, SecurityAssociation],
        *,
        own: Sequence[bytes] = (),
        mtu: int = 1500,
    ) -> None:
        self.entries = tuple(entries)
        self.associations = dict(associations)
        self.hits: Counter[int] = Counter()
        self._own = frozenset(own)
        self._icmp_source = {len(address): address for address in reversed(own)}
        self._mtu = mtu
        self._outbound = [_Matcher(entry, entry.entry) for entry in self.entries]
        self._inbound = [_Matcher(entry, entry.entry.mirrored()) for entry in self.entries]
        self._by_ports = any(entry.entry.source_port or entry.entry.destination_port for entry in self.entries)
        self._cache: dict[bytes, int] = {}

    def outbound(self, packet: bytes | memoryview) -> Verdict:
        """A packet that the kernel sends."""
        view = memoryview(packet)
        try:
            ip.check_packet(view)
            index = self._decide(view)
            if index < 0:
                return Verdict(VerdictAction.CLEAR, (packet,))
            self.hits[index] += 1
            chosen = self.entries[index]
            if chosen.entry.action is Action.DENY:
                return Verdict(VerdictAction.CLEAR, (packet,))
            association = None if chosen.spi is None else self.associations.get(chosen.spi)
            if association is None:
                return Verdict(VerdictAction.DROP, reason=DropReason.NO_SA)
            return self._protect(view, association)
        except DropPacket as drop:
            return Verdict(VerdictAction.DROP, reason=drop.reason)

    def inbound(self, packet: bytes | memoryview) -> Verdict:
        """A packet that came off the wire."""
        view = memoryview(packet)
        try:
            ip.check_packet(view)
            flow = read_flow(view)
            if flow.protocol == ip.PROTOCOL_ESP:
                return self._open(view, flow)
            if self._is_registration(view, flow):
                return Verdict(VerdictAction.CLEAR, (packet,))
            expected = next((item for item in self._inbound if item.matches(flow)), None)
            if expected is not None and expected.policy_entry.entry.action is Action.PERMIT:
                return Verdict(VerdictAction.DROP, reason=DropReason.NOT_IPSEC)
            return Verdict(VerdictAction.CLEAR, (packet,))
        except DropPacket as drop:
            return Verdict(VerdictAction.DROP, reason=drop.reason)

    def _decide(self, view: memoryview) -> int:
        """The index of the entry that matches an outbound packet, -1 for none; remembered by flow."""
        if view[0] >> 4 == 4:
            key = bytes(view[9:10]) + bytes(view[12:20])
            if self._by_ports or view[9] == ip.PROTOCOL_UDP:
                # Header length and fragment offset decide where, and whether, there are ports.
                header = (view[0] & 15) * 4
                key += bytes(view[6:8]) + bytes(view[header : header + 4])
        else:
            key = bytes(view[6:7]) + bytes(view[8:44])
        found = self._cache.get(key)
        if found is not None:
            return found
        flow = read_flow(view)
        index = -1
        if not self._is_registration(view, flow):
            index = next((number for number, item in enumerate(self._outbound) if item.matches(flow)), -1)
        if len(self._cache) >= MAX_FLOWS:
            self._cache.clear()
        self._cache[key] = index
        return index

    def _is_registration(self, view: memoryview, flow: _Flow) -> bool:
        """UDP 848 of this very node: it must pass before there are keys."""
        if flow.protocol != ip.PROTOCOL_UDP or REGISTRATION_PORT not in (flow.source_port, flow.destination_port):
            return False
        if flow.version == 4:
            return bytes(view[12:16]) in self._own or bytes(view[16:20]) in self._own
        return bytes(view[8:24]) in self._own or bytes(view[24:40]) in self._own

    def _protect(self, view: memoryview, association: SecurityAssociation) -> Verdict:
        version = view[0] >> 4
        room = association.plaintext_mtu(self._mtu, version)
        if len(view) <= room:
            return Verdict(VerdictAction.ESP, (association.encapsulate(view),))
        source = self._icmp_source.get(4 if version == 4 else 16)
        if version == 6:
            back = None if source is None else ip.packet_too_big(view, source, room)
            return Verdict(VerdictAction.DROP, reason=DropReason.TOO_BIG, back=back)
        if int.from_bytes(view[6:8], "big") & ip.DF:
            back = None if source is None else ip.fragmentation_needed(view, source, room)
            return Verdict(VerdictAction.DROP, reason=DropReason.TOO_BIG, back=back)
        # Look-ahead: the clear packet is split, each part is encrypted, the end host puts them together.
        parts = ip.fragment_ipv4(view, room)
        return Verdict(VerdictAction.ESP, tuple(association.encapsulate(part) for part in parts))

    def _open(self, view: memoryview, flow: _Flow) -> Verdict:
        if ip.is_fragment(view):
            raise DropPacket(DropReason.FRAGMENT)
        start = (view[0] & 15) * 4 if flow.version == 4 else ip.IPV6_HEADER
        if len(view) < start + 4:
            raise DropPacket(DropReason.MALFORMED)
        spi = int.from_bytes(view[start : start + 4], "big")
        association = self.associations.get(spi)
        if association is None:
            # ESP of the hosts themselves passes where the policy says so.
            outer = next((item for item in self._inbound if item.matches(flow)), None)
            if outer is not None and outer.policy_entry.entry.action is Action.DENY:
                return Verdict(VerdictAction.CLEAR, (view,))
            raise DropPacket(DropReason.INVALID_SPI)
        inner = association.decapsulate(view)
        inner_flow = read_flow(memoryview(inner))
        for direct, mirrored in zip(self._outbound, self._inbound, strict=True):
            if spi in direct.policy_entry.accepted and (direct.matches(inner_flow) or mirrored.matches(inner_flow)):
                return Verdict(VerdictAction.CLEAR, (inner,))
        raise DropPacket(DropReason.SELECTOR_MISMATCH)
