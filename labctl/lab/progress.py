"""What `up` tells whoever watches, as it happens. `cli/progress.py` draws it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from labctl.lab.journal import PHASE, Journal


@dataclass(frozen=True, slots=True)
class PhaseBegan:
    """A part of `up` begins."""

    name: str


@dataclass(frozen=True, slots=True)
class PhaseEnded:
    """A part of `up` is done, after `seconds`."""

    name: str
    seconds: float


@dataclass(frozen=True, slots=True)
class NodeChanged:
    """A node reached a state: created, wired, booting, ready, failed. `reason` says what it waits for or why not."""

    node: str
    state: str
    reason: str
    elapsed: float


@dataclass(frozen=True, slots=True)
class Note:
    """Something worth a line."""

    text: str


ProgressEvent = PhaseBegan | PhaseEnded | NodeChanged | Note
Progress = Callable[[ProgressEvent], None]


class Timing:
    """Times the phases of one `up`, tells them to `progress` and writes them to the journal.

    `before`: seconds that went by before there was a journal.
    """

    def __init__(self, journal: Journal, progress: Progress, before: float = 0.0) -> None:
        self._journal = journal
        self._progress = progress
        self._begin = time.monotonic() - before
        self.phases: dict[str, float] = {}

    @property
    def total(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self._begin

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time a block; a block that fails has no time."""
        self._progress(PhaseBegan(name))
        begin = time.monotonic()
        yield
        self.add(name, time.monotonic() - begin)

    def add(self, name: str, seconds: float) -> None:
        """A phase that somebody else timed."""
        self.phases[name] = seconds
        self._journal.append(PHASE, name=name, seconds=round(seconds, 4))
        self._progress(PhaseEnded(name, seconds))
