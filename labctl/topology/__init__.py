"""Topologies: YAML with positions -> Topology -> Plan; pure.

    topology = load(path)                           # raises TopologyErrors: all that is wrong, each with its place
    plan = planner.plan(topology, secret=secret)    # what `up` will make

`plan`, the module, and `checks` are plain data that the whole house reads, agents included; so pydantic and YAML are
imported only when somebody loads a topology or wants its schema.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from labctl.topology.problems import Problem, TopologyErrors

if TYPE_CHECKING:
    from labctl.topology.model import Topology

__all__ = ["Problem", "TopologyErrors", "load", "read", "schema"]


def load(path: Path | str) -> Topology:
    """The topology in the file at `path`. Raises TopologyErrors."""
    from labctl.topology.resolve import load as load_file

    return load_file(Path(path))


def read(text: str, file: str = "topology.yml") -> Topology:
    """The topology that `text` says; `file` stands in the errors. Raises TopologyErrors."""
    from labctl.topology.resolve import read as read_text

    return read_text(text, file)


def schema() -> dict[str, Any]:
    """The JSON Schema of topology files, from the models that read them."""
    from labctl.topology.raw import schema as schema_of_models

    return schema_of_models()
