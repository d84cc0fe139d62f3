"""What a router of a lab says of its multicast routing."""

from __future__ import annotations

from typing import Any

from labctl.lab.directory import LabDirectory
from labctl.lab.errors import BadRequest
from labctl.lab.session import opened
from labctl.lab.standing import require_node


async def multicast_of(directory: LabDirectory, node: str) -> dict[str, Any]:
    """Its `level`, `neighbours`, `groups` and `flows` (labctl.node.multicast.router). Raises BadRequest."""
    require_node(directory, node)
    async with opened(directory) as connection:
        found = await connection.call("node", name=node, op="status", args={})
    if "multicast" not in found:
        raise BadRequest(
            f"{node}: this node does not route multicast",
            "routers (p, pe, ce) do, in labs with a group that has multicast rekeys",
        )
    return dict(found["multicast"])
