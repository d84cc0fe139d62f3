"""Timers and limits of an ISAKMP endpoint."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Timers and limits, in one place. The RFC demands adaptive timers and gives no numbers (reference 2.11)."""

    # Seconds between the copies of a request that is not answered, and when to give up.
    retransmit: tuple[float, ...] = (2.0, 4.0, 8.0, 16.0)
    give_up: float = 30.0
    # An exchange that a peer began and does not end.
    half_open_seconds: float = 30.0
    half_open: int = 1024
    half_open_per_peer: int = 8
    # Established SAs: a peer beyond the limit replaces the oldest.
    associations: int = 20_000
    # Replies kept for duplicates of what they answer.
    replies: int = 8192
    reply_seconds: float = 60.0
    # Events that nobody fetched.
    events: int = 10_000
