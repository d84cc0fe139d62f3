"""Many seeds, side by side on the cores of this machine."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial

from labctl.simulation.designs import design
from labctl.simulation.invariants import Invariant, Violation
from labctl.simulation.run import signing_key, simulate
from labctl.simulation.scenario import Scenario

# Seeds that a process takes at once.
CHUNK = 4

# Objects between two looks for garbage: nearly all is gone by then without one, and looking takes a tenth of the time.
OBJECTS = 100_000


@dataclass(frozen=True, slots=True)
class SeedResult:
    """What is left of a run in a sweep."""

    seed: int
    violations: tuple[Violation, ...]
    checks: Counter[Invariant]
    seconds: float
    datagrams: int
    rekeys: int
    registrations: int


@dataclass(slots=True)
class SweepResult:
    """What the runs add up to; `failed` are the seeds with violations."""

    runs: int = 0
    seconds: float = 0.0
    datagrams: int = 0
    rekeys: int = 0
    registrations: int = 0
    checks: Counter[Invariant] = field(default_factory=Counter)
    failed: list[SeedResult] = field(default_factory=list)

    def add(self, result: SeedResult) -> None:
        """One more run."""
        self.runs += 1
        self.seconds += result.seconds
        self.datagrams += result.datagrams
        self.rekeys += result.rekeys
        self.registrations += result.registrations
        self.checks += result.checks
        if result.violations:
            self.failed.append(result)


def sweep(
    seeds: Iterable[int], *, scenario: Scenario | None, duration: float, jobs: int | None = None
) -> Iterator[SeedResult]:
    """Run a scenario (None: a design for each seed) under every seed; results as they come."""
    run = partial(_run, scenario, duration)
    jobs = jobs or len(os.sched_getaffinity(0))
    # Every process has the key of this one: it is made once, and one seed gives one result wherever it runs.
    signing_key()
    if jobs == 1:
        yield from map(run, seeds)
        return
    with multiprocessing.get_context("fork").Pool(jobs, _begin_worker) as pool:
        yield from pool.imap_unordered(run, seeds, CHUNK)


def _begin_worker() -> None:
    """Ctrl-C goes to every process of a terminal: the first one ends the others. What is there now is never garbage."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.freeze()


def _run(scenario: Scenario | None, duration: float, seed: int) -> SeedResult:
    threshold = gc.get_threshold()
    gc.set_threshold(OBJECTS)
    try:
        result = simulate(scenario or design(seed, duration=duration), seed, lines=0)
    finally:
        gc.set_threshold(*threshold)
    return SeedResult(
        seed,
        result.violations,
        result.checks,
        result.seconds,
        result.network.sent,
        result.rekeys_sent,
        result.counts.registrations,
    )


__all__ = ["SeedResult", "SweepResult", "sweep"]
