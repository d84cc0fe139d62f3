"""The first process of a namespaces lab (design decision 2).

    labctl -- spawns --> founder -- forks, in new namespaces --> supervisor (pid 1 of the lab) -- forks --> fork server

The founder makes the namespaces, tells labctl the supervisor's pid, and ends. The supervisor makes nothing before
labctl has written that pid to the journal and said `go`; if labctl dies first, the supervisor reads the end of their
socket, and ends too. Once it runs it lives by itself; when it dies the kernel removes every process, link and
namespace.

Only the standard library is imported here before the forks: what comes later is imported on both sides at once.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
import time
from pathlib import Path

from labctl.kernel.namespaces import (
    CAP_NET_ADMIN,
    CAP_SYS_ADMIN,
    Clone,
    Mount,
    has_capability,
    make_mounts_private,
    map_own_user,
    mount,
    unshare,
)

AGENT = "labctl.node.agent:run"

_LAB = Clone.MOUNT | Clone.PID | Clone.NETWORK | Clone.UTS | Clone.IPC


class FoundingFailure(Exception):
    """A step of making the lab's namespaces failed: which, and the error number."""

    def __init__(self, step: str, error: OSError) -> None:
        super().__init__(f"{step}: {error.strerror}")
        self.step = step
        self.number = error.errno


def found() -> bool:
    """Leave for the lab's namespaces; children are born into its pid namespace. True if a user namespace was needed.

    Raises FoundingFailure. This process must have one thread.
    """
    step = "look at the capabilities of this process"
    try:
        rootless = not (has_capability(CAP_SYS_ADMIN) and has_capability(CAP_NET_ADMIN))
        if rootless:
            user, group = os.geteuid(), os.getegid()
            step = "make a user namespace"
            unshare(Clone.USER)
            step = "become root of the user namespace"
            map_own_user(user, group)
        step = "make mount, pid, network, uts and ipc namespaces"
        unshare(_LAB)
        step = "make the mounts private"
        make_mounts_private()
    except OSError as error:
        raise FoundingFailure(step, error) from None
    return rootless


def supervise(control: socket.socket, lab: str, door: Path, logs: Path, agent: str = AGENT) -> None:
    """Be the founder; in the child, be the supervisor until the lab ends. `control` leads to labctl."""
    try:
        found()
    except FoundingFailure as failure:
        _tell(control, {"error": str(failure), "step": failure.step, "errno": failure.number})
        return
    pid = os.fork()
    if pid:
        _tell(control, {"pid": pid})
        return
    try:
        status = _supervisor(control, lab, door, logs, agent)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        status = 1
    finally:
        sys.stderr.flush()
    os._exit(status)


def _supervisor(control: socket.socket, lab: str, door: Path, logs: Path, agent: str) -> int:
    os.setsid()
    os.umask(0o077)
    os.chdir("/")
    os.environ.pop("PYTHONPATH", None)
    socket.sethostname(lab)
    _fresh_proc()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if os.fork() == 0:
        _fork_server(theirs, agent, {control.fileno(), ours.fileno()})
    theirs.close()
    import labctl.fabric.server  # noqa: F401 - while labctl writes its journal, and the fork server imports the agent

    # Whoever is root in a node may send us signals. Without a handler the kernel keeps them from the first process of a
    # pid namespace (pid_namespaces(7)); Python's own for SIGINT would end the lab. The lab's owner has the door.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if control.recv(3) != b"go\n":
        return 1
    asyncio.run(_serve(control, ours, lab, door, logs))
    return 0


def _fork_server(requests: socket.socket, agent: str, foreign: set[int]) -> None:
    from labctl.fabric import forkserver

    status = 0
    try:
        for descriptor in foreign:
            os.close(descriptor)
        forkserver.serve(requests, agent)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        status = 1
    finally:
        sys.stderr.flush()
        os._exit(status)


async def _serve(control: socket.socket, requests: socket.socket, lab: str, door: Path, logs: Path) -> None:
    from labctl.fabric.fabric import Fabric
    from labctl.fabric.nodes import ForkedNodes
    from labctl.fabric.records import Records
    from labctl.fabric.server import listen_at, run

    loop = asyncio.get_running_loop()
    fabric = await Fabric.open(lab, ForkedNodes(requests, logs), Records(logs))
    loop.add_signal_handler(signal.SIGCHLD, _reap)
    print(f"labctl supervisor: lab {lab} since {time.strftime('%F %T')}", file=sys.stderr, flush=True)
    await run(fabric, listen_at(door), control)


def _reap() -> None:
    """The first process of a pid namespace inherits every orphan of it."""
    while True:
        try:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                return
        except ChildProcessError:
            return


def _fresh_proc() -> None:
    try:
        mount("proc", "/proc", "proc", Mount.NO_SUID | Mount.NO_DEV | Mount.NO_EXEC)
    except OSError as error:
        # A container that hides parts of /proc has no right to a whole one; all that we read works in the old one too.
        print(f"labctl supervisor: {error}; processes in nodes see the host's /proc", file=sys.stderr, flush=True)


def _tell(control: socket.socket, word: dict[str, object]) -> None:
    control.send(json.dumps(word).encode() + b"\n")
