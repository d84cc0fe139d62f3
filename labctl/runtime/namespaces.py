"""The `namespaces` runtime: the whole lab in one tree of namespaces under one supervisor (design decision 2).

Needs Linux and nothing else; no root where the kernel lets an ordinary user make user namespaces.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import labctl
from labctl.door import Connection, DoorError
from labctl.door.connection import EventHandler
from labctl.fabric.supervisor import AGENT
from labctl.runtime.process import ProcessIdentity
from labctl.runtime.protocol import (
    SUPERVISOR_LOG,
    Availability,
    JournalEntry,
    LabNotRunning,
    LabPaths,
    Leftover,
    Record,
    RuntimeFailure,
)
from labctl.runtime.remedies import remedy
from labctl.topology.plan import Plan

# A supervisor starts in a fraction of a second; a machine under heavy load gets this many.
START_TIMEOUT = 30.0

# A supervisor that labctl left before it began ends by itself, once it has imported what it was importing.
END_TIMEOUT = 30.0
_END_POLL = 0.01

# The kind of the one journal entry of this runtime.
SUPERVISOR = "supervisor"


class NamespacesRuntime:
    """`agent` is `module:function`, the program of every node; another one than ours is for tests and benchmarks."""

    name = "namespaces"

    def __init__(self, agent: str = AGENT) -> None:
        self._agent = agent

    async def probe(self) -> Availability:
        """Make namespaces, a link and a bridge in a process that ends at once."""
        command = [sys.executable, "-m", "labctl.fabric", "--probe"]
        done = await asyncio.to_thread(
            subprocess.run, command, cwd="/", env=_environment(), capture_output=True, text=True, check=False
        )
        try:
            answer: dict[str, Any] = json.loads(done.stdout)
        except ValueError:
            return Availability(False, f"the probe failed: {done.stderr.strip()[-500:]}")
        if "error" not in answer:
            return Availability(True)
        return Availability(False, answer["error"], remedy(answer["step"], answer["errno"]))

    async def start(
        self, paths: LabPaths, plan: Plan, record: Record, *, on_event: EventHandler | None = None
    ) -> Connection:
        """Start the supervisor, journal it, and let it begin."""
        control, theirs = socket.socketpair()
        control.setblocking(False)
        try:
            founder = self._spawn(paths, theirs)
            theirs.close()
            async with asyncio.timeout(START_TIMEOUT):
                pid = await self._supervisor_pid(paths, control, founder)
                record({"kind": SUPERVISOR, "runtime": self.name, **ProcessIdentity.of(pid).to_json()})
                await asyncio.get_running_loop().sock_sendall(control, b"go\n")
                connection = await Connection.over(control, on_event=on_event)
                await connection.greeting()
        except (DoorError, ProcessLookupError, ConnectionError):
            control.close()
            raise RuntimeFailure("the lab's supervisor ended at its start", self._log_tail(paths)) from None
        except TimeoutError:
            control.close()
            raise RuntimeFailure(
                f"the lab's supervisor did not start in {START_TIMEOUT:.0f} s", self._log_tail(paths)
            ) from None
        except BaseException:
            control.close()  # a supervisor that has not begun ends by this
            raise
        return connection

    async def connect(self, paths: LabPaths, *, on_event: EventHandler | None = None) -> Connection:
        """Connect to the supervisor's socket."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        sock.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(sock, str(paths.door))
            connection = await Connection.over(sock, on_event=on_event)
            await connection.greeting()
        except (OSError, DoorError) as error:
            sock.close()
            if isinstance(error, DoorError) and error.code == "version":
                raise RuntimeFailure(error.message, "take the lab down with the labctl that started it") from None
            raise LabNotRunning(
                f"lab {paths.name} is not running", "`labctl up` starts it; `labctl down` clears what is left of it"
            ) from None
        return connection

    async def create(self, paths: LabPaths, plan: Plan, nodes: Sequence[str], record: Record) -> dict[str, int]:
        """Nothing to do: the supervisor forks nodes when the door's `build` says so."""
        return {}

    async def remove(self, paths: LabPaths, nodes: Sequence[str]) -> None:
        """Nothing to do: the door's `remove` ended the nodes."""

    async def destroy(self, paths: LabPaths, journal: Sequence[JournalEntry]) -> list[Leftover]:
        """Kill every supervisor that the journal knows; with it goes all of the lab.

        A labctl that was killed before it wrote the supervisor into the journal leaves one that ends by itself: wait.
        """
        found = []
        for supervisor in _supervisors(journal):
            try:
                if await supervisor.kill():
                    found.append(self._leftover(paths, supervisor))
            except PermissionError:
                raise RuntimeFailure(
                    f"lab {paths.name} belongs to another user (its supervisor is process {supervisor.pid})",
                    "take it down as the user who started it, or as root",
                ) from None
            except TimeoutError:
                raise RuntimeFailure(
                    f"the supervisor of lab {paths.name} (process {supervisor.pid}) does not die"
                ) from None
        await _nobody_writes(paths.logs / SUPERVISOR_LOG, paths.name)
        return found

    async def leftovers(self, paths: LabPaths, journal: Sequence[JournalEntry]) -> list[Leftover]:
        """The supervisors that still run."""
        return [self._leftover(paths, supervisor) for supervisor in _supervisors(journal) if supervisor.is_alive]

    def _leftover(self, paths: LabPaths, supervisor: ProcessIdentity) -> Leftover:
        return Leftover(self.name, paths.name, SUPERVISOR, str(supervisor.pid))

    def _spawn(self, paths: LabPaths, control: socket.socket) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "labctl.fabric", "--supervise", str(control.fileno())]
        command += ["--lab", paths.name, "--door", str(paths.door), "--logs", str(paths.logs), "--agent", self._agent]
        descriptor = os.open(paths.logs / SUPERVISOR_LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as log:
            fcntl.flock(log, fcntl.LOCK_SH)  # inherited: held until the last process of the lab is gone
            return subprocess.Popen(
                command,
                cwd="/",
                env=_environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[control.fileno()],
                start_new_session=True,
            )

    async def _supervisor_pid(self, paths: LabPaths, control: socket.socket, founder: subprocess.Popen[bytes]) -> int:
        """What the founder says: the supervisor's pid. Raises RuntimeFailure with the remedy where there is one."""
        word = await asyncio.get_running_loop().sock_recv(control, 4096)
        await asyncio.to_thread(founder.wait)
        if not word:
            raise RuntimeFailure("the lab's supervisor could not be started", self._log_tail(paths))
        answer = json.loads(word)
        if "error" in answer:
            raise RuntimeFailure(
                f"this machine does not let us make a lab: {answer['error']}", remedy(answer["step"], answer["errno"])
            )
        return int(answer["pid"])

    def _log_tail(self, paths: LabPaths) -> str:
        log = paths.logs / SUPERVISOR_LOG
        lines = log.read_text(errors="replace").splitlines() if log.exists() else []
        return f"{log}: {lines[-1]}" if lines else f"{log} is empty"


async def _nobody_writes(log: Path, lab: str) -> None:
    """Wait until no process holds the log that the founder of a lab was born with, nor any process that it forked."""
    try:
        descriptor = os.open(log, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return  # no founder was ever started, or somebody else's, which was refused before
    try:
        async with asyncio.timeout(END_TIMEOUT):
            while True:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    return
                except BlockingIOError:
                    await asyncio.sleep(_END_POLL)
    except TimeoutError:
        raise RuntimeFailure(
            f"a process of lab {lab} that has not begun does not end", f"`fuser {log}` names it: end it, and try again"
        ) from None
    finally:
        os.close(descriptor)


def _supervisors(journal: Sequence[JournalEntry]) -> list[ProcessIdentity]:
    return [ProcessIdentity.from_json(entry) for entry in journal if entry.get("kind") == SUPERVISOR]


def _environment() -> dict[str, str]:
    """Ours, and this labctl first on the path of the new interpreter, wherever it was imported from."""
    home = str(Path(labctl.__file__).resolve().parent.parent)
    inherited = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": f"{home}{os.pathsep}{inherited}" if inherited else home}
