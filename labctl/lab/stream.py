"""Logs and events of a running lab, item by item. An item `{lost: n}` says that n were forgotten before we came."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Sequence
from typing import Any

from labctl.door import Call
from labctl.lab.directory import LabDirectory
from labctl.lab.session import opened
from labctl.lab.standing import require_node

Take = Callable[[dict[str, Any]], None]


async def logs(
    directory: LabDirectory, nodes: Sequence[str], take: Take, *, follow: bool = False, lines: int | None = None
) -> None:
    """What the nodes (all of them, if none is named) logged: items `{time, node, text}`, oldest first."""
    for node in nodes:
        require_node(directory, node)
    async with opened(directory) as connection:
        call = await connection.open("logs", nodes=list(nodes) or None, follow=follow, lines=lines)
        await _drain(call, take)


async def events(directory: LabDirectory, take: Take, *, follow: bool = False, since: int = 0) -> None:
    """What happened: items `{seq, time, node, type, ...}` numbered above `since`. Keys are never among them."""
    async with opened(directory) as connection:
        await _drain(await connection.open("events", follow=follow, since=since), take)


async def _drain(call: Call, take: Take) -> None:
    """Take every item until the stream ends; Ctrl-C is how one ends a stream that follows, not a failure."""
    loop = asyncio.get_running_loop()
    stopping: set[asyncio.Task[None]] = set()
    reading = asyncio.ensure_future(_take_all(call, take))

    def stop() -> None:
        if stopping:
            reading.cancel()  # told twice: do not wait for the lab to agree
        else:
            stopping.add(asyncio.ensure_future(call.cancel()))

    loop.add_signal_handler(signal.SIGINT, stop)
    try:
        await reading
    finally:
        loop.remove_signal_handler(signal.SIGINT)
        await asyncio.gather(*stopping)


async def _take_all(call: Call, take: Take) -> None:
    async for item in call:
        take(item)
    await call.result()
