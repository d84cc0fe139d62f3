"""The agent: serves the door, boots from a node configuration, plays the node's roles (docs/internals.md)."""

from __future__ import annotations

import asyncio
import importlib
import os
import socket
import sys
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from labctl.configuration import ConfigurationError, NodeConfiguration, from_json
from labctl.door import Call, Connection, DoorClosed, DoorError
from labctl.node.capture import capture
from labctl.node.clock import Clock
from labctl.node.execute import execute
from labctl.node.probing import probe, respond

if TYPE_CHECKING:
    from labctl.node.roles.play import Roles

Operation = Callable[[Call], Awaitable[dict[str, Any]]]


class Agent:
    """One node. Every connection of the door gets every event."""

    def __init__(self) -> None:
        self.stopped = asyncio.Event()
        self._connections: set[Connection] = set()
        self._configuration: NodeConfiguration | None = None
        self._roles: Roles | None = None
        self._state = "created"
        self._reason = ""
        self._since = time.time()
        self._tasks: set[asyncio.Task[None]] = set()
        self._operations: dict[str, Operation] = {
            "boot": self._boot,
            "status": self._status,
            "exec": execute,
            "capture": lambda call: capture(call, self._configured().interfaces),
            "probe": probe,
            "respond": respond,
            "counters": self._counters,
            "shutdown": self._shutdown,
        }

    async def attach(self, sock: socket.socket) -> Connection:
        """Serve a connection from now on."""
        connection = await Connection.over(sock, handler=self.serve, hello={"agent": os.getpid()})
        self._connections.add(connection)
        return connection

    def detach(self, connection: Connection) -> None:
        """Forget a connection that has ended."""
        self._connections.discard(connection)

    async def serve(self, call: Call) -> dict[str, Any]:
        """The handler of every request. Raises DoorError."""
        operation = self._operations.get(call.op)
        if operation is None:
            known = ", ".join(self._operations)
            raise DoorError("unknown-op", f"an agent has no operation {call.op!r}", f"it has {known}")
        try:
            return await operation(call)
        except (KeyError, TypeError, ValueError) as error:
            raise DoorError("bad-request", f"{call.op}: arguments that make no sense: {error}") from None
        except OSError as error:
            raise DoorError("system", f"{call.op}: {error.strerror or error}") from None

    def tell(self, event: dict[str, Any]) -> None:
        """Send an event to whoever listens."""
        for connection in list(self._connections):
            task = asyncio.get_running_loop().create_task(self._send(connection, event))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def stop(self) -> None:
        """Leave the groups and end."""
        if self._roles is not None:
            self._roles.stop()
            self._roles = None
        self.stopped.set()

    @staticmethod
    async def _send(connection: Connection, event: dict[str, Any]) -> None:
        try:
            await connection.event(event)
        except DoorClosed:
            return  # Nobody listens there any more.

    def _configured(self) -> NodeConfiguration:
        if self._configuration is None:
            raise DoorError("not-booted", "the node has not booted yet")
        return self._configuration

    async def _boot(self, call: Call) -> dict[str, Any]:
        if self._configuration is not None:
            raise DoorError("booted", "the node has booted already")
        try:
            configuration = from_json(NodeConfiguration, call.args.get("configuration"))
        except ConfigurationError as error:
            raise DoorError("bad-configuration", str(error)) from None
        self._configuration = configuration
        self._enter("booting", "")
        clock = Clock(configuration.clock_scale)
        has_roles = configuration.key_server_groups or configuration.memberships
        if has_roles or any(interface.crypto_map for interface in configuration.interfaces):
            play = importlib.import_module("labctl.node.roles.play")
            self._roles = play.Roles(configuration, clock, self.tell, self._changed)
            try:
                await self._roles.start()
            except OSError as error:
                # The agent lives on, so that one can look at the node.
                self._enter("failed", f"a role could not start: {error.strerror or error}")
                return {}
        self._changed()
        return {}

    def _changed(self) -> None:
        waiting = "" if self._roles is None else self._roles.waiting_for()
        self._enter("booting" if waiting else "ready", waiting)

    def _enter(self, state: str, reason: str) -> None:
        if state != self._state:
            self._since = time.time()
        self._state, self._reason = state, reason
        self.tell({"type": "state", "time": time.time(), "state": state, "reason": reason, "groups": self._groups()})

    def _groups(self) -> list[dict[str, Any]]:
        return [] if self._roles is None else self._roles.status()

    async def _status(self, call: Call) -> dict[str, Any]:
        configuration = self._configured()
        return {
            "name": configuration.name,
            "kind": configuration.kind.value,
            "state": self._state,
            "reason": self._reason,
            "since": self._since,
            "groups": self._groups(),
            "interfaces": [
                {
                    "name": interface.name,
                    "mac": interface.mac,
                    "addresses": [str(address) for address in interface.addresses],
                    "crypto_map": interface.crypto_map,
                }
                for interface in configuration.interfaces
            ],
        }

    async def _counters(self, call: Call) -> dict[str, Any]:
        self._configured()
        return {"crypto": {} if self._roles is None else self._roles.counters()}

    async def _shutdown(self, call: Call) -> dict[str, Any]:
        # The answer leaves first: the connection ends when the agent does.
        asyncio.get_running_loop().call_soon(self.stop)
        return {}


def preload() -> None:
    """Import what a node may need, so that forks of this process share it."""
    importlib.import_module("labctl.node.roles.play")
    importlib.import_module("asyncio.subprocess")


async def _serve_one(sock: socket.socket) -> None:
    agent = Agent()
    connection = await agent.attach(sock)
    closed = asyncio.create_task(connection.wait_closed())
    stopped = asyncio.create_task(agent.stopped.wait())
    await asyncio.wait({closed, stopped}, return_when=asyncio.FIRST_COMPLETED)
    agent.stop()
    # What was said last is still on its way.
    await asyncio.sleep(0)
    await connection.close()


def run(sock: socket.socket) -> None:
    """Be the agent on one connected socket until it closes: the entry of a node of a namespaces lab."""
    with asyncio.Runner() as runner:
        asyncio.set_event_loop(runner.get_loop())
        asyncio.get_event_loop_policy().set_child_watcher(_child_watcher(runner.get_loop()))
        runner.run(_serve_one(sock))


def _child_watcher(loop: asyncio.AbstractEventLoop) -> asyncio.AbstractChildWatcher:
    """Children are awaited by pidfd: no thread a command, no signal handler."""
    watcher = asyncio.PidfdChildWatcher()
    watcher.attach_loop(loop)
    return watcher


if sys.platform != "linux":  # pragma: no cover
    raise ImportError("agents run on Linux only")
