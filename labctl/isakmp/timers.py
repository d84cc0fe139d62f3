"""Deadlines by key: what a sans-IO party has to do next, cheap for thousands of keys."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)

# Entries of timers that were replaced or cancelled that may wait in the heap beside as many as run.
SLACK = 64


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
        self._compact()

    def cancel(self, key: K) -> None:
        """Stop the timer of `key`, if it runs."""
        self._current.pop(key, None)

    @property
    def kept(self) -> int:
        """Entries in memory: at most twice the timers that run, and SLACK."""
        return len(self._heap)

    def next_deadline(self) -> float | None:
        """The earliest deadline."""
        heap = self._heap
        while heap:
            deadline, order, key = heap[0]
            current = self._current.get(key)
            if current is not None and current[1] == order:
                return deadline
            heapq.heappop(heap)
        return None

    def pop_due(self, now: float) -> K | None:
        """A key whose deadline has come, its timer stopped; None when there is no more."""
        deadline = self.next_deadline()
        if deadline is None or deadline > now:
            return None
        key = heapq.heappop(self._heap)[2]
        del self._current[key]
        return key

    def _compact(self) -> None:
        """Drop entries that mean nothing any more: a lifetime of a day must not keep what ended in a minute."""
        if len(self._heap) > 2 * len(self._current) + SLACK:
            self._heap = [(deadline, order, key) for key, (deadline, order) in self._current.items()]
            heapq.heapify(self._heap)


def earlier(one: float | None, other: float | None) -> float | None:
    """The earlier of two deadlines; None where neither is."""
    if one is None or other is None:
        return other if one is None else one
    return min(one, other)
