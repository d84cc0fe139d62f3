"""Waiting for a descriptor on the running loop, once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any


async def readable(descriptor: int, *also: asyncio.Future[Any]) -> None:
    """Return when the descriptor can be read, or when one of `also` is done."""
    loop = asyncio.get_running_loop()
    await _either(lambda wake: loop.add_reader(descriptor, wake), lambda: loop.remove_reader(descriptor), *also)


async def writable(descriptor: int, *also: asyncio.Future[Any]) -> None:
    """Return when the descriptor can be written, or when one of `also` is done."""
    loop = asyncio.get_running_loop()
    await _either(lambda wake: loop.add_writer(descriptor, wake), lambda: loop.remove_writer(descriptor), *also)


async def _either(
    watch: Callable[[Callable[..., None]], object], unwatch: Callable[[], object], *also: asyncio.Future[Any]
) -> None:
    ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def wake(*_: object) -> None:
        if not ready.done():
            ready.set_result(None)

    watch(wake)
    for future in also:
        future.add_done_callback(wake)
    try:
        await ready
    finally:
        unwatch()
        for future in also:
            future.remove_done_callback(wake)
