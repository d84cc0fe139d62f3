"""Keys of a lab as they come: every key server and member is asked, and asked again when it was away."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from labctl.door import Call, Connection, DoorError
from labctl.lab.keylog import KeyTables
from labctl.topology.plan import Plan

# Until a node that did not answer is asked again: it may be down, or being replaced.
AGAIN_SECONDS = 1.0


class KeyListening:
    """Puts the keys that nodes hold, and those that come, into `keys`, from `begin` to `end`; `news` after each.

    The lab needs no key log for it, and keeps none.
    """

    def __init__(self, connection: Connection, plan: Plan, keys: KeyTables, news: Callable[[], None]) -> None:
        self._connection = connection
        self._keys = keys
        self._news = news
        parts = [node.configuration for node in plan.nodes]
        self._nodes = [item.name for item in parts if item.key_server_groups or item.memberships]
        self._answered = {name: asyncio.Event() for name in self._nodes}
        self._calls: dict[str, Call] = {}
        self._ending = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def begin(self) -> None:
        """Return once every node that answers has said what it holds."""
        self._tasks = [asyncio.create_task(self._listen(name)) for name in self._nodes]
        await asyncio.gather(*(answered.wait() for answered in self._answered.values()))

    async def end(self) -> None:
        """Return once every node has said what came until now."""
        self._ending.set()
        for call in list(self._calls.values()):
            await call.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _listen(self, name: str) -> None:
        while not (self._ending.is_set() or self._connection.is_closed):
            with contextlib.suppress(DoorError):  # the node is not there, or went away
                await self._hear(name)
            self._answered[name].set()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ending.wait(), AGAIN_SECONDS)
        self._answered[name].set()

    async def _hear(self, name: str) -> None:
        """One call, to its end. Raises DoorError."""
        call = await self._connection.open("node", name=name, op="keylog", args={})
        self._calls[name] = call
        try:
            if self._ending.is_set():
                await call.cancel()
            async for item in call:
                if [line for kind, line in item["keys"] if self._keys.add(kind, line)]:
                    self._news()
                self._answered[name].set()
            await call.result()
        finally:
            del self._calls[name]
