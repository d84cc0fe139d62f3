"""Configurations of nodes as IOS text: what the topology's YAML means."""

from __future__ import annotations

from pathlib import Path

from labctl.ios.text import text_of
from labctl.lab.directory import LabDirectory
from labctl.lab.errors import BadRequest
from labctl.lab.preview import preview
from labctl.lab.standing import standing_plan, which
from labctl.topology.plan import Plan


def running_config(directory: LabDirectory, node: str, *, defaults: bool = False) -> str:
    """The text of a node of a lab that is up, with its keys. Raises BadRequest, NoSuchLab."""
    return _text(standing_plan(directory), node, f"lab {directory.name}", defaults=defaults)


def planned_config(path: Path, node: str, *, defaults: bool = False) -> str:
    """The text of a node of a topology file. Raises BadRequest, TopologyErrors."""
    return _text(preview(path).plan, node, str(path), defaults=defaults)


def _text(plan: Plan, name: str, where: str, *, defaults: bool) -> str:
    known = {node.name: node.configuration for node in plan.nodes}
    if name not in known:
        raise BadRequest(f"{where} has no node {name!r}", which(name, known, "nodes"))
    return text_of(known[name], defaults=defaults)
