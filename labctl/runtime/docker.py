"""The `docker` runtime (design decision 3): a container a node, without network, wired from a fabric container.

Everything made carries the labels `labctl.lab` and `labctl.node`; what is left of a lab is found by them, never by name
patterns. No network, volume or file is made, so containers are all there is to remove.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from labctl.configuration import NodeKind
from labctl.door import Connection, DoorError
from labctl.door.connection import EventHandler
from labctl.runtime import image
from labctl.runtime.docker_client import NotFound, engine_failures, open_client
from labctl.runtime.protocol import (
    Availability,
    JournalEntry,
    LabNotRunning,
    LabPaths,
    Leftover,
    Record,
    RuntimeFailure,
)
from labctl.topology.plan import Plan, PlannedNode

LAB_LABEL = "labctl.lab"
NODE_LABEL = "labctl.node"
FABRIC = "_fabric"  # no node can have this name

CONTAINER = "container"

# Containers made at the same time: more only queue up in the engine.
CONCURRENCY = 8

NODE_CAPABILITIES = ["NET_ADMIN", "NET_RAW"]
FABRIC_CAPABILITIES = ["SYS_ADMIN", "SYS_PTRACE", "NET_ADMIN", "NET_RAW"]

# Limits of one node: an agent needs a fraction; the rest is for what users start in it.
PIDS_LIMIT = 512
MEMORY_LIMIT = 512 * 1024 * 1024

# A read-only root needs room where programs expect it.
NODE_TMPFS = {"/run": "rw,nosuid,nodev,mode=755,size=16m", "/tmp": "rw,nosuid,nodev,size=64m", "/root": "rw,size=16m"}
FABRIC_TMPFS = {"/run": "rw,nosuid,nodev,mode=755,size=16m", "/tmp": "rw,nosuid,nodev,size=64m"}

START_TIMEOUT = 30.0

# The engine multiplexes stdout and stderr of an exec: stream, three octets of zero, length.
_FRAME = struct.Struct("!BxxxI")
_STDOUT = 1

T = TypeVar("T")


class _NoFabric(Exception):
    """The lab's fabric container is not there, or has ended."""


