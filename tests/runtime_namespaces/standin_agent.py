"""A small agent that keeps the door's contract: these tests need nodes that answer, not nodes that speak GDOI."""

from __future__ import annotations

import asyncio
import base64
import socket
from typing import Any

from labctl.door import Call, Connection, DoorError


def run(sock: socket.socket) -> None:
    """Serve one connection until it closes."""
    asyncio.run(_serve(sock))


async def _serve(sock: socket.socket) -> None:
    agent = StandIn()
    agent.connection = await Connection.over(sock, handler=agent.handle)
    await agent.connection.wait_closed()


class StandIn:
    """Answers boot, status, exec, echo, and two floods."""

    def __init__(self) -> None:
        self.connection: Connection | None = None
        self.configuration: dict[str, Any] = {}
        self.flooded = 0

    async def handle(self, call: Call) -> dict[str, Any]:
        serve = getattr(self, f"_{call.op}", None)
        if serve is None:
            raise DoorError("unknown-op", f"an agent has no op {call.op!r}")
        result: dict[str, Any] = await serve(call)
        return result

    async def _boot(self, call: Call) -> dict[str, Any]:
        assert self.connection is not None
        self.configuration = call.args["configuration"]
        name = self.configuration["name"]
        if name.startswith("broken"):
            raise DoorError("boot", "this node was told to fail")
        log = {"type": "log", "facility": "SYS", "severity": 5, "mnemonic": "RESTART", "text": f"{name} boots"}
        await self.connection.event(log)
        await self.connection.event({"type": "keylog", "kind": "kek", "key": "00"})
        await self.connection.event({"type": "state", "state": "ready", "reason": "", "groups": []})
        return {}

    async def _status(self, call: Call) -> dict[str, Any]:
        return {"name": self.configuration["name"], "state": "ready", "reason": "", "flooded": self.flooded}

    async def _exec(self, call: Call) -> dict[str, Any]:
        process = await asyncio.create_subprocess_exec(
            *call.args["argv"], stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        assert process.stdout is not None
        cancelled = asyncio.create_task(call.cancelled.wait())
        cancelled.add_done_callback(lambda task: None if task.cancelled() else process.kill())
        while data := await process.stdout.read(65536):
            await call.send({"stdout_b64": base64.b64encode(data).decode()})
        exit_status = await process.wait()
        cancelled.cancel()
        return {"exit": exit_status}

    async def _echo(self, call: Call) -> dict[str, Any]:
        count = 0
        async for item in call:
            if call.cancelled.is_set():
                break
            count += 1
            await call.send({"echo": item})
        return {"count": count}

    async def _flood(self, call: Call) -> dict[str, Any]:
        for number in range(call.args["count"]):
            await call.send({"packets": [[number, 0, "x" * 1024]]})
            self.flooded += 1
        return {"dropped": 0}

    _capture = _flood
