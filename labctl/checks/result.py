"""What came of a check."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from labctl.topology.checks import CheckKind


class Verdict(Enum):
    """INCONCLUSIVE: the check could not see what it had to see; it does not pass."""

    PASSED = "passed"
    FAILED = "failed"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True, slots=True)
class CheckResult:
    """`reason` says what was seen, in one line; `details` has the rest, one line each."""

    name: str
    kind: CheckKind
    verdict: Verdict
    reason: str
    seconds: float = 0.0
    details: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """True only if the statement was proved."""
        return self.verdict is Verdict.PASSED
