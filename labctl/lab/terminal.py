"""A shell on a node: the user's terminal in raw mode, joined to a terminal in the node."""

from __future__ import annotations

import asyncio
import base64
import fcntl
import os
import signal
import struct
import termios
import tty
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from labctl.door import Call, Connection, DoorError
from labctl.lab.directory import LabDirectory
from labctl.lab.errors import BadRequest
from labctl.lab.execute import exit_status, read_descriptor
from labctl.lab.session import opened
from labctl.lab.standing import require_node

STDIN, STDOUT = 0, 1

# bash where the node has it: its line editing is what a user expects of a shell.
SHELL = ("/bin/sh", "-c", "command -v bash >/dev/null && exec bash; exec sh")


async def run_on_terminal(directory: LabDirectory, node: str, argv: Sequence[str]) -> int:
    """`interactive` in a lab. Raises BadRequest for a node it does not have."""
    require_node(directory, node)
    async with opened(directory) as connection:
        return await interactive(connection, node, argv)


async def interactive(connection: Connection, node: str, argv: Sequence[str]) -> int:
    """Run `argv` on a terminal of the node until it ends; returns its exit status. Raises BadRequest without a tty."""
    if not (os.isatty(STDIN) and os.isatty(STDOUT)):
        raise BadRequest("a shell needs a terminal", f"to run one command: labctl exec {node} -- COMMAND")
    rows, cols = window_size()
    environment = {"TERM": os.environ.get("TERM", "xterm")}
    args = {"argv": list(argv), "tty": True, "rows": rows, "cols": cols, "environment": environment}
    call = await connection.open("node", name=node, op="exec", args=args)
    loop = asyncio.get_running_loop()
    tasks: set[asyncio.Task[None]] = set()

    def resized() -> None:
        rows, cols = window_size()
        task = asyncio.create_task(_send(call, {"rows": rows, "cols": cols}))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    with raw_mode(STDIN):
        loop.add_signal_handler(signal.SIGWINCH, resized)
        typing = asyncio.create_task(_type(call))
        try:
            async for item in call:
                data = item.get("stdout_b64") or item.get("stderr_b64")
                if data:
                    _write(base64.b64decode(data))
            return exit_status(await call.result())
        finally:
            typing.cancel()
            loop.remove_signal_handler(signal.SIGWINCH)


def window_size() -> tuple[int, int]:
    """(rows, columns) of the user's terminal."""
    rows, cols, _, _ = struct.unpack("HHHH", fcntl.ioctl(STDOUT, termios.TIOCGWINSZ, bytes(8)))
    return rows or 24, cols or 80


@contextmanager
def raw_mode(descriptor: int) -> Iterator[None]:
    """Every key goes to the node, Ctrl-C as well; the terminal is as it was afterwards, whatever happens."""
    before = termios.tcgetattr(descriptor)
    tty.setraw(descriptor, termios.TCSANOW)
    try:
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSAFLUSH, before)


async def _type(call: Call) -> None:
    try:
        async for data in read_descriptor(STDIN):
            await call.send({"stdin_b64": base64.b64encode(data).decode()})
        await call.send({"stdin_eof": True})
    except DoorError:
        return  # the reading side meets the same end and reports it


async def _send(call: Call, item: dict[str, Any]) -> None:
    try:
        await call.send(item)
    except DoorError:
        return


def _write(data: bytes) -> None:
    while data:
        data = data[os.write(STDOUT, data) :]
