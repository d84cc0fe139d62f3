"""Processes that an agent starts, and as PID 1 of a container those that it inherits.

Exits come through pidfd_open(2): no thread, and no SIGCHLD handler that would take children from somebody else.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import subprocess
import termios
from collections.abc import Mapping, Sequence
from contextlib import suppress

# Where ip(8) and tcpdump(8) are, which an ordinary user's own PATH may lack.
SYSTEM_DIRECTORIES = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")

# A command that a signal ended exits as a shell would say it.
SIGNAL_BASE = 128


class Child:
    """A running process, the leader of its own session. `exited` is its status as a shell says it."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.pid = process.pid
        self.exited: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._process = process  # kept: Popen reaps what it forgets
        self._pidfd = os.pidfd_open(process.pid)
        asyncio.get_running_loop().add_reader(self._pidfd, self.reap)

    def reap(self) -> None:
        """Collect the status if the process has ended. Called again it does nothing."""
        if self.exited.done() or self._process.poll() is None:
            return
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        code = self._process.returncode
        self.exited.set_result(SIGNAL_BASE - code if code < 0 else code)

    def signal(self, number: int) -> None:
        """Signal the whole process group. Fine when it is gone."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, number)


class Children:
    """The processes of one agent."""

    def __init__(self) -> None:
        self._running: dict[int, Child] = {}

    def start(
        self, argv: Sequence[str], stdin: int, stdout: int, stderr: int, environment: Mapping[str, str], *, tty: bool
    ) -> Child:
        """Start a program on three descriptors, with `tty` on a terminal that becomes its own. Raises OSError."""

        def take_terminal() -> None:
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

        process = subprocess.Popen(
            argv,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            env=environment,
            cwd="/",
            start_new_session=True,
            # One system call between fork and exec; there is no other way to give a child a terminal.
            preexec_fn=take_terminal if tty else None,  # noqa: PLW1509
        )
        child = Child(process)
        self._running[child.pid] = child
        child.exited.add_done_callback(lambda _: self._running.pop(child.pid, None))
        return child

    def kill_all(self) -> None:
        """The agent ends: so does everything that runs for a request."""
        for child in list(self._running.values()):
            child.signal(signal.SIGKILL)

    def reap_orphans(self) -> None:
        """As PID 1: collect every process that ended, ours and those whose parents left them to us."""
        while True:
            try:
                found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if found is None:
                return
            child = self._running.get(found.si_pid)
            if child is not None:
                child.reap()
            else:
                os.waitpid(found.si_pid, 0)


def environment_of_commands(additions: Mapping[str, str], *, tty: bool) -> dict[str, str]:
    """What a command finds: nothing of the user's own environment (a lab is private), and what the requester adds."""
    return {
        "PATH": ":".join(SYSTEM_DIRECTORIES),
        "HOME": os.environ.get("HOME", "/"),
        "LANG": "C.UTF-8",
        "TERM": "xterm-256color" if tty else "dumb",
        **additions,
    }
