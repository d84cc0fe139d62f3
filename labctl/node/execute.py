"""`exec`: a command in the node, with pipes or a terminal, streamed over the door."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import fcntl
import os
import pty
import signal
import struct
import termios
from typing import Any

from labctl.door import Call, DoorError

CHUNK = 65_536

# What a command finds where the requester says nothing else.
ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
    "TERM": "dumb",
}

# How long a cancelled command may take to end before it is killed.
GRACE_SECONDS = 1.0


def _set_size(descriptor: int, rows: int, columns: int) -> None:
    fcntl.ioctl(descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def _checked(args: dict[str, Any]) -> tuple[list[str], dict[str, str]]:
    argv = args.get("argv")
    if not isinstance(argv, list) or not argv or not all(isinstance(word, str) for word in argv):
        raise DoorError("bad-request", "exec takes argv, a list of words", "labctl exec NODE -- COMMAND")
    environment = args.get("environment") or {}
    if not isinstance(environment, dict):
        raise DoorError("bad-request", "exec takes environment as a mapping")
    return argv, ENVIRONMENT | {str(key): str(value) for key, value in environment.items()}


async def execute(call: Call) -> dict[str, Any]:
    """Serve `exec`. The result is `{"exit": status}`; 128 + n for a command that signal n ended."""
    argv, environment = _checked(call.args)
    runner = _Terminal(call) if call.args.get("tty") else _Pipes(call)
    try:
        await runner.start(argv, environment)
    except FileNotFoundError:
        raise DoorError("not-found", f"{argv[0]}: no such command in this node") from None
    except (PermissionError, OSError, ValueError) as error:
        raise DoorError("not-executable", f"{argv[0]}: {error}") from None
    status = await runner.run()
    return {"exit": 128 - status if status < 0 else status}


class _Runner:
    """What both kinds of run share: input from the requester, signals, the end."""

    def __init__(self, call: Call) -> None:
        self.call = call
        self.process: asyncio.subprocess.Process

    async def start(self, argv: list[str], environment: dict[str, str]) -> None:
        raise NotImplementedError

    async def pump_output(self) -> None:
        raise NotImplementedError

    async def write(self, data: bytes) -> None:
        raise NotImplementedError

    def end_input(self) -> None:
        raise NotImplementedError

    def resize(self, rows: int, columns: int) -> None:
        """Only a terminal has a size."""

    async def run(self) -> int:
        output = asyncio.create_task(self.pump_output())
        control = asyncio.create_task(self._pump_control())
        try:
            status = await self.process.wait()
            # A child that outlives the command may hold the output open: what is there is sent, no more is awaited.
            await asyncio.wait({output}, timeout=GRACE_SECONDS)
            return status
        finally:
            for task in (output, control):
                task.cancel()
            await asyncio.gather(output, control, return_exceptions=True)
            self.close()

    def close(self) -> None:
        """Let go of descriptors."""

    async def _pump_control(self) -> None:
        async for item in self.call:
            if item.get("cancel"):
                break
            if "stdin_b64" in item:
                await self.write(base64.b64decode(item["stdin_b64"]))
            elif item.get("stdin_eof"):
                self.end_input()
            elif "rows" in item:
                self.resize(int(item["rows"]), int(item["cols"]))
            elif "signal" in item:
                self._kill(int(item["signal"]))
        # Nobody waits for the command any more.
        self._kill(signal.SIGHUP)
        await asyncio.sleep(GRACE_SECONDS)
        self._kill(signal.SIGKILL)

    def _kill(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError, ValueError):
            os.killpg(self.process.pid, number)


class _Pipes(_Runner):
    async def start(self, argv: list[str], environment: dict[str, str]) -> None:
        pipe = asyncio.subprocess.PIPE
        self.process = await asyncio.create_subprocess_exec(
            *argv, stdin=pipe, stdout=pipe, stderr=pipe, env=environment, start_new_session=True, cwd="/"
        )

    async def pump_output(self) -> None:
        await asyncio.gather(
            self._pump(self.process.stdout, "stdout_b64"), self._pump(self.process.stderr, "stderr_b64")
        )

    async def _pump(self, stream: asyncio.StreamReader | None, name: str) -> None:
        while stream is not None and (data := await stream.read(CHUNK)):
            await self.call.send({name: base64.b64encode(data).decode()})

    async def write(self, data: bytes) -> None:
        if self.process.stdin is not None:
            with contextlib.suppress(ConnectionError, RuntimeError):
                self.process.stdin.write(data)
                await self.process.stdin.drain()

    def end_input(self) -> None:
        if self.process.stdin is not None:
            self.process.stdin.close()


class _Terminal(_Runner):
    async def start(self, argv: list[str], environment: dict[str, str]) -> None:
        self._master, slave = pty.openpty()
        try:
            _set_size(slave, int(self.call.args.get("rows") or 24), int(self.call.args.get("cols") or 80))
            terminal = {"TERM": "xterm-256color"} if "TERM" not in (self.call.args.get("environment") or {}) else {}
            self.process = await asyncio.create_subprocess_exec(
                *argv,
                stdin=slave,
                stdout=slave,
                stderr=slave,
                env=environment | terminal,
                start_new_session=True,
                cwd="/",
                preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
            )
        except BaseException:
            os.close(self._master)
            raise
        finally:
            os.close(slave)
        os.set_blocking(self._master, False)

    async def pump_output(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                data = os.read(self._master, CHUNK)
            except BlockingIOError:
                await self._wait(loop.add_reader, loop.remove_reader)
                continue
            except OSError:
                return  # The last process on the terminal is gone.
            if not data:
                return
            await self.call.send({"stdout_b64": base64.b64encode(data).decode()})

    async def write(self, data: bytes) -> None:
        loop = asyncio.get_running_loop()
        while data:
            try:
                data = data[os.write(self._master, data) :]
            except BlockingIOError:
                await self._wait(loop.add_writer, loop.remove_writer)
            except OSError:
                return

    async def _wait(self, add: Any, remove: Any) -> None:
        ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def wake() -> None:
            if not ready.done():
                ready.set_result(None)

        add(self._master, wake)
        try:
            await ready
        finally:
            remove(self._master)

    def end_input(self) -> None:
        with contextlib.suppress(OSError):
            os.write(self._master, b"\x04")

    def resize(self, rows: int, columns: int) -> None:
        with contextlib.suppress(OSError):
            _set_size(self._master, rows, columns)

    def close(self) -> None:
        os.close(self._master)
