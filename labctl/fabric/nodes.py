"""Where a fabric gets its nodes from: forked beside it (namespaces), or a container's pid (docker)."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from labctl.kernel.namespaces import open_network_namespace
from labctl.topology.plan import PlannedNode

# A node stands within milliseconds; a machine under heavy load gets this many seconds before we say that it does not.
BIRTH_TIMEOUT = 30.0

FORK_SERVER_GONE = "the fork server is gone; the supervisor's log says why"

# What nodes with a crypto map import beside the agent. Numpy with it, so others shall not.
DATA_PLANE = "labctl.dataplane.sides"

# How often to look whether a container's agent listens by now. It says nothing before it does.
AGENT_POLL = 0.02

# An agent's socket inside a container (docs/internals.md, The fabric).
AGENT_SOCKET = "run/labctl/agent.sock"


class NodeFailure(Exception):
    """A node could not be made or reached; the text is for the user."""


@dataclass(slots=True)
class NodeHandle:
    """A node that exists: its process, a descriptor of its network namespace, a socket to its agent. We own both."""

    name: str
    pid: int
    namespace: int
    agent: socket.socket


class NodeSource(Protocol):
    """One way to come by nodes."""

    @property
    def runtime(self) -> str:
        """`namespaces` or `docker`."""

    async def obtain(self, node: PlannedNode, pid: int | None) -> NodeHandle:
        """The node, made or found. Raises NodeFailure."""

    async def release(self, handle: NodeHandle) -> None:
        """End what `obtain` made. The descriptors are the caller's to close."""

    async def cause_of_death(self, handle: NodeHandle) -> str:
        """Why the agent is gone, in words."""


class ForkedNodes:
    """Nodes of a namespaces lab, made by the fork server (forkserver.py) at the other end of `requests`."""

    runtime = "namespaces"

    def __init__(self, requests: socket.socket, logs: Path) -> None:
        requests.setblocking(False)
        self._requests = requests
        self._logs = logs
        self._pids: dict[str, asyncio.Future[int]] = {}
        self._exits: dict[int, asyncio.Future[int]] = {}
        asyncio.get_running_loop().add_reader(requests, self._read)

    async def obtain(self, node: PlannedNode, pid: int | None) -> NodeHandle:
        """Have the node forked, and wait until it says that it stands."""
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        self._pids[node.name] = loop.create_future()
        request = {
            "name": node.name,
            "hosts": node.configuration.hosts,
            "hosts6": node.configuration.hosts6,
            "log": str(self._logs / f"{node.name}.log"),
            "modules": [DATA_PLANE] if any(item.crypto_map for item in node.configuration.interfaces) else [],
        }
        try:
            with theirs:
                await self._send(json.dumps(request).encode(), theirs.fileno())
            async with asyncio.timeout(BIRTH_TIMEOUT):
                born = await self._pids[node.name]
                namespace = await _receive_namespace(ours)
        except (OSError, TimeoutError, NodeFailure) as error:
            ours.close()
            reason = str(error) or f"it did not stand after {BIRTH_TIMEOUT:.0f} s"
            raise NodeFailure(f"the process of {node.name} could not be made: {reason}") from None
        return NodeHandle(node.name, born, namespace, ours)

    async def release(self, handle: NodeHandle) -> None:
        """Kill every process in the node's network namespace: the agent, and what was started in the node."""
        wanted = os.fstat(handle.namespace).st_ino
        # A process may fork while we look: look until none is left.
        while pids := _processes_in(wanted):
            await asyncio.gather(*(_kill(pid) for pid in pids))

    async def cause_of_death(self, handle: NodeHandle) -> str:
        """The agent's exit status, which the fork server reports a moment after the socket closes."""
        exited = self._exits.setdefault(handle.pid, asyncio.get_running_loop().create_future())
        try:
            async with asyncio.timeout(1.0):
                status = await asyncio.shield(exited)
        except TimeoutError:
            return "the agent closed its connection"
        if os.WIFSIGNALED(status):
            return f"the agent was killed by {signal.Signals(os.WTERMSIG(status)).name}"
        return f"the agent ended with status {os.WEXITSTATUS(status)}; its log says more"

    async def _send(self, data: bytes, descriptor: int) -> None:
        while True:
            try:
                socket.send_fds(self._requests, [data], [descriptor])
                return
            except BlockingIOError:
                await _writable(self._requests)
            except BrokenPipeError:
                raise NodeFailure(FORK_SERVER_GONE) from None

    def _read(self) -> None:
        try:
            data = self._requests.recv(4096)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            asyncio.get_running_loop().remove_reader(self._requests)
            for future in self._pids.values():
                if not future.done():
                    future.set_exception(NodeFailure(FORK_SERVER_GONE))
            return
        answer: dict[str, Any] = json.loads(data)
        if "exited" in answer:
            future = self._exits.setdefault(answer["pid"], asyncio.get_running_loop().create_future())
            if not future.done():
                future.set_result(answer["exited"])
            return
        self._exits.pop(answer["pid"], None)  # of an older process that had this number
        born = self._pids.get(answer["name"])
        if born is not None and not born.done():
            born.set_result(answer["pid"])


