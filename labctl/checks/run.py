"""Run checks on a lab that is up."""

from __future__ import annotations

import difflib
import os
from collections.abc import Sequence

from labctl.checks.gather import gather
from labctl.checks.judge import Judge
from labctl.checks.needs import needs_of
from labctl.checks.result import CheckResult
from labctl.door import Connection
from labctl.topology.checks import CheckKind, CheckSpec
from labctl.topology.plan import Plan


class UnknownCheck(Exception):
    """The topology has no check of that name or kind. `what` is a sentence without a full stop."""

    def __init__(self, what: str, hint: str) -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint


def select(checks: Sequence[CheckSpec], words: Sequence[str]) -> tuple[CheckSpec, ...]:
    """The checks that `words` name, each by its name or by a kind; all without words. Raises UnknownCheck."""
    kinds = {kind.value for kind in CheckKind}
    for word in words:
        if word not in kinds and all(check.name != word for check in checks):
            known = [*kinds, *(check.name for check in checks)]
            close = difflib.get_close_matches(word, known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"kinds: {', '.join(sorted(kinds))}"
            raise UnknownCheck(f"no check is called {word!r}", hint)
    return tuple(check for check in checks if not words or check.name in words or check.kind.value in words)


async def run(plan: Plan, door: Connection, selection: Sequence[str] = ()) -> list[CheckResult]:
    """Run the selected checks of the plan, all at once; results in the topology's order.

    Raises UnknownCheck before anything is sent, DoorClosed if the lab goes away.
    """
    specs = select(plan.checks, selection)
    needs = [needs_of(spec, plan, os.urandom) for spec in specs]
    judge = Judge(plan, await gather(plan, door, needs))
    return [judge.judge(spec, need) for spec, need in zip(specs, needs, strict=True)]
