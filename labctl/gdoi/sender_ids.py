"""Sender IDs of counter-mode groups: no two senders ever use one nonce (RFC 6054; RFC 6407 3.5; reference 3.8)."""

from __future__ import annotations

from labctl.configuration import KeyServerGroup
from labctl.gdoi.numbers import SENDER_ID_BITS
from labctl.isakmp.errors import LocalError

# KSSID: the first bits of every sender ID name the key server that gave it (reference 3.8, proposal).
KEY_SERVER_ID_BITS = 8


class SenderIdsExhausted(Exception):
    """Every sender ID of this key server is given; the group has to start over (RFC 6407 3.5)."""


def counter_bits(configuration: KeyServerGroup) -> int:
    """Bits of a sender ID behind the KSSID. Small IDs have no room for one: such a group has one key server."""
    bits = configuration.sender_id_bits
    return bits - KEY_SERVER_ID_BITS if bits > KEY_SERVER_ID_BITS else bits


def check(configuration: KeyServerGroup) -> None:
    """Raises LocalError for widths and key server IDs that do not go together."""
    group = f"group {configuration.name}"
    bits = configuration.sender_id_bits
    if bits not in SENDER_ID_BITS:
        raise LocalError(
            f"{group}: sender IDs have {SENDER_ID_BITS.start} to {SENDER_ID_BITS.stop - 1} bits, not {bits}"
        )
    if configuration.key_server_id >> (bits - counter_bits(configuration)):
        raise LocalError(f"{group}: key server ID {configuration.key_server_id} does not fit sender IDs of {bits} bits")


class SenderIds:
    """The sender IDs that one key server gives: KSSID in front, a counter behind."""

    def __init__(self) -> None:
        self.given = 0

    def take(self, configuration: KeyServerGroup, count: int) -> tuple[int, ...]:
        """Sender IDs that nobody had before. Raises SenderIdsExhausted."""
        bits = counter_bits(configuration)
        if self.given + count > 1 << bits:
            raise SenderIdsExhausted(f"all {1 << bits} sender IDs are given")
        first = configuration.key_server_id << bits | self.given
        self.given += count
        return tuple(range(first, first + count))
