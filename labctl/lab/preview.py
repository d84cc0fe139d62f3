"""The plan of a topology file without a lab: what `check` and `plan` show."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labctl.configuration import to_json
from labctl.lab.directory import LabDirectory
from labctl.topology import load
from labctl.topology.plan import Plan
from labctl.topology.planner import plan

HIDDEN = "(generated or given; not shown)"


@dataclass(frozen=True, slots=True)
class Preview:
    """A plan, and its JSON form without pre-shared keys: a plan is pasted into issues and chats."""

    path: Path
    plan: Plan

    def as_json(self) -> Any:
        """The plan as `--json` prints it."""
        value = to_json(self.plan)
        for node in value["nodes"]:
            for key in node["configuration"]["pre_shared_keys"]:
                key["secret"] = HIDDEN
        return value

    @property
    def summary(self) -> str:
        """One line: what there would be."""
        counts = [
            (len(self.plan.nodes), "node"),
            (len(self.plan.switches), "switch"),
            (len(self.plan.links), "link"),
            (len(self.plan.groups), "group"),
            (len(self.plan.checks), "check"),
        ]
        return ", ".join(f"{count} {word}{_plural(word) if count != 1 else ''}" for count, word in counts if count)


def preview(path: Path) -> Preview:
    """Load and plan. Raises TopologyErrors with everything that is wrong."""
    topology = load(path)
    # Its own lab's secret if that is up, so that the plan is the one that `up` compares with.
    return Preview(path, plan(topology, secret=LabDirectory(topology.name).secret()))


def _plural(word: str) -> str:
    return "es" if word.endswith("ch") else "s"
