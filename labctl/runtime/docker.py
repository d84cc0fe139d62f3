"""The `docker` runtime (design decision 3): a container a node, without network, wired from a fabric container."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

from labctl.door import Connection, DoorError
from labctl.door.connection import EventHandler
from labctl.runtime import image
from labctl.runtime.docker_client import Gone, engine_failures, open_client
from labctl.runtime.docker_containers import FABRIC, Container, Containers
from labctl.runtime.docker_door import Pump, is_running, open_stream
from labctl.runtime.protocol import (
    Availability,
    JournalEntry,
    LabNotRunning,
    LabPaths,
    Leftover,
    Record,
    RuntimeFailure,
)
from labctl.topology.plan import Plan

CONTAINER = "container"

# Containers made at the same time: more only queue up in the engine.
CONCURRENCY = 8

# A fabric listens within half a second; a machine under heavy load gets this many.
START_TIMEOUT = 30.0

T = TypeVar("T")


class DockerRuntime:
    """Labs of containers, on the engine of `client`, or on whatever engine the environment names."""

    name = "docker"

    def __init__(self, client: Any = None) -> None:
        self._client = client
        self._pumps: set[Pump] = set()
        self._threads = ThreadPoolExecutor(CONCURRENCY, thread_name_prefix="docker")

    async def probe(self) -> Availability:
        """Ask the engine what it is."""
        try:
            system = await self._run(_ask, await self._api())
        except RuntimeFailure as error:
            return Availability(False, error.message, error.hint)
        if system.get("OSType") != "linux":
            return Availability(False, "the Docker engine runs no Linux containers", "use one that does")
        return Availability(True)

    async def start(
        self, paths: LabPaths, plan: Plan, record: Record, *, on_event: EventHandler | None = None
    ) -> Connection:
        """See that the image is current, start the fabric container, and connect to its door.

        `on_event` also gets `{"type": "progress", "text"}` while the image is made.
        """
        containers = Containers(await self._api())
        await self._run(containers.refuse_foreign, paths)
        identity = await self._current_image(on_event)
        record({"kind": CONTAINER, "runtime": self.name, "lab": paths.name, "node": FABRIC})
        await self._run(containers.start_fabric, paths, identity)
        fabric = await self._run(containers.fabric, paths)
        try:
            async with asyncio.timeout(START_TIMEOUT):
                while True:
                    try:
                        return await self.connect(paths, on_event=on_event)
                    except LabNotRunning:
                        await self._run(containers.check_alive, paths, fabric)
        except TimeoutError:
            raise RuntimeFailure(
                f"the fabric of lab {paths.name} does not answer after {START_TIMEOUT:.0f} s", "is the machine busy?"
            ) from None

    async def connect(self, paths: LabPaths, *, on_event: EventHandler | None = None) -> Connection:
        """One exec stream into the fabric container, joined to its door."""
        client = await self._api()
        try:
            fabric = await self._run(Containers(client).fabric, paths)
            stream = await self._run(open_stream, client, fabric)
        except Gone:
            raise LabNotRunning(
                f"lab {paths.name} is not running", "`labctl up` starts it; `labctl down` clears what is left of it"
            ) from None
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        pump = Pump(stream.socket, theirs, lambda: self._run(is_running, client, stream))
        self._pumps.add(pump)
        connection = await Connection.over(ours, on_event=on_event)
        try:
            await connection.greeting()
        except DoorError as error:
            await connection.close()
            await pump.wait_closed()
            if error.code == "version":
                raise RuntimeFailure(error.message, "take the lab down with the labctl that started it") from None
            why = f": {pump.words}" if pump.words else ""
            raise LabNotRunning(
                f"the fabric of lab {paths.name} does not answer{why}", "`labctl down` clears what is left of it"
            ) from None
        return connection

    async def create(self, paths: LabPaths, plan: Plan, nodes: Sequence[str], record: Record) -> dict[str, int]:
        """Make and start the containers of `nodes`, side by side; their pids as the engine's host numbers them."""
        containers = Containers(await self._api())
        # Agents and fabric are of one make, even where the code, and so the image, has changed since `up`.
        identity = await self._run(lambda: containers.image_of(containers.fabric(paths)))
        for name in nodes:
            record({"kind": CONTAINER, "runtime": self.name, "lab": paths.name, "node": name})
        pids = await self._side_by_side(
            [partial(containers.start_node, paths, plan.node(name), identity) for name in nodes]
        )
        return dict(zip(nodes, pids, strict=True))

    async def remove(self, paths: LabPaths, nodes: Sequence[str]) -> None:
        """Remove the containers of `nodes`."""
        containers = Containers(await self._api())
        found = await self._run(containers.of, paths)
        await self._remove(containers, [item for item in found if item.node in nodes])

    async def destroy(self, paths: LabPaths, journal: Sequence[JournalEntry]) -> list[Leftover]:
        """Remove every container of the lab; the fabric first, so that it sees no node die."""
        if not await self._was_used(journal):
            return []
        containers = Containers(await self._api())
        removed: dict[str, Container] = {}
        while found := await self._run(containers.of, paths):
            await self._remove(containers, [item for item in found if item.node == FABRIC])
            await self._remove(containers, [item for item in found if item.node != FABRIC])
            removed |= {item.identity: item for item in found}
        # Of a killed `up` a request may still be under way in the engine: it is waited for, container by container.
        seen = {item.node for item in removed.values()}
        missing = [node for node in _journalled(paths, journal) if node not in seen]
        settled = await self._side_by_side([partial(containers.settle, paths, node) for node in missing])
        await self._remove(containers, [item for item in settled if item is not None])
        return [self._leftover(paths, item) for item in removed.values()]

    async def leftovers(self, paths: LabPaths, journal: Sequence[JournalEntry]) -> list[Leftover]:
        """The lab's containers."""
        if not await self._was_used(journal):
            return []
        found = await self._run(Containers(await self._api()).of, paths)
        return [self._leftover(paths, item) for item in found]

    async def _current_image(self, on_event: EventHandler | None) -> str:
        loop = asyncio.get_running_loop()
        stopped = threading.Event()

        def progress(text: str) -> None:
            if stopped.is_set():
                raise RuntimeFailure("stopped while the node image was built")
            if on_event is not None:
                loop.call_soon_threadsafe(on_event, {"type": "progress", "text": text})

        return await self._run(image.ensure, progress, await self._api(), on_cancel=stopped.set)

    async def _remove(self, containers: Containers, items: Sequence[Container]) -> None:
        await self._side_by_side([partial(containers.remove, item) for item in items])

    def _leftover(self, paths: LabPaths, item: Container) -> Leftover:
        return Leftover(self.name, paths.name, CONTAINER, str(item))

    async def _was_used(self, journal: Sequence[JournalEntry]) -> bool:
        """False where no engine answers and the journal names nothing of ours: then there is nothing to remove."""
        try:
            await self._api()
        except RuntimeFailure:
            if any(entry.get("runtime") == self.name for entry in journal):
                raise
            return False
        return True

    # The client blocks: it runs in threads.

    async def _api(self) -> Any:
        if self._client is None:
            self._client = await self._run(open_client)
        return self._client

    async def _run(self, function: Callable[..., T], *arguments: Any, on_cancel: Callable[[], None] | None = None) -> T:
        """`function` in a thread. If we are cancelled, what has begun is waited for: a roll-back must find it all."""
        work = self._threads.submit(function, *arguments)
        try:
            return await asyncio.wrap_future(work)
        except asyncio.CancelledError:
            if not work.cancelled():
                if on_cancel is not None:
                    on_cancel()
                rest = asyncio.wrap_future(work)
                await asyncio.wait({rest})
                rest.exception()  # looked at: whoever was cancelled has no use for it
            raise

    async def _side_by_side(self, calls: Sequence[Callable[[], T]]) -> list[T]:
        """All of `calls`, as many at a time as there are threads. The first failure ends those that have not begun."""
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._run(call)) for call in calls]
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None
        return [task.result() for task in tasks]


def _ask(client: Any) -> dict[str, Any]:
    with engine_failures("ask the Docker engine what it is"):
        facts: dict[str, Any] = client.info()
    return facts


def _journalled(paths: LabPaths, journal: Sequence[JournalEntry]) -> list[str]:
    """The nodes whose containers were about to be made, each once."""
    entries = [entry for entry in journal if entry.get("kind") == CONTAINER and entry.get("lab") == paths.name]
    return list(dict.fromkeys(str(entry["node"]) for entry in entries))
