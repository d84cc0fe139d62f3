"""A thousand designs, networks and bad months: everything holds. LABCTL_SEEDS runs as many as it says."""

from __future__ import annotations

import os

import pytest

from labctl.simulation.scenario import DAY
from labctl.simulation.sweep import SweepResult, sweep

SEEDS = int(os.environ.get("LABCTL_SEEDS") or 1000)
# A part is a test, so that the parts of a run are spread over the cores.
PART = 25


@pytest.mark.parametrize("first", range(0, SEEDS, PART))
def test_a_month_of_faults_breaks_no_invariant(first: int) -> None:
    total = SweepResult()
    for result in sweep(range(first, min(first + PART, SEEDS)), scenario=None, duration=30 * DAY, jobs=1):
        total.add(result)
    for failed in total.failed:
        print(f"labctl simulate chaos --seed {failed.seed}: {failed.violations[0]}")
    assert [failed.seed for failed in total.failed] == []
    assert total.rekeys > 0 and total.registrations > total.runs
    assert len(total.checks) >= 8, "nearly every invariant has had something to look at"
