"""labctl's command line without the cost of starting Python: each command is a fork of a process that has it imported.

A test waits for a lab by asking it again and again, and nearly all that this costs is Python's start.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Protocol

SERVER = Path(__file__).with_name("warm_server.py")


class Running(Protocol):
    """What tests use of a command that runs, as `subprocess.Popen` has it."""

    pid: int
    stdout: IO[str] | None
    stderr: IO[str] | None

    @property
    def returncode(self) -> int | Any: ...

    def poll(self) -> int | None: ...
    def wait(self, timeout: float | None = None) -> int: ...
    def communicate(self, input: None = None, timeout: float | None = None) -> tuple[str, str]: ...
    def send_signal(self, sig: int) -> None: ...
    def kill(self) -> None: ...


class Forked:
    """A fork that runs a command line. Its standard input is `given`, or else /dev/null; text is UTF-8."""

    def __init__(self, words: Sequence[str], cwd: Path, env: Mapping[str, str], given: str | None = None) -> None:
        ends = [os.pipe2(os.O_CLOEXEC) for _ in range(3)]
        (out, stdout), (err, stderr), (self._status, status) = ends
        self._threads: list[threading.Thread] = []
        if given is None:
            stdin = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        else:
            stdin, feed = os.pipe2(os.O_CLOEXEC)
            self._begin(_write, feed, given)
        _request({"argv": list(words), "cwd": str(cwd), "env": dict(env)}, [stdin, stdout, stderr, status])
        self.stdout: IO[str] | None = os.fdopen(out, encoding="utf-8")
        self.stderr: IO[str] | None = os.fdopen(err, encoding="utf-8")
        self.returncode: int | None = None
        self.pid = int(self._line())
        self._words = list(words)
        self._once = threading.Lock()
        self._reads = False
        self._said: dict[str, str] = {}

    def __del__(self) -> None:
        os.close(self._status)

    def poll(self) -> int | None:
        """The exit status, if it has ended."""
        try:
            return self.wait(0)
        except subprocess.TimeoutExpired:
            return None

    def wait(self, timeout: float | None = None) -> int:
        """The exit status. Raises subprocess.TimeoutExpired."""
        if self.returncode is None:
            readable, _, _ = select.select([self._status], [], [], timeout)
            if not readable:
                raise subprocess.TimeoutExpired(self._words, timeout or 0)
        with self._once:
            if self.returncode is None:
                self.returncode = int(self._line())
            return self.returncode

    def communicate(self, input: None = None, timeout: float | None = None) -> tuple[str, str]:
        """Read all its output. Raises subprocess.TimeoutExpired, and may be called again."""
        end = None if timeout is None else time.monotonic() + timeout
        if not self._reads:
            self._reads = True
            for name in ("stdout", "stderr"):
                self._begin(self._read, name)
        for thread in self._threads:
            thread.join(_left(end))
            if thread.is_alive():
                raise subprocess.TimeoutExpired(self._words, timeout or 0)
        self.wait(_left(end))
        return self._said["stdout"], self._said["stderr"]

    def send_signal(self, sig: int) -> None:
        """Nothing where it has ended."""
        if self.poll() is None:
            os.kill(self.pid, sig)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def _line(self) -> bytes:
        """The next line of what the server tells."""
        said = b""
        while not said.endswith(b"\n"):
            got = os.read(self._status, 1)
            if not got:
                raise RuntimeError(f"the server of forks is gone; it was to run {self._words}")
            said += got
        return said

    def _read(self, name: str) -> None:
        stream: IO[str] | None = getattr(self, name)
        self._said[name] = "" if stream is None or stream.closed else stream.read()

    def _begin(self, work: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()


def run_forked(
    words: Sequence[str], cwd: Path, env: Mapping[str, str], given: str = "", *, timeout: float
) -> subprocess.CompletedProcess[str]:
    """Run a command line to its end; one that takes longer is killed. Raises subprocess.TimeoutExpired."""
    fork = Forked(words, cwd, env, given)
    try:
        out, err = fork.communicate(timeout=timeout)
    except BaseException:
        fork.kill()
        raise
    assert fork.returncode is not None
    return subprocess.CompletedProcess(list(words), fork.returncode, out, err)


def _write(file: int, text: str) -> None:
    data = text.encode()
    with contextlib.suppress(BrokenPipeError):  # it may not want to know
        while data:
            data = data[os.write(file, data) :]
    os.close(file)


def _left(end: float | None) -> float | None:
    return None if end is None else max(0.0, end - time.monotonic())


@functools.cache
def _server() -> socket.socket:
    """The control socket of this process's server, which ends with it."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        process = subprocess.Popen(
            [sys.executable, str(SERVER), str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            # No lab's label: the server is nothing that a lab leaves behind.
            env={name: value for name, value in os.environ.items() if name != "LABCTL_STATE"},
            cwd="/",
        )

    def end() -> None:
        ours.close()
        process.wait()

    atexit.register(end)
    return ours


def _request(request: Mapping[str, object], files: list[int]) -> None:
    """Have the server fork, and close our copies of the files."""
    try:
        socket.send_fds(_server(), [json.dumps(request).encode()], files)
    finally:
        for file in files:
            os.close(file)
