"""Group keys, as GDOI brought them, in the form that the data plane takes."""

from __future__ import annotations

import os
from collections.abc import Mapping

from labctl.configuration import Action, SaDirection
from labctl.configuration.access_list import describe_access_list_entry
from labctl.esp import PolicyEntry, SecurityAssociation
from labctl.gdoi import GroupKeys, TrafficEncryptionKey


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


class Associations:
    """The SAs of one membership, one a TEK, from its first installation to its end.

    An SA is never made anew for a TEK that has one: it holds the counters from which nonces come (RFC 6054), and a
    nonce must not repeat under a key.
    """

    def __init__(self) -> None:
        self._current: dict[int, tuple[TrafficEncryptionKey, SecurityAssociation]] = {}

    def update(self, keys: GroupKeys) -> tuple[Mapping[int, SecurityAssociation], list[TrafficEncryptionKey]]:
        """Drop the SAs whose TEK is gone and make those that are new. Returns all by SPI, and the TEKs that are new."""
        fresh = []
        current = {}
        for spi, tek in keys.teks.items():
            known = self._current.get(spi)
            if known is not None and known[0].encryption_key == tek.encryption_key:
                current[spi] = (tek, known[1])
                continue
            current[spi] = (tek, _association(tek, keys))
            fresh.append(tek)
        self._current = current
        return {spi: association for spi, (_, association) in current.items()}, fresh


def _association(tek: TrafficEncryptionKey, keys: GroupKeys) -> SecurityAssociation:
    # Without a sender ID of its own, a member only receives under a counter mode.
    needs_sender = tek.transform.uses_counter_mode
    return SecurityAssociation(
        tek.spi,
        tek.transform,
        tek.encryption_key,
        tek.integrity_key,
        random=os.urandom,
        sender_id=keys.sender_ids[0] if needs_sender and keys.sender_ids else None,
        sender_id_bits=keys.sender_id_bits if needs_sender else 0,
    )
