"""A running lab as a test sees it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from chain import Paths

from labctl.configuration import to_json
from labctl.door import Connection
from labctl.runtime.namespaces import NamespacesRuntime
from labctl.topology.plan import Plan

AGENT = "standin_agent:run"


class Lab:
    """A running lab, and the door that `start` returned."""

    def __init__(self, paths: Paths, runtime: NamespacesRuntime, door: Connection) -> None:
        self.paths = paths
        self.runtime = runtime
        self.door = door

    async def build(self, plan: Plan, nodes: list[str] | None = None) -> list[dict[str, Any]]:
        """Build, insist that no node failed, and return what was reported meanwhile."""
        call = await self.door.open("build", plan=to_json(plan), nodes=nodes)
        reported = [item async for item in call]
        result = await call.result()
        failed = {name: state for name, state in result["nodes"].items() if state["state"] == "failed"}
        assert failed == {}, (self.paths.logs / "_supervisor.log").read_text()
        return reported

    @property
    def supervisor(self) -> int:
        return int(self.paths.journal[0]["pid"])

    def processes(self) -> list[int]:
        """Host pids of everything in the lab's pid namespace."""
        namespace = Path(f"/proc/{self.supervisor}/ns/pid").stat().st_ino
        found = []
        for entry in Path("/proc").iterdir():
            try:
                if entry.name.isdigit() and (entry / "ns/pid").stat().st_ino == namespace:
                    found.append(int(entry.name))
            except OSError:
                continue
        return found


InLab = Callable[[Callable[[Lab], Awaitable[None]]], None]
