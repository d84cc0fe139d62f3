"""An agent in this process, and the requests that tests make of it over a real connection."""

from __future__ import annotations

import asyncio
import base64
import socket
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from labctl.configuration import NodeConfiguration, NodeKind, to_json
from labctl.door import Call, Connection
from labctl.node.agent import Agent

HOST = NodeConfiguration("h1", NodeKind.HOST)


def run(main: Coroutine[Any, Any, None], seconds: float = 30) -> None:
    """Run a test's coroutine, bounded."""
    asyncio.run(asyncio.wait_for(main, seconds))


@dataclass
class Events:
    """What an agent told. `until` waits for an event that is, or already was, there."""

    seen: list[dict[str, Any]] = field(default_factory=list)
    _grown: asyncio.Event = field(default_factory=asyncio.Event)

    def take(self, event: dict[str, Any]) -> None:
        self.seen.append(event)
        self._grown.set()

    async def until(self, **wanted: Any) -> dict[str, Any]:
        """The first event with these values."""
        while True:
            for event in self.seen:
                if all(event.get(key) == value for key, value in wanted.items()):
                    return event
            await self._more()

    async def until_reason(self, *words: str) -> str:
        """The first state whose reason has all these words."""
        while True:
            for event in self.seen:
                if event["type"] == "state" and all(word in event["reason"] for word in words):
                    return str(event["reason"])
            await self._more()

    async def _more(self) -> None:
        self._grown.clear()
        try:
            await self._grown.wait()
        except asyncio.CancelledError:
            print("what was told until then:", *self.seen, sep="\n    ")
            raise

    def logs(self) -> list[str]:
        return [event["mnemonic"] for event in self.seen if event["type"] == "log"]


@dataclass
class Node:
    """The requester's side of an agent."""

    connection: Connection
    events: Events

    async def boot(self, configuration: NodeConfiguration = HOST) -> None:
        await self.connection.call("boot", configuration=to_json(configuration))

    async def call(self, op: str, **args: Any) -> dict[str, Any]:
        return await self.connection.call(op, **args)

    async def open(self, op: str, **args: Any) -> Call:
        return await self.connection.open(op, **args)

    async def execute(self, *argv: str, stdin: bytes = b"", **args: Any) -> tuple[bytes, bytes, int]:
        """Standard output, standard error and exit status of a command."""
        call = await self.open("exec", argv=list(argv), **args)
        if stdin:
            await call.send({"stdin_b64": encoded(stdin)})
        await call.send({"stdin_eof": True})
        return await outcome(call)


@asynccontextmanager
async def agent() -> AsyncIterator[Node]:
    """An agent of this very process on one end of a socket pair."""
    ours, theirs = socket.socketpair()
    served = Agent()
    attending = asyncio.create_task(served.attend(theirs))
    node = await connected(ours)
    try:
        yield node
    finally:
        await node.connection.close()
        await attending
        await served.close()


async def connected(sock: socket.socket) -> Node:
    """The requester's side over a socket at whose other end an agent is."""
    events = Events()
    connection = await Connection.over(sock, on_event=events.take)
    await connection.greeting()
    return Node(connection, events)


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


async def first_item(call: Call) -> dict[str, Any]:
    """The first stream item of a call. Raises DoorError where it failed instead."""
    async for item in call:
        return item
    raise AssertionError(f"no item came, but {await call.result()}")


def descriptors() -> int:
    """How many this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))


async def outcome(call: Call) -> tuple[bytes, bytes, int]:
    output = {"stdout_b64": b"", "stderr_b64": b""}
    async for item in call:
        for name, data in item.items():
            output[name] += base64.b64decode(data)
    result = await call.result()
    return output["stdout_b64"], output["stderr_b64"], int(result["exit"])


async def read_until(call: Call, wanted: bytes) -> bytes:
    """Output of a command, up to where `wanted` has come."""
    data = b""
    while wanted not in data:
        item = await first_item(call)
        data += base64.b64decode(next(iter(item.values())))
    return data


@dataclass
class Captured:
    """A capture that runs. `stop` ends it and gives its frames."""

    call: Call
    frames: list[bytes] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    times: list[int] = field(default_factory=list)
    directions: str = ""
    result: dict[str, Any] = field(default_factory=dict)

    @classmethod
    async def start(cls, node: Node, interface: str, **args: Any) -> Captured:
        call = await node.open("capture", interface=interface, **args)
        first = await first_item(call)
        assert first["packets"] == []
        return cls(call)

    async def stop(self) -> list[bytes]:
        await self.call.cancel()
        async for item in self.call:
            for time_ns, length, data in item["packets"]:
                self.frames.append(base64.b64decode(data))
                self.lengths.append(length)
                self.times.append(time_ns)
            self.directions += item["directions"]
        self.result = await self.call.result()
        return self.frames
