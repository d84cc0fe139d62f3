"""Where a member's packets leave: what its crypto map does with them, decided by the data plane's own policy (`esp`).

As on a node (reference/cisco-getvpn.md 2.7): fail-close holds until the first registration; lost keys leave the policy,
which then drops, or (revert) close again; a policy that is forgotten leaves nothing but fail-close.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from labctl.configuration import AccessListEntry, Action, GroupMembership
from labctl.esp import CryptoPolicy, PolicyEntry
from labctl.esp.ip import PROTOCOL_UDP
from labctl.esp.policy import VerdictAction
from labctl.gdoi import GroupKeys

# Ports of the packet that is looked at, where an entry names none.
ANY_PORT = 5004


@dataclass(slots=True)
class Crossing:
    """The crypto map of one member. `clear`: its own decision on a packet that the group protects."""

    membership: GroupMembership | None = None
    closed: bool = False
    rules: tuple[AccessListEntry, ...] = ()
    receive_only: bool = False

    def __post_init__(self) -> None:
        self.closed = self.membership is not None and self.membership.fail_close is not None

    def installed(self, keys: GroupKeys) -> None:
        """Policy and keys have come."""
        self.rules = tuple(rule.entry for rule in keys.rules)
        self.receive_only = keys.receive_only
        self.closed = False

    def lost(self, *, policy: bool) -> None:
        """Every key has ended; `policy` stays, or was forgotten with them."""
        membership = self.membership
        if membership is None or (policy and not membership.fail_close_revert):
            return
        self.rules, self.receive_only = (), False
        self.closed = membership.fail_close is not None if not policy else True

    def clear(self, packet: bytes) -> bool:
        """Would this packet leave in clear?"""
        closed = self.closed and self.membership is not None and (packet[0] >> 4 == 6) is self.membership.ipv6
        return _leaves_in_clear(packet, self.rules, self.receive_only, closed)


# A group has a handful of such policies in its life; members share what they decide.
@lru_cache(maxsize=4096)
def _leaves_in_clear(packet: bytes, rules: tuple[AccessListEntry, ...], receive_only: bool, closed: bool) -> bool:
    entries = [PolicyEntry(entry, send_clear=receive_only and entry.action is Action.PERMIT) for entry in rules]
    if not entries and not closed:
        return True
    return CryptoPolicy(entries, {}, closed=(4, 6) if closed else ()).outbound(packet).action is VerdictAction.CLEAR


def forget() -> None:
    """Decide anew what has been decided: for tests that change the policy's code."""
    _leaves_in_clear.cache_clear()


def protected_packet(policy: Sequence[AccessListEntry]) -> bytes | None:
    """A packet that a policy protects: of the first permit entry that no earlier deny takes out."""
    for entry in policy:
        if entry.action is Action.PERMIT:
            packet = _packet(entry)
            if not _leaves_in_clear(packet, tuple(policy), False, True):
                return packet
    return None


def _packet(entry: AccessListEntry) -> bytes:
    """Header and ports, zeros behind them: a packet of 40 octets of IPv4 (RFC 791 3.1), of 60 of IPv6 (RFC 8200 3)."""
    ports = (entry.source_port or ANY_PORT).to_bytes(2, "big") + (entry.destination_port or ANY_PORT).to_bytes(2, "big")
    protocol = entry.protocol or PROTOCOL_UDP
    head = bytes((0x45, 0)) + (40).to_bytes(2, "big") + bytes(4) + bytes((64, protocol, 0, 0))
    if entry.source.version == 6:
        head = bytes((0x60, 0, 0, 0)) + (20).to_bytes(2, "big") + bytes((protocol, 64))
    source, destination = (
        network.network_address + (1 if network.num_addresses > 1 else 0)
        for network in (entry.source, entry.destination)
    )
    return head + source.packed + destination.packed + ports + bytes(16)
