"""Deadlines by key: what a sans-IO party has to do next, cheap for thousands of keys."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class Timers(Generic[K]):
    """A deadline (seconds on the caller's clock) for each key; setting again replaces."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, K]] = []
        self._current: dict[K, tuple[float, int]] = {}
        self._order = itertools.count()

    def set(self, key: K, deadline: float) -> None:
        """(Re)start the timer of `key`."""
        order = next(self._order)
        self._current[key] = (deadline, order)
        heapq.heappush(self._heap, (deadline, order, key))

    def cancel(self, key: K) -> None:
        """Stop the timer of `key`, if it runs."""
        self._current.pop(key, None)

    def next_deadline(self) -> float | None:
        """The earliest deadline."""
        while self._heap and self._current.get(self._heap[0][2], (0.0, -1))[1] != self._heap[0][1]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def pop_due(self, now: float) -> K | None:
        """A key whose deadline has come, its timer stopped; None when there is no more."""
        deadline = self.next_deadline()
        if deadline is None or deadline > now:
            return None
        key = heapq.heappop(self._heap)[2]
        del self._current[key]
        return key
