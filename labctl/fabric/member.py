"""One node as the fabric knows it: its agent's connection, and the state it is in."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from labctl.configuration import to_json
from labctl.door import Connection, DoorError
from labctl.fabric.nodes import NodeHandle
from labctl.topology.checks import was_refused
from labctl.topology.plan import PlannedNode

# An agent answers within milliseconds. One that does not for this many seconds is shown as not answering.
STATUS_TIMEOUT = 3.0

StateListener = Callable[["Member"], None]
EventListener = Callable[[str, dict[str, Any]], None]


class Member:
    """A node of the lab from the moment it is asked for.

    `state` is one of creating, created, wired, booting, ready, failed; `reason` says why where there is something to
    say; `elapsed` is the seconds from the request to the present state.
    """

    def __init__(self, planned: PlannedNode, *, on_state: StateListener, on_event: EventListener) -> None:
        self.planned = planned
        self.handle: NodeHandle | None = None
        self.connection: Connection | None = None
        self.state = "creating"
        self.reason = ""
        self.groups: list[Any] = []
        self.elapsed = 0.0
        self._began = time.monotonic()
        self._on_state = on_state
        self._on_event = on_event

    @property
    def name(self) -> str:
        """The node's name."""
        return self.planned.name

    @property
    def is_settled(self) -> bool:
        """True in a state that passes only if something new happens."""
        return self.state in ("ready", "failed")

    @property
    def is_refused(self) -> bool:
        """True if it only waits for groups that would not have it."""
        waiting = [group for group in self.groups if group.get("state") == "registering"]
        return self.state == "booting" and bool(waiting) and all(was_refused(group) for group in waiting)

    def progress(self) -> dict[str, Any]:
        """The stream item of `build` and `wait`."""
        return {"node": self.name, "state": self.state, "reason": self.reason, "elapsed": round(self.elapsed, 4)}

    def enter(self, state: str, reason: str = "") -> None:
        """Change state, and tell."""
        if (state, reason) == (self.state, self.reason):
            return
        self.state, self.reason = state, reason
        self.elapsed = time.monotonic() - self._began
        self._on_state(self)

    async def attach(self, handle: NodeHandle) -> None:
        """Begin to talk to the agent, over the socket that came with the node."""
        self.handle = handle
        self.connection = await Connection.over(handle.agent, on_event=self._event)

    async def boot(self) -> None:
        """Give the agent its configuration. Raises DoorError."""
        connection = self.agent()
        self.enter("booting")
        await connection.call("boot", configuration=to_json(self.planned.configuration))

    async def configure(self, planned: PlannedNode) -> list[str]:
        """Another configuration for the running agent; groups that have to be rekeyed. Raises DoorError."""
        result = await self.agent().call("configure", configuration=to_json(planned.configuration))
        self.planned = planned
        return [str(name) for name in result["groups"]]

    def agent(self) -> Connection:
        """The agent's connection. Raises DoorError where there is none."""
        if self.connection is None or self.connection.is_closed:
            raise DoorError(
                "node-down", f"the agent of {self.name} does not run: {self.reason or self.state}", "see `labctl logs`"
            )
        return self.connection

    async def status(self) -> dict[str, Any]:
        """What the agent says of itself, or what we know where it says nothing."""
        known: dict[str, Any] = {"name": self.name, "kind": self.planned.kind.value}
        known |= {"groups": self.groups, "interfaces": []}
        if self.state in ("booting", "ready"):
            try:
                async with asyncio.timeout(STATUS_TIMEOUT):
                    known |= await self.agent().call("status")
            except TimeoutError:
                known |= {"state": "failed", "reason": f"the agent gave no answer in {STATUS_TIMEOUT:.0f} s"}
            except DoorError as error:
                known |= {"state": self.state, "reason": self.reason or error.message}
        else:
            known |= {"state": self.state, "reason": self.reason}
        return known | {"pid": self.handle.pid if self.handle else None, "elapsed": round(self.elapsed, 4)}

    def _event(self, event: Any) -> None:
        if not isinstance(event, dict):
            return
        self._on_event(self.name, event)
        if event.get("type") == "state" and self.state != "failed":
            self.groups = event.get("groups") or self.groups
            if event.get("state") in ("booting", "ready", "failed"):
                self.enter(event["state"], str(event.get("reason") or ""))
