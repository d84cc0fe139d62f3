"""Requests of ours on their way: copies until they are answered or given up (reference 2.11)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from labctl.isakmp.datagram import Datagram
from labctl.isakmp.errors import LocalError
from labctl.isakmp.limits import Limits
from labctl.isakmp.timers import Timers

# What runs on an endpoint's timers: (what, own cookie or cookies, message id).
Key = tuple[str, bytes, int]


class Outcome(Enum):
    """What became of a request whose timer fired."""

    RESENT = "resent"
    GIVEN_UP = "given up"


@dataclass(slots=True)
class _Pending:
    datagram: Datagram
    started: float
    sent: int = 1


class Requests:
    """The requests of an endpoint, on its timers; copies go to its `outgoing` datagrams."""

    def __init__(self, limits: Limits, timers: Timers[Key], outgoing: list[Datagram]) -> None:
        self._limits = limits
        self._timers = timers
        self._outgoing = outgoing
        self._pending: dict[Key, _Pending] = {}

    def __len__(self) -> int:
        return len(self._pending)

    def send(self, key: Key, datagram: Datagram, now: float) -> None:
        """Send, and again until settled."""
        self._pending[key] = _Pending(datagram, now)
        self._outgoing.append(datagram)
        self._timers.set(key, now + self._limits.retransmit[0])

    def settle(self, key: Key) -> None:
        """It needs no more copies."""
        self._pending.pop(key, None)
        self._timers.cancel(key)

    def settle_all(self, cookies: bytes) -> None:
        """No request under this SA needs more copies."""
        for key in [key for key in self._pending if key[0] == "exchange" and key[1] == cookies]:
            self.settle(key)

    def waits(self, cookies: bytes) -> bool:
        """Is a request under this SA on its way?"""
        return any(key[0] == "exchange" and key[1] == cookies for key in self._pending)

    def on_timer(self, key: Key, now: float) -> Outcome:
        """Send another copy, or give up and settle. Raises LocalError for a key that is no request."""
        pending = self._pending.get(key)
        if pending is None:
            raise LocalError("a timer of a request that does not exist")
        gives_up = pending.started + self._limits.give_up
        if now >= gives_up:
            self.settle(key)
            return Outcome.GIVEN_UP
        self._outgoing.append(pending.datagram)
        intervals = self._limits.retransmit
        following = now + intervals[min(pending.sent, len(intervals) - 1)]
        pending.sent += 1
        self._timers.set(key, min(following, gives_up))
        return Outcome.RESENT