class ContainerNodes:
    """Nodes of a docker lab: containers that the runtime started, reached through their pids as we see them."""

    runtime = "docker"

    def __init__(self, proc: str = "/proc") -> None:
        self._proc = proc

    async def obtain(self, node: PlannedNode, pid: int | None) -> NodeHandle:
        """Open the container's network namespace and connect to its agent as soon as that listens."""
        if pid is None:
            raise NodeFailure(f"{node.name} has no container: the build names no pid for it")
        try:
            namespace = open_network_namespace(pid, self._proc)
        except OSError as error:
            raise NodeFailure(f"the container of {node.name} (pid {pid}) is not there: {error.strerror}") from None
        try:
            agent = await self._connect(node.name, pid)
        except NodeFailure:
            os.close(namespace)
            raise
        return NodeHandle(node.name, pid, namespace, agent)

    async def release(self, handle: NodeHandle) -> None:
        """The container is the runtime's to remove."""

    async def cause_of_death(self, handle: NodeHandle) -> str:
        """A closed connection is all that can be seen from here."""
        return "the agent closed its connection; its container's log may say why"

    async def _connect(self, name: str, pid: int) -> socket.socket:
        root = Path(self._proc, str(pid), "root")
        deadline = time.monotonic() + BIRTH_TIMEOUT
        while True:
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
            sock.setblocking(False)
            try:
                sock.connect(str(root / AGENT_SOCKET))
            except OSError as error:
                sock.close()
                if not root.exists():
                    raise NodeFailure(f"the container of {name} (pid {pid}) ended before its agent listened") from None
                if time.monotonic() > deadline:
                    raise NodeFailure(f"the agent of {name} does not listen: {error.strerror}") from None
                await asyncio.sleep(AGENT_POLL)
            else:
                return sock


async def _receive_namespace(sock: socket.socket) -> int:
    await _readable(sock.fileno())
    # The kernel never joins what follows to octets that carry descriptors, so this is exactly the node's first word.
    data, descriptors, _, _ = socket.recv_fds(sock, 4096, 1)
    if descriptors:
        os.set_inheritable(descriptors[0], False)
        return int(descriptors[0])
    raise NodeFailure(json.loads(data)["error"] if data else "it ended at once; its log says why")


async def _writable(sock: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()
    loop.add_writer(sock, _settle, future)
    try:
        await future
    finally:
        loop.remove_writer(sock)


def _processes_in(namespace: int) -> list[int]:
    """Pids, as our pid namespace numbers them, of the living processes in a network namespace.

    /proc may be that of an outer pid namespace where a fresh one could not be mounted, so NSpid is what counts.
    """
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            if (entry / "ns/net").stat().st_ino == namespace:
                status = (entry / "status").read_text()
                found.append(int(status.partition("NSpid:")[2].split("\n")[0].split()[-1]))
        except OSError:
            continue  # it ended while we looked, or is a zombie
    return found


async def _kill(pid: int) -> None:
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        signal.pidfd_send_signal(process, signal.SIGKILL)
        await _readable(process)  # it is, once the process has ended (pidfd_open(2))
    except ProcessLookupError:
        return
    finally:
        os.close(process)


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


async def _readable(descriptor: int) -> None:
    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()
    loop.add_reader(descriptor, _settle, future)
    try:
        await future
    finally:
        loop.remove_reader(descriptor)
