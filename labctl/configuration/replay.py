"""Anti-replay of an `sa ipsec` entry: `replay time window-size S`, `replay counter window-size N`, `no replay`."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

# reference/cisco-getvpn.md 1.3: packets of a counter-based window, and the longest time-based one in seconds.
COUNTER_WINDOWS = (64, 128, 256, 512, 1024)
LONGEST_TIME_WINDOW = 100


class ReplayMethod(Enum):
    """How packets that come again are told from others."""

    NONE = "none"
    COUNTER = "counter"
    TIME = "time"


@dataclass(frozen=True, slots=True)
class Replay:
    """`window` is in sequence numbers (COUNTER) or in seconds either side of a member's own clock (TIME)."""

    method: ReplayMethod = ReplayMethod.NONE
    window: int = 0

    def __str__(self) -> str:
        """As `show crypto ruleset` has it: `Time/5 sec`, `Counter/64`."""
        if self.method is ReplayMethod.NONE:
            return "none"
        return f"Time/{self.window} sec" if self.method is ReplayMethod.TIME else f"Counter/{self.window}"

    @property
    def is_possible(self) -> bool:
        """Is it a window that a router takes?"""
        if self.method is ReplayMethod.TIME:
            return 1 <= self.window <= LONGEST_TIME_WINDOW
        return self.window in COUNTER_WINDOWS if self.method is ReplayMethod.COUNTER else not self.window


NO_REPLAY = Replay()
