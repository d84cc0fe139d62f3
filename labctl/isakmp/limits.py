"""Timers and limits of an ISAKMP endpoint."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Timers and limits, in one place. The RFC demands adaptive timers and gives no numbers (reference 2.11)."""

    # Seconds between the copies of a request that is not answered, and when to give up.
    retransmit: tuple[float, ...] = (2.0, 4.0, 8.0, 16.0)
    give_up: float = 30.0
    # Exchanges that peers began and do not end: for how long, how many of all peers (`crypto call admission limit`),
    # how many of one address. Beyond it the oldest goes whose peer has not shown yet that it is where it says.
    half_open_seconds: float = 30.0
    half_open: int = 1024
    half_open_per_peer: int = 8
    # Established SAs: a peer beyond the limit replaces the oldest.
    associations: int = 20_000
    # Replies kept for duplicates of what they answer. Those that anybody can draw (message 2, refusals in clear) have
    # their own place, so that they push out no others.
    replies: int = 8192
    first_replies: int = 2048
    reply_seconds: float = 60.0
    # Events that nobody fetched.
    events: int = 10_000
    # Dead peer detection: a question that was repeated so often and not answered means that the peer is dead.
    keepalive_retries: int = 5
    # Answers in clear to messages of SAs that we do not have, each second, to all peers.
    unknown_answers: int = 20
    # An SA with less life left is not begun to be used for a request: as long as two requests that fail.
    reuse_seconds: float = 60.0
    # An SA that is kept (`keep`) is authenticated anew when this share of its life is left, at most so many seconds.
    renew_share: float = 0.1
    renew_seconds: float = 300.0
    # A peer that is kept and could not be reached is tried again after so many seconds.
    again_seconds: float = 10.0
    # SAs that ended so shortly ago that the two farewells may cross, and how many of them are remembered.
    farewell_seconds: float = 5.0
    farewells: int = 1024
