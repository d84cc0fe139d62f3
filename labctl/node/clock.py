"""The lab's clock (design decision 8): monotonic seconds, scaled, so that an hour of keys can pass in a minute."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable


class Clock:
    """`now` in lab seconds since `started` (1970), or since the clock was made; `scale` pass in one real second.

    With one `started` for all nodes, their clocks agree, whenever each was started. A machine whose time is behind
    that one begins at 0.
    """

    def __init__(self, scale: float = 1.0, started: float | None = None) -> None:
        if not scale > 0:
            raise ValueError(f"a clock's scale is above 0, not {scale}")
        self.scale = scale
        past = 0.0 if started is None else max(0.0, time.time() - started)
        self._origin = time.monotonic() - past

    def now(self) -> float:
        """Lab seconds."""
        return (time.monotonic() - self._origin) * self.scale

    def seconds_until(self, moment: float) -> float:
        """Real seconds until a moment of the lab; 0 for what has passed."""
        return max(0.0, (moment - self.now()) / self.scale)

    def call_at(self, moment: float, callback: Callable[[], None]) -> asyncio.TimerHandle:
        """Have the running loop call back when the clock shows `moment`, or at once if it is past."""
        return asyncio.get_running_loop().call_later(self.seconds_until(moment), callback)
