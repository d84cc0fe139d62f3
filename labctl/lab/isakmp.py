"""Phase 1 of a node: the `isakmp` op of the agents."""

from __future__ import annotations

from typing import Any

from labctl.door import DoorError
from labctl.lab.directory import LabDirectory
from labctl.lab.errors import BadRequest
from labctl.lab.session import opened
from labctl.lab.standing import require_node


async def isakmp_of(directory: LabDirectory, node: str) -> dict[str, Any]:
    """`associations` and `counters` of a node, as its agent says them. Raises BadRequest."""
    require_node(directory, node)
    async with opened(directory) as connection:
        try:
            return dict(await connection.call("node", name=node, op="isakmp", args={}))
        except DoorError as error:
            if error.code != "not-served":
                raise
            raise BadRequest(f"{node}: {error.message}", error.hint) from None
