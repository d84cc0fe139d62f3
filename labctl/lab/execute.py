"""Commands on nodes: the `exec` op of the agent, with standard input, output and signals carried across the door."""

from __future__ import annotations

import asyncio
import base64
import concurrent.futures
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from labctl.door import Call, Connection, DoorError
from labctl.lab.directory import LabDirectory
from labctl.lab.session import opened
from labctl.lab.standing import require_node

CHUNK = 65536

# A command that a signal ended exits as a shell would say it.
SIGNAL_BASE = 128


class Sink(Protocol):
    """Where output of a command goes."""

    def write(self, data: bytes) -> None:
        """Take some octets."""

    def close(self) -> None:
        """Nothing more comes."""


@dataclass(frozen=True, slots=True)
class Output:
    """The two streams of one node's command."""

    stdout: Sink
    stderr: Sink


async def run_on_nodes(directory: LabDirectory, argv: Sequence[str], outputs: Mapping[str, Output]) -> int:
    """`execute` in a lab, with our own standard input; the first exit status that is not 0. Raises BadRequest."""
    for node in outputs:
        require_node(directory, node)
    async with opened(directory) as connection:
        statuses = await execute(connection, argv, outputs, stdin=sys.stdin.fileno())
    return next((status for status in statuses.values() if status), 0)


async def execute(
    connection: Connection,
    argv: Sequence[str],
    outputs: Mapping[str, Output],
    *,
    stdin: int | None = None,
    environment: Mapping[str, str] | None = None,
) -> dict[str, int]:
    """Run `argv` on every node of `outputs` at once; returns each one's exit status.

    `stdin` is a file descriptor whose octets all of them get. Ctrl-C and SIGTERM pass to the commands; the second
    time they end `execute` itself. Raises DoorError if a node cannot run it.
    """
    calls: dict[str, Call] = {}
    for node in outputs:
        args = {"argv": list(argv), "tty": False, "environment": dict(environment or {})}
        calls[node] = await connection.open("node", name=node, op="exec", args=args)
    feeder = asyncio.create_task(feed(stdin, list(calls.values())))
    interrupts = _Interrupts(list(calls.values()))
    try:
        statuses = await asyncio.gather(*(_collect(call, outputs[node]) for node, call in calls.items()))
    except asyncio.CancelledError:
        for call in calls.values():
            await call.cancel()
        raise
    finally:
        interrupts.close()
        feeder.cancel()
    return dict(zip(calls, statuses, strict=True))


async def feed(stdin: int | None, calls: Sequence[Call]) -> None:
    """Send what comes on a descriptor to every call, then its end. A thread reads: a file cannot be polled."""
    if stdin is not None:
        async for data in read_descriptor(stdin):
            await _to_all(calls, {"stdin_b64": base64.b64encode(data).decode()})
    await _to_all(calls, {"stdin_eof": True})


async def read_descriptor(descriptor: int) -> AsyncIterator[bytes]:
    """Chunks from a descriptor until its end, one at a time, so that a slow taker slows the reading."""
    loop = asyncio.get_running_loop()
    chunks: asyncio.Queue[bytes] = asyncio.Queue(1)

    def read() -> None:
        while True:
            try:
                data = os.read(descriptor, CHUNK)
            except OSError:
                data = b""  # the terminal is gone: that is the end of input
            try:
                asyncio.run_coroutine_threadsafe(chunks.put(data), loop).result()
            except (RuntimeError, asyncio.CancelledError, concurrent.futures.CancelledError):
                return  # the loop ended while we waited for input
            if not data:
                return

    # A daemon: a read that never returns must not hold labctl when the command has ended.
    threading.Thread(target=read, name="stdin", daemon=True).start()
    while data := await chunks.get():
        yield data


async def _to_all(calls: Sequence[Call], item: dict[str, Any]) -> None:
    for call in calls:
        await call.send(item)


async def _collect(call: Call, output: Output) -> int:
    async for item in call:
        if "stdout_b64" in item:
            output.stdout.write(base64.b64decode(item["stdout_b64"]))
        elif "stderr_b64" in item:
            output.stderr.write(base64.b64decode(item["stderr_b64"]))
    result = await call.result()
    output.stdout.close()
    output.stderr.close()
    return exit_status(result)


def exit_status(result: Mapping[str, Any]) -> int:
    """The shell's way to say how a command ended: a negative exit is a signal."""
    status = int(result["exit"])
    return SIGNAL_BASE - status if status < 0 else status


class _Interrupts:
    """Passes the first SIGINT or SIGTERM to the commands; restores what was there afterwards."""

    def __init__(self, calls: Sequence[Call]) -> None:
        self._calls = calls
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._main = asyncio.current_task()
        self._seen = False
        for number in (signal.SIGINT, signal.SIGTERM):
            self._loop.add_signal_handler(number, self._pass, number)

    def _pass(self, number: signal.Signals) -> None:
        if self._seen and self._main is not None:
            self._main.cancel()
            return
        self._seen = True
        task = asyncio.create_task(self._send(number))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _send(self, number: signal.Signals) -> None:
        try:
            await _to_all(self._calls, {"signal": number.name.removeprefix("SIG")})
        except DoorError:
            return  # `_collect` meets the same end and reports it

    def close(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._loop.remove_signal_handler(number)
