"""Checks: what a topology states about its lab, proved or refuted with real packets and protocol state.

    results = await run(plan, door, selection)      # CheckResult for each, in the topology's order
    rows(results), to_json(results), junit(results) # for people, programs and CI

`needs` says which echoes and captures a check wants, `gather` gets them through the lab's door, all checks at once,
`judge` decides from what was seen. Only `gather` touches the lab.
"""

from labctl.checks.report import HEADER, junit, rows, to_json
from labctl.checks.result import CheckResult, Verdict
from labctl.checks.run import UnknownCheck, run, select

__all__ = ["HEADER", "CheckResult", "UnknownCheck", "Verdict", "junit", "rows", "run", "select", "to_json"]