class DockerRuntime:
    """Labs of containers, on whatever engine the environment names."""

    name = "docker"

    def __init__(self) -> None:
        self._client: Any = None
        self._pumps: set[asyncio.Future[None]] = set()
        self._threads = ThreadPoolExecutor(CONCURRENCY, thread_name_prefix="docker")

    async def probe(self) -> Availability:
        """Ask the engine for its version."""
        try:
            client = await self._api()
            system = await self._run(client.info)
        except RuntimeFailure as error:
            return Availability(False, error.message, error.hint)
        except Exception as error:  # an engine in trouble answers in many ways; all of them mean: not usable
            return Availability(False, f"the Docker engine is in trouble: {error}", "see its log, or `docker info`")
        if system.get("OSType") != "linux":
            return Availability(False, "the Docker engine runs no Linux containers", "use one that does")
        return Availability(True)

    async def start(
        self, paths: LabPaths, plan: Plan, record: Record, *, on_event: EventHandler | None = None
    ) -> Connection:
        """See that the image is current, start the fabric container, and connect to its door."""
        client = await self._api()
        progress: Callable[[str], None] = _no_progress if on_event is None else _as_events(on_event)
        identity = await self._run(image.ensure, progress, client)
        record({"kind": CONTAINER, "runtime": self.name, "lab": paths.name, "node": FABRIC})
        await self._run(self._start_container, paths.name, FABRIC, identity, self._fabric_settings(paths.name))
        async with asyncio.timeout(START_TIMEOUT):
            while True:
                try:
                    return await self.connect(paths, on_event=on_event)
                except LabNotRunning:
                    await self._run(self._check_alive, paths.name)

    async def connect(self, paths: LabPaths, *, on_event: EventHandler | None = None) -> Connection:
        """One exec stream into the fabric container, joined to its door."""
        await self._api()
        try:
            sock = await self._run(self._open_stream, paths.name)
        except _NoFabric:
            raise LabNotRunning(
                f"lab {paths.name} is not running", "`labctl up` starts it; `labctl down` clears what is left of it"
            ) from None
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        pump = asyncio.ensure_future(_pump(sock, theirs))
        self._pumps.add(pump)
        pump.add_done_callback(self._pumps.discard)
        connection = await Connection.over(ours, on_event=on_event)
        try:
            await connection.greeting()
        except DoorError as error:
            await connection.close()
            if error.code == "version":
                raise RuntimeFailure(error.message, "take the lab down with the labctl that started it") from None
            raise LabNotRunning(f"the fabric of lab {paths.name} does not answer", "`labctl down` clears it") from None
        return connection

    async def create(self, paths: LabPaths, plan: Plan, nodes: Sequence[str], record: Record) -> dict[str, int]:
        """Make and start the containers of `nodes`, side by side; their pids in the engine's own namespace."""
        await self._api()
        identity = await self._run(self._image_identity)
        for name in nodes:
            record({"kind": CONTAINER, "runtime": self.name, "lab": paths.name, "node": name})
        made = await asyncio.gather(
            *(
                self._run(self._start_container, paths.name, name, identity, self._node_settings(plan.node(name)))
                for name in nodes
            )
        )
        return dict(zip(nodes, made, strict=True))

    async def remove(self, paths: LabPaths, nodes: Sequence[str]) -> None:
        """Remove the containers of `nodes`."""
        await self._api()
        wanted = set(nodes)
        found = await self._run(self._containers, paths.name)
        await asyncio.gather(*(self._run(self._remove, identity) for identity, node in found if node in wanted))

    async def destroy(self, paths: LabPaths, journal: Sequence[JournalEntry]) -> list[Leftover]:
        """Remove every container that carries the lab's label; the fabric first, so that it sees no node die."""
        if not await self._was_used(journal):
            return []
        found: list[Leftover] = []
        # An `up` that was killed may have left a request behind that the engine still carries out: look again.
        while containers := await self._run(self._containers, paths.name):
            containers.sort(key=lambda item: item[1] != FABRIC)
            for identity, node in containers[:1]:
                await self._run(self._remove, identity)
                found.append(self._leftover(paths, identity, node))
            await asyncio.gather(*(self._run(self._remove, identity) for identity, _ in containers[1:]))
            found += [self._leftover(paths, identity, node) for identity, node in containers[1:]]
        return found

    async def leftovers(self, paths: LabPaths, journal: Sequence[JournalEntry]) -> list[Leftover]:
        """The lab's containers."""
        if not await self._was_used(journal):
            return []
        found = await self._run(self._containers, paths.name)
        return [self._leftover(paths, identity, node) for identity, node in found]

    # What runs in threads: the client blocks.

    async def _api(self) -> Any:
        if self._client is None:
            self._client = await self._run(open_client)
        return self._client

    async def _run(self, function: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *arguments)

    async def _was_used(self, journal: Sequence[JournalEntry]) -> bool:
        """False where no engine answers and the journal names nothing of ours: then there is nothing to remove."""
        try:
            await self._api()
        except RuntimeFailure:
            if any(entry.get("runtime") == self.name for entry in journal):
                raise
            return False
        return True

    def _leftover(self, paths: LabPaths, identity: str, node: str) -> Leftover:
        return Leftover(self.name, paths.name, CONTAINER, f"{node} ({identity[:12]})")

    def _image_identity(self) -> str:
        identity = image.state(self._client).identity
        if identity is None:
            raise RuntimeFailure("the node image is gone", "'labctl image build' makes it")
        return identity

    def _containers(self, lab: str) -> list[tuple[str, str]]:
        with engine_failures(f"look for containers of lab {lab}"):
            found = self._client.containers(all=True, filters={"label": f"{LAB_LABEL}={lab}"})
        return [(item["Id"], item["Labels"].get(NODE_LABEL, "")) for item in found]

    def _remove(self, identity: str) -> None:
        with engine_failures(f"remove container {identity[:12]}"):
            try:
                self._client.remove_container(identity, force=True, v=True)
            except NotFound:
                return
            except Exception as error:
                # Somebody else removes it at this very moment: it will be gone when we look again.
                if "already in progress" not in str(error):
                    raise

    def _start_container(self, lab: str, node: str, identity: str, settings: dict[str, Any]) -> int:
        name = f"labctl-{lab}-{'fabric' if node == FABRIC else node}"
        with engine_failures(f"make the container of {node} in lab {lab}"):
            made = self._client.create_container(
                identity,
                name=name,
                labels={LAB_LABEL: lab, NODE_LABEL: node},
                environment={"LABCTL_LAB": lab},
                **settings,
            )
            self._client.start(made["Id"])
            return int(self._client.inspect_container(made["Id"])["State"]["Pid"])

    def _host_config(self, **settings: Any) -> Any:
        return self._client.create_host_config(
            network_mode="none",
            cap_drop=["ALL"],
            read_only=True,
            pids_limit=PIDS_LIMIT,
            mem_limit=MEMORY_LIMIT,
            log_config={"type": "json-file", "config": {"max-size": "1m", "max-file": "1"}},
            **settings,
        )

    def _node_settings(self, node: PlannedNode) -> dict[str, Any]:
        forwards = "1" if node.kind.forwards else "0"
        return {
            "hostname": node.name,
            "host_config": self._host_config(
                cap_add=NODE_CAPABILITIES,
                security_opt=["no-new-privileges"],
                tmpfs=NODE_TMPFS,
                sysctls={"net.ipv4.ip_forward": forwards} if node.kind is not NodeKind.SWITCH else {},
                extra_hosts=dict(node.configuration.hosts),
            ),
        }

    def _fabric_settings(self, lab: str) -> dict[str, Any]:
        return {
            "hostname": "fabric",
            "command": ["python3", "-m", "labctl.fabric", "--lab", lab],
            "host_config": self._host_config(
                cap_add=FABRIC_CAPABILITIES,
                pid_mode="host",
                # It enters namespaces and mounts a /proc of its own, which profiles made for services forbid.
                security_opt=["apparmor=unconfined", "seccomp=unconfined"],
                tmpfs=FABRIC_TMPFS,
            ),
        }

    def _fabric_identity(self, lab: str) -> str:
        for identity, node in self._containers(lab):
            if node == FABRIC:
                return identity
        raise _NoFabric(f"lab {lab} has no fabric container")

    def _check_alive(self, lab: str) -> None:
        """Raises RuntimeFailure with the fabric's last words once its container has ended."""
        with engine_failures(f"look at the fabric of lab {lab}"):
            try:
                identity = self._fabric_identity(lab)
            except _NoFabric as error:
                raise RuntimeFailure(f"{error}: somebody removed it") from None
            if not self._client.inspect_container(identity)["State"]["Running"]:
                words = self._client.logs(identity, tail=3).decode(errors="replace").strip()
                raise RuntimeFailure(
                    f"the fabric container of lab {lab} ended at its start", words or "it said nothing"
                )

    def _open_stream(self, lab: str) -> socket.socket:
        with engine_failures(f"reach the fabric of lab {lab}"):
            identity = self._fabric_identity(lab)
            try:
                started = self._client.exec_create(
                    identity, ["python3", "-m", "labctl.fabric", "--connect"], stdin=True, stdout=True, stderr=True
                )
            except Exception as error:
                if "is not running" in str(error):
                    raise _NoFabric(f"the fabric of lab {lab} does not run") from None
                raise
            stream = self._client.exec_start(started["Id"], socket=True)
        raw = getattr(stream, "_sock", stream)
        if not isinstance(raw, socket.socket):
            raise RuntimeFailure("the engine is reached through TLS or ssh, over which doors do not work yet")
        # The response object closes the descriptor when it goes: a copy outlives it.
        copy = raw.dup()
        copy.setblocking(False)
        return copy


