"""The `exec` operation: a program of the node on pipes or on a terminal of its own (docs/internals.md, The agent)."""

from __future__ import annotations

import asyncio
import base64
import binascii
import errno
import fcntl
import os
import signal
import struct
import termios
from contextlib import suppress
from typing import Any

from labctl.door import Call, DoorError
from labctl.node.arguments import Arguments, bad_argument
from labctl.node.children import Children, environment_of_commands
from labctl.node.waiting import readable, writable

CHUNK = 65536

# What a process wrote itself is in its pipes when it ends; a child that lives on and writes is not waited for.
LAST_OCTETS = 1 << 20

# Chunks of standard input that wait for a program that does not read.
STDIN_BACKLOG = 256

# Between asking a process group to end and ending it, seconds.
GRACE = 1.0

END_OF_TRANSMISSION = b"\x04"


async def execute(call: Call, children: Children) -> dict[str, Any]:
    """Serve one `exec` until the program has ended; cancelled, its process group ends. Raises DoorError."""
    args = Arguments("exec", call.args).known("argv", "tty", "rows", "cols", "environment")
    argv = args.strings("argv")
    additions = args.mapping("environment")
    size = None
    if args.flag("tty"):
        size = args.integer("rows", 24, 1, 65535), args.integer("cols", 80, 1, 65535)
    environment = environment_of_commands(additions, tty=size is not None)
    return await _Execution(call, children, argv, environment, size).run()


class _Execution:
    """One program while it runs. `size` (rows, columns) asks for a terminal."""

    def __init__(
        self, call: Call, children: Children, argv: list[str], environment: dict[str, str], size: tuple[int, int] | None
    ) -> None:
        self._call = call
        self._stdin: asyncio.Queue[bytes | None] = asyncio.Queue(STDIN_BACKLOG)
        self._outputs: dict[str, int] = {}
        self._input: int | None = None
        self._terminal = size is not None
        theirs = self._open_terminal(size) if size is not None else self._open_pipes()
        try:
            self._child = children.start(argv, *theirs, environment, tty=self._terminal)
        except OSError as error:
            self._close()
            raise _cannot_run(argv[0], error) from None
        except BaseException:
            self._close()
            raise
        finally:
            for descriptor in set(theirs):
                os.close(descriptor)

    async def run(self) -> dict[str, Any]:
        """Carry octets both ways until the end."""
        pumps = [asyncio.create_task(self._pump(name, descriptor)) for name, descriptor in self._outputs.items()]
        aside = [asyncio.create_task(work) for work in (self._take_items(), self._feed(), self._end_on_cancel())]
        try:
            await asyncio.gather(*pumps)
            return {"exit": await self._child.exited}
        finally:
            # Reached before its end only if the requester is gone: nobody waits for the program any more.
            if self._call.cancelled.is_set() or not self._child.exited.done():
                self._child.signal(signal.SIGKILL)
            for task in (*pumps, *aside):
                task.cancel()
            await asyncio.gather(*pumps, *aside, return_exceptions=True)
            self._close()

    def _open_pipes(self) -> tuple[int, int, int]:
        (their_in, our_in), (our_out, their_out), (our_err, their_err) = os.pipe(), os.pipe(), os.pipe()
        self._input = our_in
        self._outputs = {"stdout_b64": our_out, "stderr_b64": our_err}
        for descriptor in (our_in, our_out, our_err):
            os.set_blocking(descriptor, False)
        return their_in, their_out, their_err

    def _open_terminal(self, size: tuple[int, int]) -> tuple[int, int, int]:
        try:
            ours, theirs = os.openpty()
        except OSError as error:
            raise DoorError("no-terminal", f"the node cannot make a terminal: {error.strerror}") from None
        os.set_blocking(ours, False)
        self._input = ours
        self._outputs = {"stdout_b64": ours}
        self._resize(*size)
        return theirs, theirs, theirs

    def _close(self) -> None:
        descriptors = {*self._outputs.values()} | ({self._input} if self._input is not None else set())
        self._outputs, self._input = {}, None
        for descriptor in descriptors:
            os.close(descriptor)

    async def _pump(self, name: str, descriptor: int) -> None:
        exited = self._child.exited
        left = LAST_OCTETS
        while left > 0:
            ended = exited.done()
            try:
                data = os.read(descriptor, CHUNK)
            except BlockingIOError:
                if ended:
                    return
                await readable(descriptor, exited)
                continue
            except OSError as error:
                if error.errno != errno.EIO:  # a terminal that nobody has open any more (pty(7))
                    raise
                return
            if not data:
                return
            await self._call.send({name: base64.b64encode(data).decode()})
            if ended:
                left -= len(data)

    async def _take_items(self) -> None:
        async for item in self._call:
            if "stdin_b64" in item:
                try:
                    data = base64.b64decode(item["stdin_b64"], validate=True)
                except (binascii.Error, TypeError):
                    continue  # not octets: nothing a program could be given
                if data:
                    await self._stdin.put(data)
            elif item.get("stdin_eof"):
                await self._stdin.put(None)
            elif "signal" in item:
                self._signal(item["signal"])
            elif isinstance(item.get("rows"), int) and isinstance(item.get("cols"), int):
                self._resize(item["rows"], item["cols"])

    async def _feed(self) -> None:
        """Write standard input as fast as the program takes it; one that has closed it gets no more."""
        while self._input is not None:
            data = await self._stdin.get()
            if data is None and not self._terminal:
                os.close(self._input)
                self._input = None
                return
            view = memoryview(END_OF_TRANSMISSION if data is None else data)
            while view:
                try:
                    view = view[os.write(self._input, view) :]
                except BlockingIOError:
                    await writable(self._input)
                except OSError:  # EPIPE, or EIO on a terminal: it reads no more
                    view = view[:0]

    async def _end_on_cancel(self) -> None:
        await self._call.cancelled.wait()
        # A shell passes the hang-up of its terminal on to its jobs; other programs expect SIGTERM.
        self._child.signal(signal.SIGHUP if self._terminal else signal.SIGTERM)
        with suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(self._child.exited), GRACE)
        self._child.signal(signal.SIGKILL)

    def _signal(self, name: object) -> None:
        number = signal_number(name)
        if number is None:
            return
        if self._terminal and self._input is not None:
            with suppress(OSError):
                # What runs in the foreground of the terminal, as its Ctrl-C would.
                os.killpg(os.tcgetpgrp(self._input), number)
            return
        self._child.signal(number)

    def _resize(self, rows: int, cols: int) -> None:
        if self._terminal and self._input is not None and 0 < rows < 65536 and 0 < cols < 65536:
            fcntl.ioctl(self._input, termios.TIOCSWINSZ, struct.pack("HHHH", rows, cols, 0, 0))


def signal_number(name: object) -> int | None:
    """A signal by number or by name, with or without SIG; None if there is no such signal."""
    try:
        if isinstance(name, str):
            return int(signal.Signals["SIG" + name.upper().removeprefix("SIG")])
        if isinstance(name, int):
            return int(signal.Signals(name))
    except (KeyError, ValueError):
        return None
    return None


def _cannot_run(program: str, error: OSError) -> DoorError:
    if isinstance(error, FileNotFoundError):
        return DoorError(
            "command-not-found", f"{program}: command not found", "a node has its host's or image's programs"
        )
    if isinstance(error, PermissionError):
        return DoorError("not-executable", f"{program}: {error.strerror}")
    if error.errno == errno.E2BIG:
        return bad_argument("exec", "argv", "the arguments are too long")
    return DoorError("exec-failed", f"{program}: {error.strerror}")
