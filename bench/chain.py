"""A chain of routers: the lab that the runtimes and the peers build alike."""

from __future__ import annotations

import itertools
from pathlib import Path

NODES = 30


def write_chain(folder: Path, name: str, nodes: int = NODES) -> Path:
    """A topology of `nodes` provider routers in a row, r0 to rN."""
    names = [f"r{number}" for number in range(nodes)]
    lines = [f"name: {name}", "nodes:", *(f"  {node}: p" for node in names), "links:"]
    lines += [f"  - {left} -- {right}" for left, right in itertools.pairwise(names)]
    path = folder / f"{name}.yml"
    path.write_text("\n".join(lines) + "\n")
    return path
