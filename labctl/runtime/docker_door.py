"""The door of a docker lab: one exec stream into the fabric container, as a plain socket.

Facts: Docker Engine API 1.41, "Attach to a container" - stream format: an octet that names the stream, three of zero,
four of length, the data. What we send is not framed.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from labctl.runtime.docker_client import Gone, engine_failures
from labctl.runtime.docker_containers import Container
from labctl.runtime.protocol import RuntimeFailure

RELAY = ["python3", "-m", "labctl.fabric", "--connect"]

_FRAME = struct.Struct("!BxxxI")
_STDOUT = 1
_CHUNK = 1 << 16

# An engine keeps the stream of a container that was killed open for as long as we do: so often we ask whether the relay
# still runs.
WATCH_SECONDS = 2.0

# The relay says at most one line.
_MOST_WORDS = 4096


@dataclass(frozen=True, slots=True)
class ExecStream:
    """The engine's end of the relay's stdio, not blocking, and the number under which the engine runs the relay."""

    socket: socket.socket
    identity: str


def open_stream(client: Any, fabric: Container) -> ExecStream:
    """Start the relay in the fabric's container. Raises Gone."""
    try:
        with engine_failures("reach the fabric"):
            started = client.exec_create(fabric.identity, RELAY, stdin=True, stdout=True, stderr=True)
            stream = client.exec_start(started["Id"], socket=True)
    except RuntimeFailure as error:
        if "is not running" in error.message:
            raise Gone("the fabric does not run") from None
        raise
    raw = getattr(stream, "_sock", stream)
    if not isinstance(raw, socket.socket):
        raise RuntimeFailure(f"the client library gave no socket for an exec stream, but {type(raw).__name__}")
    # The response object closes its descriptor when it goes: a copy outlives it.
    copy = raw.dup()
    copy.setblocking(False)
    return ExecStream(copy, started["Id"])


def is_running(client: Any, stream: ExecStream) -> bool:
    """Does the relay still run? False where the engine knows nothing of it, or is gone itself."""
    try:
        with engine_failures("reach the fabric"):
            return bool(client.exec_inspect(stream.identity)["Running"])
    except (RuntimeFailure, Gone):
        return False


class Pump:
    """Octets between the engine's multiplexed stream and a plain socket, until either side ends. Owns both sockets.

    `is_running` is asked now and then; once it says no, the stream has ended, whatever the engine does with it.
    """

    def __init__(
        self,
        engine: socket.socket,
        door: socket.socket,
        is_running: Callable[[], Awaitable[bool]],
        *,
        watch: float = WATCH_SECONDS,
    ) -> None:
        self._engine = engine
        self._door = door
        self._is_running = is_running
        self._watch_seconds = watch
        self._words = b""
        self._done = asyncio.ensure_future(self._run())

    @property
    def words(self) -> str:
        """What the relay said on its stderr."""
        return self._words.decode(errors="replace").strip()

    async def wait_closed(self) -> None:
        """Return when the pump has ended."""
        await asyncio.wait({self._done})

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        with self._engine, self._door:
            work = (self._from_engine(), self._to_engine(), self._watch())
            tasks = {loop.create_task(item) for item in work}
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                task.cancel()
            # A side that breaks ends the stream like one that closes: whoever holds the door sees it close.
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self._watch_seconds)
            if not await self._is_running():
                return

    async def _to_engine(self) -> None:
        loop = asyncio.get_running_loop()
        while data := await loop.sock_recv(self._door, _CHUNK):
            await loop.sock_sendall(self._engine, data)

    async def _from_engine(self) -> None:
        loop = asyncio.get_running_loop()
        waiting = bytearray()
        while data := await loop.sock_recv(self._engine, _CHUNK):
            waiting += data
            while len(waiting) >= _FRAME.size:
                stream, size = _FRAME.unpack_from(waiting)
                end = _FRAME.size + size
                if len(waiting) < end:
                    break
                if stream == _STDOUT:
                    await loop.sock_sendall(self._door, bytes(waiting[_FRAME.size : end]))
                else:
                    self._words = (self._words + waiting[_FRAME.size : end])[-_MOST_WORDS:]
                del waiting[:end]
