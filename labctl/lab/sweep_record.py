"""A sweep of many seeds that may be stopped and gone on with: a file with a line of JSON for each seed that is done.

A line is `{scenario, hours, seed, seconds, datagrams, rekeys, registrations, checks: {invariant: looks}, violations:
[{invariant, at, what}]}`. The last line of a sweep that was killed may be half: it is cut off, its seed runs again.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labctl.lab.errors import BadRequest
from labctl.simulation.invariants import Invariant, Violation
from labctl.simulation.sweep import SeedResult


@dataclass(frozen=True, slots=True)
class SweepRecord:
    """The results of `scenario`, `hours` long, in the file `path`."""

    path: Path
    scenario: str
    hours: float

    def results(self) -> list[SeedResult]:
        """What is done, in the order in which it was. Raises BadRequest for a file of something else."""
        try:
            data = self.path.read_bytes() if self.path.exists() else b""
            whole = data[: data.rfind(b"\n") + 1]
            if whole != data:
                with self.path.open("r+b") as file:
                    file.truncate(len(whole))
        except OSError as error:
            raise BadRequest(f"{self.path}: {error.strerror}") from None
        return [self._result(number, line) for number, line in enumerate(whole.splitlines(), start=1)]

    def _result(self, number: int, line: bytes) -> SeedResult:
        try:
            found = json.loads(line)
            known = (found["scenario"], found["hours"])
            result = _read(found)
        except (ValueError, KeyError, TypeError):
            raise BadRequest(
                f"{self.path}:{number}: no result of a seed", "give --record a new file, or one that it has written"
            ) from None
        if known != (self.scenario, self.hours):
            raise BadRequest(
                f"{self.path}:{number}: a result of {known[0]} over {known[1]:g} hours, not of {self.scenario} over "
                f"{self.hours:g}",
                "give each sweep a file of its own",
            )
        return result

    def add(self, results: Iterable[SeedResult]) -> Iterable[SeedResult]:
        """Write results as they come, and pass them on. Raises BadRequest where they cannot be written."""
        try:
            with self.path.open("a", encoding="utf-8") as file:
                for result in results:
                    file.write(json.dumps(self._line(result)) + "\n")
                    file.flush()
                    yield result
        except OSError as error:
            raise BadRequest(f"{self.path}: {error.strerror}") from None

    def _line(self, result: SeedResult) -> dict[str, Any]:
        return {
            "scenario": self.scenario,
            "hours": self.hours,
            "seed": result.seed,
            "seconds": result.seconds,
            "datagrams": result.datagrams,
            "rekeys": result.rekeys,
            "registrations": result.registrations,
            "checks": {item.name: count for item, count in result.checks.items()},
            "violations": [
                {"invariant": item.invariant.name, "at": item.at, "what": item.what} for item in result.violations
            ],
        }


def _read(found: dict[str, Any]) -> SeedResult:
    return SeedResult(
        found["seed"],
        tuple(Violation(Invariant[item["invariant"]], item["at"], item["what"]) for item in found["violations"]),
        Counter({Invariant[name]: count for name, count in found["checks"].items()}),
        found["seconds"],
        found["datagrams"],
        found["rekeys"],
        found["registrations"],
    )
