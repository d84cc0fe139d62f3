"""Pseudotime: the clock of a group with time-based anti-replay, on its key server and on members (reference 7.3). Pure.

The key server starts it with the group's first keys that ask for it, and tells it with policy: at registrations and in
rekeys. It knows nothing of the time of day. `epoch` is random and tells one clock from another: a key server that was
restarted has a new one, and keys of before are judged by the clock that they came with.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from labctl.configuration import NO_REPLAY, Replay
from labctl.isakmp.errors import MalformedMessage
from labctl.isakmp.main_mode import RandomSource

MICROSECONDS = 1_000_000
# Epoch, seconds, microseconds.
_WIRE = struct.Struct("!III")
EPOCH_OCTETS = 4
_WRAP, _HALF = 1 << 32, 1 << 31


@dataclass(frozen=True, slots=True)
class Pseudotime:
    """A clock as its owner keeps it: it shows the caller's time plus `offset` (seconds)."""

    epoch: int
    offset: float

    @classmethod
    def start(cls, random: RandomSource, now: float) -> Pseudotime:
        """A new clock, which shows 0 now."""
        return cls(int.from_bytes(random(EPOCH_OCTETS), "big"), -now)

    def at(self, now: float) -> float:
        """Seconds since it was started."""
        return now + self.offset

    def pack(self, now: float) -> bytes:
        """What it shows, for a SAT."""
        seconds, micro = divmod(round(self.at(now) * MICROSECONDS), MICROSECONDS)
        return _WIRE.pack(self.epoch, seconds % _WRAP, micro)


@dataclass(frozen=True, slots=True)
class ToldTime:
    """What a message of the key server's said its clock shows, and when that was true (on the member's clock).

    `received` is before the message came where that is known to be late (member_rekey.age_of). `window` is the
    narrowest of the message's policy.
    """

    epoch: int
    seconds: float
    received: float
    window: int

    @property
    def offset(self) -> float:
        """What the member's clock lacks of the key server's."""
        return self.seconds - self.received

    def near(self, offset: float) -> ToldTime:
        """The same with seconds that have wrapped put where a clock with `offset` has them."""
        shown = self.received + offset
        lap = (self.seconds - shown + _HALF) % _WRAP - _HALF
        return ToldTime(self.epoch, shown + lap, self.received, self.window)


def read_pseudotime(data: bytes) -> tuple[int, float]:
    """Epoch and seconds of a SAT. Raises MalformedMessage."""
    if len(data) != _WIRE.size:
        raise MalformedMessage(f"a pseudotime of {len(data)} octets")
    epoch, seconds, micro = _WIRE.unpack(data)
    if micro >= MICROSECONDS:
        raise MalformedMessage(f"a pseudotime with {micro} microseconds")
    return epoch, seconds + micro / MICROSECONDS


@dataclass(frozen=True, slots=True)
class ReplayPolicy:
    """What a SAT says of anti-replay; `epoch` and `seconds` where it is time-based."""

    replay: Replay = NO_REPLAY
    epoch: int | None = None
    seconds: float = 0.0


NOTHING_SAID = ReplayPolicy()
