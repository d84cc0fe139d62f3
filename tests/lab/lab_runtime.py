"""A runtime in memory: what `up` and `down` ask of it is written down, and it can fail where a test says.

The journal, the lock, the directory and the door's protocol are the real ones.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from typing import Any

from labctl.configuration import from_json
from labctl.door import Call, Connection, DoorError
from labctl.door.connection import EventHandler
from labctl.runtime.protocol import (
    Availability,
    JournalEntry,
    LabNotRunning,
    LabPaths,
    Leftover,
    Record,
    RuntimeFailure,
)
from labctl.topology.plan import Plan


class MemoryRuntime:
    """`fail` names the step that fails: start, create, build; `never_ready` are nodes that wait for ever."""

    name = "namespaces"

    def __init__(self) -> None:
        self.fail = ""
        self.never_ready: set[str] = set()
        self.broken: set[str] = set()
        self.running = False
        self.states: dict[str, str] = {}
        self.done: list[str] = []
        self.hold: asyncio.Event | None = None
        self._servers: list[Connection] = []

    async def probe(self) -> Availability:
        if self.fail == "probe":
            return Availability(False, "no namespaces here", "get a kernel")
        return Availability(True)

    async def start(
        self, paths: LabPaths, plan: Plan, record: Record, *, on_event: EventHandler | None = None
    ) -> Connection:
        record({"kind": "supervisor", "pid": 4711})
        self.running = True
        self.done.append("start")
        if self.fail == "start":
            raise RuntimeFailure("the supervisor did not start", "try again")
        return await self.connect(paths)

    async def connect(self, paths: LabPaths, *, on_event: EventHandler | None = None) -> Connection:
        if not self.running:
            raise LabNotRunning(f"lab {paths.name} is not running")
        ours, theirs = socket.socketpair()
        self._servers.append(await Connection.over(theirs, handler=self._serve))
        return await Connection.over(ours)

    async def create(self, paths: LabPaths, plan: Plan, nodes: Sequence[str], record: Record) -> dict[str, int]:
        for number, node in enumerate(nodes):
            record({"kind": "container", "name": node, "pid": number})
        self.done.append(f"create {' '.join(nodes)}")
        if self.fail == "create":
            raise RuntimeFailure("no room for containers")
        return {}

    async def remove(self, paths: LabPaths, nodes: Sequence[str]) -> None:
        self.done.append(f"remove {' '.join(nodes)}")

    async def destroy(self, paths: LabPaths, journal: Sequence[JournalEntry]) -> list[Leftover]:
        self.done.append(f"destroy {len(journal)}")
        found = await self.leftovers(paths, journal)
        if self.fail != "destroy":
            self.running, self.states = False, {}
        return found

    async def leftovers(self, paths: LabPaths, journal: Sequence[JournalEntry]) -> list[Leftover]:
        return [Leftover(self.name, paths.name, "process", "4711")] if self.running else []

    async def _serve(self, call: Call) -> dict[str, Any]:
        args = call.args
        if call.op == "build":
            plan = from_json(Plan, args["plan"])
            self.done.append(f"build {' '.join(args['nodes'])}")
            if self.fail == "build":
                raise DoorError("system", "the kernel refused a link", "look at its log")
            if self.hold is not None:
                self.hold.set()
                await call.cancelled.wait()
            for name in args["nodes"]:
                assert plan.node(name)
                self.states[name] = "failed" if name in self.broken else "booting"
                await call.send(self._item(name))
            return {"phases": {}, "nodes": {name: self._item(name) for name in args["nodes"]}}
        if call.op == "wait":
            for name in args["nodes"]:
                if self.states[name] == "booting" and name not in self.never_ready:
                    self.states[name] = "ready"
                await call.send(self._item(name))
            ready = all(self.states[name] == "ready" for name in args["nodes"])
            return {"ready": ready, "nodes": {name: self._item(name) for name in args["nodes"]}}
        if call.op == "remove":
            for name in args["nodes"]:
                self.states.pop(name, None)
            self.done.append(f"door-remove {' '.join(args['nodes'])}")
            return {}
        if call.op == "status":
            return {"lab": "chain", "nodes": {name: self._item(name) for name in self.states}, "links": []}
        if call.op == "events":
            for line in ("aa,bb", "aa,bb", "cc,dd"):
                if args.get("keylog"):
                    await call.send({"seq": 1, "time": 0.0, "type": "keylog", "kind": "isakmp", "line": line})
            return {"last": 1}
        if call.op == "logs":
            for name in args["nodes"] or self.states:
                await call.send({"seq": 1, "time": 0.0, "node": name, "text": f"%SYS-3-TEST: {name} said so"})
            return {"last": 1}
        raise DoorError("unknown-op", f"no op {call.op}")

    def _item(self, name: str) -> dict[str, Any]:
        waits = {"booting": "waits for 10.0.0.1", "failed": "the agent died"}
        state = self.states[name]
        return {"node": name, "state": state, "reason": waits.get(state, ""), "elapsed": 0.1}
