"""The pseudotime of a group on its key server: started with the first keys that need it, told again in time (7.3)."""

from __future__ import annotations

from collections.abc import Sequence

from labctl.configuration import ReplayMethod, SaIpsec
from labctl.gdoi.pseudotime import Pseudotime
from labctl.gdoi.timing import Timing
from labctl.isakmp.main_mode import RandomSource

# With more members than these, a window that all senders share refuses what is no replay (cisco-getvpn.md 2.8).
SENDERS_OF_ONE_WINDOW = 2


def shares_a_window(sas: Sequence[SaIpsec]) -> bool:
    """True where receivers cannot tell senders apart and count the packets of all in one window."""
    return any(sa.replay.method is ReplayMethod.COUNTER and not sa.transform.uses_counter_mode for sa in sas)


class GroupClock:
    """`pseudotime` is None until keys need it; then it lasts as long as the key server."""

    def __init__(self, random: RandomSource, timing: Timing) -> None:
        self.pseudotime: Pseudotime | None = None
        self._random = random
        self._timing = timing
        self._told = 0.0

    def serve(self, sas: Sequence[SaIpsec], now: float) -> None:
        """Keys are made for these entries."""
        if self.pseudotime is None and any(sa.replay.method is ReplayMethod.TIME for sa in sas):
            self.pseudotime = Pseudotime.start(self._random, now)
            self._told = now

    def tell(self, now: float) -> None:
        """All members are told now."""
        self._told = now

    @property
    def due(self) -> float | None:
        """When members are to be told again, though nothing else is new."""
        return None if self.pseudotime is None else self._told + self._timing.time_sync
