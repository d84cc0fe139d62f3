"""The fabric's side of impaired links: which there are, and the process that carries their frames."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from labctl.configuration import Impairment, to_json
from labctl.door import Connection, DoorError
from labctl.fabric.wires import Wire

# The interpreter is told where our code is: it may be in none of its own places.
_START = "import sys; sys.path[:] = {path!r}; from labctl.fabric.impairer import main; main({descriptor})"


@dataclass(frozen=True, slots=True)
class _Impaired:
    """A link at work: its rules, and the ends (in the fabric's namespace) that lead to each of its nodes."""

    rules: tuple[Impairment, ...]
    wire: Wire
    ends: tuple[str, str]


class Impairments:
    """The impaired links of a lab."""

    def __init__(self) -> None:
        self._links: dict[str, _Impaired] = {}
        self._connection: Connection | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._watching: asyncio.Task[None] | None = None

    def rules(self) -> dict[str, tuple[Impairment, ...]]:
        """Link -> its rules."""
        return {name: item.rules for name, item in self._links.items()}

    async def set(self, wire: Wire, ends: tuple[str, str], rules: Sequence[Impairment]) -> None:
        """Frames between `ends` go by these rules from now on. Raises DoorError, OSError."""
        impaired = _Impaired(tuple(rules), wire, ends)
        await self._tell(await self._started(), impaired)
        self._links[wire.name] = impaired

    async def clear(self, link: str) -> None:
        """Carry no frames of this link any more. Fine if there is none."""
        if self._links.pop(link, None) is not None and self._connection is not None:
            await self._connection.call("clear", link=link)

    async def counters(self) -> dict[str, Any]:
        """Link -> sender -> `passed`, `lost` (no room, or the other end down), and of each rule what it did."""
        return await (await self._started()).call("counters") if self._links else {}

    async def close(self) -> None:
        """End the process."""
        if self._watching is not None:
            self._watching.cancel()
        await self._end_process()

    async def _end_process(self) -> None:
        if self._connection is not None:
            await self._connection.close()
            self._connection = None
        if self._process is not None:
            await asyncio.to_thread(self._process.wait)  # it ends with its socket
            self._process = None

    async def _tell(self, connection: Connection, impaired: _Impaired) -> None:
        await connection.call(
            "set",
            link=impaired.wire.name,
            senders=[str(end.owner) for end in impaired.wire.ends],
            ends=list(impaired.ends),
            rules=[to_json(rule) for rule in impaired.rules],
        )

    async def _started(self) -> Connection:
        if self._connection is not None and not self._connection.is_closed:
            return self._connection
        await self._end_process()
        ours, theirs = socket.socketpair()
        try:
            self._process = _start(theirs)
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        self._connection = connection = await Connection.over(ours)
        if self._watching is None:
            self._watching = asyncio.create_task(self._watch())
        # Where its predecessor fell, what there was goes on.
        for impaired in self._links.values():
            await self._tell(connection, impaired)
        return connection

    async def _watch(self) -> None:
        """A process that falls is started again: an impaired link is no broken one."""
        while self._connection is not None:
            await self._connection.wait_closed()
            print("labctl fabric: the process of impaired links fell; it is started again", file=sys.stderr, flush=True)
            try:
                await self._started()
            except (OSError, DoorError) as error:
                print(f"labctl fabric: impaired links: {error}", file=sys.stderr, flush=True)
                return


def _start(sock: socket.socket) -> subprocess.Popen[bytes]:
    # Not by asyncio: under namespaces the supervisor, first of its pid namespace, reaps every child itself.
    code = _START.format(path=sys.path, descriptor=sock.fileno())
    return subprocess.Popen([sys.executable, "-c", code], pass_fds=[sock.fileno()], stdin=subprocess.DEVNULL)
