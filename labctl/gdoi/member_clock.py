"""The pseudotime of a group member between the messages that tell it (reference 7.3). Sans-IO.

A message only ever says what the key server's clock showed when it was made. It took some time since, so the key
server's clock shows at least that: a member that is behind is set forward at once. One that is ahead is not set back
so easily, because the message may be late, a copy of a rekey by some ten seconds, or held back by somebody:

- A registration is an answer: it is not older than the question. Between the two bounds nothing changes.
- A rekey moves the clock back by no more than a clock may have gained since it was last set, or by all of it where
  that is more than the window, and the message not known to be so late.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace

from labctl.gdoi.events import Event, LogMessage
from labctl.gdoi.pseudotime import Pseudotime, ToldTime
from labctl.gdoi.timing import Timing

# How late a rekey is, is known up to this (member_rekey.age_of).
ROUNDING = 2.0


@dataclass(slots=True)
class TimeSync:
    """What came of the key server's telling: `last` is the last difference (told minus shown, seconds)."""

    heard: int = 0
    at: float = 0.0
    last: float = 0.0
    largest: float = 0.0
    # Differences beyond the window.
    errors: int = 0


class MemberClock:
    """The clocks of the keys that a member has, by epoch; `tell` is given what the log says of them."""

    def __init__(self, timing: Timing, tell: Callable[[Event], None]) -> None:
        self.clocks: dict[int, Pseudotime] = {}
        self.current: int | None = None
        self.sync = TimeSync()
        self._timing = timing
        self._tell = tell
        self._heard: ToldTime | None = None
        self._set_at = 0.0

    def read(self, now: float) -> float | None:
        """What the clock of the key server's last message shows; None without one."""
        return None if self.current is None else self.clocks[self.current].at(now)

    def keep(self, epochs: Collection[int]) -> None:
        """Forget the clocks that no key goes by."""
        self.clocks = {epoch: clock for epoch, clock in self.clocks.items() if epoch in epochs}
        if self.current not in self.clocks:
            self.current = None

    def hear(self, told: ToldTime | None, group: str, now: float, *, round_trip: float | None = None) -> None:
        """A message that came `now` told the time. `round_trip`: it answers a question of so many seconds ago."""
        if told is None or told is self._heard:
            return
        self._heard = told
        self.sync.heard += 1
        self.sync.at = now
        held = self.clocks.get(told.epoch)
        self.current = told.epoch
        if held is None:
            self._set(Pseudotime(told.epoch, told.offset), now)
            self.sync.last = 0.0
            return
        told = told.near(held.offset)
        late = now - told.received if round_trip is None else 0.0
        # Whatever is believed of a rekey's age, this is the least that the key server's clock can show.
        ahead = told.offset - late - held.offset
        self.sync.last = ahead
        self.sync.largest = max(self.sync.largest, abs(ahead))
        if ahead >= 0.0:
            move = ahead
            if ahead > told.window:
                self._complain("PSEUDO_TIME_LARGE", "is ahead of ours", held, ahead, told, group, now)
        elif round_trip is not None:
            move = min(0.0, ahead + round_trip)
        elif -ahead - late > told.window + ROUNDING:
            move = ahead + late
            self._complain("PSEUDO_TIME_TOO_OLD", "is behind ours", held, ahead, told, group, now)
        else:
            move = max(ahead, -self._timing.clock_drift * (now - self._set_at))
        self._set(replace(held, offset=held.offset + move), now)

    def _set(self, clock: Pseudotime, now: float) -> None:
        self.clocks[clock.epoch] = clock
        self._set_at = now

    def _complain(
        self, mnemonic: str, how: str, held: Pseudotime, ahead: float, told: ToldTime, group: str, now: float
    ) -> None:
        self.sync.errors += 1
        mine = held.at(now)
        text = (
            f"The pseudotime told in group {group} {how}: my_pseudotime is {mine:.2f} secs, "
            f"peer_pseudotime is {mine + ahead:.2f} secs, replay_window is {told.window} (second)"
        )
        self._tell(LogMessage("GDOI", 3, mnemonic, text))
