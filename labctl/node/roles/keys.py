"""Group keys, as GDOI brought them, in the form that the data plane takes."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from labctl.configuration import Action, ReplayMethod, SaDirection
from labctl.configuration.access_list import describe_access_list_entry
from labctl.esp import PolicyEntry, SecurityAssociation
from labctl.esp.replay import AntiReplay, CounterWindows, Pseudotime, TimeStamps
from labctl.gdoi import GroupKeys, TrafficEncryptionKey
from labctl.gdoi import pseudotime as gdoi
from labctl.gdoi.member_clock import MemberClock


def policy_entries(
    keys: GroupKeys, sending: tuple[int | None, ...], direction: SaDirection = SaDirection.BOTH
) -> tuple[PolicyEntry, ...]:
    """The rules in order: each PERMIT with the SPI to send under and every SPI that is still accepted."""
    return tuple(
        PolicyEntry(rule.entry)
        if rule.entry.action is Action.DENY
        else PolicyEntry(
            rule.entry,
            spi,
            frozenset(rule.spis) & keys.teks.keys(),
            send_clear=direction is SaDirection.INBOUND_ONLY,
            accept_clear=direction is not SaDirection.BOTH,
        )
        for rule, spi in zip(keys.rules, sending, strict=True)
    )


def policy_lines(keys: GroupKeys, sending: tuple[int | None, ...]) -> list[str]:
    """The rules as a user reads them, each PERMIT with the SPI that it sends under."""
    lines = []
    for place, rule in enumerate(keys.rules):
        spi = sending[place] if place < len(sending) else None
        text = describe_access_list_entry(rule.entry)
        lines.append(text if spi is None else f"{text} under {spi:#010x}")
    return lines


def clock_lines(clock: MemberClock, now: float) -> dict[str, Any]:
    """The pseudotime of a member, and what became of the key server's telling (`show crypto gdoi gm replay`)."""
    shown, sync = clock.read(now), clock.sync
    if shown is None:
        return {"pseudotime": None, "time_sync": None}
    return {
        "pseudotime": round(shown, 2),
        "time_sync": {
            "epoch": f"{clock.current:#010x}",
            "heard": sync.heard,
            "ago": round(now - sync.at, 1),
            "last_difference": round(sync.last, 2),
            "largest_difference": round(sync.largest, 2),
            "errors": sync.errors,
        },
    }


class Associations:
    """The SAs of one membership, one a TEK, from its first installation to its end.

    An SA is never made anew for a TEK that has one: it holds the counters from which nonces come (RFC 6054), and a
    nonce must not repeat under a key. `now` is the node's clock, beside which the group's pseudotime is kept.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._current: dict[int, tuple[TrafficEncryptionKey, SecurityAssociation]] = {}
        self._now = now
        self._clocks: dict[int, Pseudotime] = {}

    def update(
        self, keys: GroupKeys, clocks: Mapping[int, gdoi.Pseudotime] = MappingProxyType({})
    ) -> tuple[Mapping[int, SecurityAssociation], list[TrafficEncryptionKey]]:
        """Drop the SAs whose TEK is gone, make those that are new, and set the clocks that they go by.

        Returns all by SPI, and the TEKs that are new.
        """
        self._clocks = {epoch: self._clock(clock) for epoch, clock in clocks.items()}
        fresh = []
        current = {}
        for spi, tek in keys.teks.items():
            known = self._current.get(spi)
            if known is not None and known[0].encryption_key == tek.encryption_key:
                current[spi] = (tek, known[1])
                continue
            current[spi] = (tek, self._association(tek, keys))
            fresh.append(tek)
        self._current = current
        return {spi: association for spi, (_, association) in current.items()}, fresh

    def _clock(self, told: gdoi.Pseudotime) -> Pseudotime:
        known = self._clocks.get(told.epoch)
        if known is None:
            return Pseudotime(told.epoch, told.offset, self._now)
        known.offset = told.offset
        return known

    def _association(self, tek: TrafficEncryptionKey, keys: GroupKeys) -> SecurityAssociation:
        # Without a sender ID of its own, a member only receives under a counter mode.
        needs_sender = tek.transform.uses_counter_mode
        bits = keys.sender_id_bits if needs_sender else 0
        return SecurityAssociation(
            tek.spi,
            tek.transform,
            tek.encryption_key,
            tek.integrity_key,
            random=os.urandom,
            sender_id=keys.sender_ids[0] if needs_sender and keys.sender_ids else None,
            sender_id_bits=bits,
            replay=self._anti_replay(tek, bits),
        )

    def _anti_replay(self, tek: TrafficEncryptionKey, sender_id_bits: int) -> AntiReplay | None:
        replay = tek.replay
        if replay.method is ReplayMethod.COUNTER:
            return CounterWindows(replay.window, sender_id_bits)
        return None if tek.epoch is None else TimeStamps(self._clocks[tek.epoch], replay.window)
