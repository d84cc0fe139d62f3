"""Carries one request between a client of the door and an agent, streams both ways, until either is done."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

from labctl.door import Call, Connection, DoorClosed, DoorError

# Stream items that wait here for a client that reads slowly. The agent's one connection serves everybody else too, so
# it is never made to wait: of a capture the rest is dropped and counted, as a capture does; anything else ends.
ITEMS_WAITING = 8192


async def pass_through(client: Call, agent: Connection, op: str, args: dict[str, Any]) -> dict[str, Any]:
    """Run `op` on the agent for the client's call, and return its result. Raises DoorError as the agent said it."""
    call = await agent.open(op, **args)
    outbound = asyncio.create_task(_to_agent(client, call))
    queue = _Outgoing(client, lossy=op == "capture")
    writer = asyncio.create_task(queue.write())
    too_slow = False
    try:
        # Read to the end in any case: what is left unread would stop the agent's connection for everybody.
        async for item in call:
            if not too_slow and not queue.put(item):
                too_slow = True
                await call.cancel()
        result = await call.result()
        if too_slow:
            raise DoorError(
                "too-slow", f"{ITEMS_WAITING} items of {op} wait to be read", "read faster, or ask for less"
            )
        queue.end()
        await writer
    finally:
        outbound.cancel()
        writer.cancel()
    if queue.dropped:
        result["dropped"] = result.get("dropped", 0) + queue.dropped
    return result


class _Outgoing:
    """Items on their way to the client, without holding up who brings them."""

    def __init__(self, client: Call, *, lossy: bool) -> None:
        self.dropped = 0
        self._client = client
        self._lossy = lossy
        self._items: deque[dict[str, Any]] = deque()
        self._wake = asyncio.Event()
        self._ended = False

    def put(self, item: dict[str, Any]) -> bool:
        """Take an item. False if there is no room for it and nothing may be lost."""
        if len(self._items) < ITEMS_WAITING:
            self._items.append(item)
            self._wake.set()
            return True
        self.dropped += len(item.get("packets", ())) if self._lossy else 0
        return self._lossy

    def end(self) -> None:
        """No more will come."""
        self._ended = True
        self._wake.set()

    async def write(self) -> None:
        """Send until the end, or until the client is gone."""
        try:
            while True:
                while self._items:
                    await self._client.send(self._items.popleft())
                if self._ended:
                    return
                self._wake.clear()
                await self._wake.wait()
        except DoorClosed:
            return  # _to_agent sees it too, and cancels the agent's call


async def _to_agent(client: Call, call: Call) -> None:
    try:
        async for item in client:
            if client.cancelled.is_set():
                break
            await call.send(item)
        # The client gave up or went away: what its request started ends with it.
        await call.cancel()
    except DoorClosed:
        return
