"""Runs a verb's coroutine so that Ctrl-C, SIGTERM and a closed terminal all let it roll back first."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

TERMINATED_STATUS = 128 + signal.SIGTERM


def run(main: Coroutine[Any, Any, T]) -> T:
    """`asyncio.run`, with SIGTERM and SIGHUP taken as a wish to stop in good order: SystemExit(143) after it."""
    return asyncio.run(_until_told(main))


async def _until_told(main: Coroutine[Any, Any, T]) -> T:
    loop = asyncio.get_running_loop()
    task = asyncio.ensure_future(main)
    told = False

    def stop() -> None:
        nonlocal told
        if not told:  # a second signal must not cut the roll-back short
            told = True
            task.cancel()

    for number in (signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stop)
    try:
        return await task
    except asyncio.CancelledError:
        if told:
            raise SystemExit(TERMINATED_STATUS) from None
        raise
