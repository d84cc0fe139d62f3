"""The lab's clock (design decision 8): the machine's monotonic clock, times the scale of the topology."""

from __future__ import annotations

import time


class Clock:
    """Seconds since some moment; `scale` of them pass in a second of the machine."""

    def __init__(self, scale: float = 1.0) -> None:
        self.scale = scale
        # Scaling from a point of its own keeps numbers small and the clock's start the same for every scale.
        self._origin = time.monotonic()

    def now(self) -> float:
        """The lab's time."""
        return (time.monotonic() - self._origin) * self.scale

    def seconds_until(self, moment: float) -> float:
        """Seconds of the machine until a moment of the lab; 0 for what has passed."""
        return max(0.0, (moment - self.now()) / self.scale)
