"""Events on their way to whoever listens: in order, without holding up the agent, bounded."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

from labctl.door import Connection, DoorClosed

# Events that wait for a connection that does not read, or for the first one to come.
MAX_WAITING = 10_000


class Outbox:
    """The events of one connection. A reader that is too slow loses the oldest and is told how many."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._waiting: deque[dict[str, Any]] = deque()
        self._lost = 0
        self._filled = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()
        self._task = asyncio.create_task(self._carry())

    def put(self, event: dict[str, Any]) -> None:
        """Send an event when its turn comes."""
        self._waiting.append(event)
        if len(self._waiting) > MAX_WAITING:
            self._waiting.popleft()
            self._lost += 1
        self._filled.set()
        self._empty.clear()

    async def flush(self) -> None:
        """Return when everything has been handed to the connection, or it is closed."""
        closed = asyncio.create_task(self._connection.wait_closed())
        empty = asyncio.create_task(self._empty.wait())
        await asyncio.wait({closed, empty}, return_when=asyncio.FIRST_COMPLETED)
        closed.cancel()
        empty.cancel()

    def close(self) -> None:
        """Send nothing more."""
        self._task.cancel()

    async def _carry(self) -> None:
        try:
            while True:
                await self._filled.wait()
                self._filled.clear()
                while self._waiting:
                    if self._lost:
                        lost, self._lost = self._lost, 0
                        await self._connection.event({"type": "lost", "count": lost})
                    await self._connection.event(self._waiting.popleft())
                self._empty.set()
        except DoorClosed:
            self._waiting.clear()  # nobody listens there any more