def _no_progress(_: str) -> None:
    """Nobody listens."""


def _as_events(on_event: EventHandler) -> Callable[[str], None]:
    loop = asyncio.get_running_loop()

    def tell(text: str) -> None:
        loop.call_soon_threadsafe(on_event, {"type": "progress", "text": text})

    return tell


async def _pump(engine: socket.socket, door: socket.socket) -> None:
    """Octets between the engine's multiplexed stream and a plain socket, until either side ends."""
    loop = asyncio.get_running_loop()
    with engine, door:
        tasks = {loop.create_task(_from_engine(engine, door)), loop.create_task(_to_engine(door, engine))}
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _to_engine(door: socket.socket, engine: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    while data := await loop.sock_recv(door, 1 << 16):
        await loop.sock_sendall(engine, data)


async def _from_engine(engine: socket.socket, door: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    waiting = b""
    while data := await loop.sock_recv(engine, 1 << 16):
        waiting += data
        while len(waiting) >= _FRAME.size:
            stream, size = _FRAME.unpack_from(waiting)
            if len(waiting) < _FRAME.size + size:
                break
            if stream == _STDOUT:
                await loop.sock_sendall(door, waiting[_FRAME.size : _FRAME.size + size])
            waiting = waiting[_FRAME.size + size :]
