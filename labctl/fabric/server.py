"""The lab's door: serves the ops of docs/internals.md, The fabric, to any number of clients at once."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import traceback
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from labctl import __version__
from labctl.configuration import ConfigurationError, Impairment, from_json, to_json
from labctl.door import Call, Connection, DoorClosed, DoorError
from labctl.door.connection import MAX_FRAME_OCTETS
from labctl.fabric.fabric import Fabric
from labctl.fabric.passthrough import pass_through
from labctl.fabric.records import Ring
from labctl.impairment.packet_filter import check_program
from labctl.topology.plan import Plan

Result = dict[str, Any]


class DoorServer:
    """Answers clients on behalf of one fabric."""

    def __init__(self, fabric: Fabric) -> None:
        self._fabric = fabric
        self._clients: set[Connection] = set()
        self._server: asyncio.Server | None = None
        self._ops: dict[str, Callable[[Call], Awaitable[Result]]] = {
            "build": self._build,
            "configure": self._configure,
            "wait": self._wait,
            "remove": self._remove,
            "status": self._status,
            "node": self._node,
            "events": self._events,
            "logs": self._logs,
            "plan": self._plan,
            "impair": self._impair,
            "impairments": self._impairments,
            "shutdown": self._shutdown,
        }

    async def listen(self, listener: socket.socket) -> None:
        """Serve whoever connects to a listening socket (listen_at makes one)."""
        self._server = await asyncio.start_unix_server(self._accept, sock=listener, limit=MAX_FRAME_OCTETS)

    async def serve(self, sock: socket.socket) -> None:
        """Serve the client at the other end of a connected socket."""
        reader, writer = await asyncio.open_connection(sock=sock, limit=MAX_FRAME_OCTETS)
        await self._accept(reader, writer)

    async def close(self) -> None:
        """Turn everybody away."""
        if self._server is not None:
            self._server.close()
        for client in list(self._clients):
            await client.close()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        hello = {"lab": self._fabric.lab, "runtime": self._fabric.source.runtime, "labctl": __version__}
        client = Connection(reader, writer, handler=self._handle, hello=hello)
        self._clients.add(client)
        try:
            await client.start()
            await client.wait_closed()
        except DoorClosed:
            return  # gone before it was greeted
        finally:
            self._clients.discard(client)

    async def _handle(self, call: Call) -> Result:
        serve = self._ops.get(call.op) if isinstance(call.op, str) else None
        if serve is None:
            raise DoorError("unknown-op", f"a fabric has no op {call.op!r}", f"it has {', '.join(self._ops)}")
        if not isinstance(call.args, dict):
            raise DoorError("bad-request", f"the arguments of {call.op} are no object")
        try:
            return await serve(call)
        except (ConfigurationError, KeyError, TypeError, ValueError) as error:
            traceback.print_exc()
            raise DoorError("bad-request", f"{call.op}: {type(error).__name__}: {error}") from None
        except OSError as error:
            traceback.print_exc()
            raise DoorError("system", f"{call.op}: {error}", "the fabric's own log says more") from None

    async def _build(self, call: Call) -> Result:
        plan = from_json(Plan, call.args["plan"])
        pids = call.args.get("pids") or {}
        if not isinstance(pids, dict) or not all(isinstance(pid, int) for pid in pids.values()):
            raise DoorError("bad-request", "build: pids is a mapping from node to pid")
        return await self._fabric.build(plan, _names(call), pids, _reporter(call))

    async def _configure(self, call: Call) -> Result:
        plan = from_json(Plan, call.args["plan"])
        return {"groups": await self._fabric.configure(plan, _names(call) or [])}

    async def _wait(self, call: Call) -> Result:
        seconds = call.args.get("timeout")
        refused = call.args.get("refused") or []
        if not isinstance(refused, list):
            raise DoorError("bad-request", "wait: refused is a list of names")
        limit = None if seconds is None else float(seconds)
        return await self._fabric.wait(_names(call), limit, _reporter(call), refused)

    async def _remove(self, call: Call) -> Result:
        await self._fabric.remove(_names(call) or [])
        return {}

    async def _status(self, call: Call) -> Result:
        return await self._fabric.status()

    async def _node(self, call: Call) -> Result:
        args = call.args.get("args") or {}
        member = self._fabric.member(_text(call, "name"))
        return await pass_through(call, member.agent(), _text(call, "op"), args)

    async def _events(self, call: Call) -> Result:
        def wanted(entry: dict[str, Any]) -> bool:
            # Keys leave only for who asked for keys.
            return entry.get("type") != "keylog" or bool(call.args.get("keylog"))

        since = int(call.args.get("since") or 0)
        return await _replay(call, self._fabric.records.events, since, wanted)

    async def _logs(self, call: Call) -> Result:
        names = _names(call)
        for name in names or ():
            self._fabric.member(name)
        ring = self._fabric.records.lines

        def wanted(entry: dict[str, Any]) -> bool:
            return names is None or entry.get("node") in names or "lost" in entry

        since = 0
        if (lines := call.args.get("lines")) is not None:
            newest = [entry["seq"] for entry in ring.since(0) if wanted(entry)]
            count = int(lines)
            since = newest[-count] - 1 if 0 < count <= len(newest) else (0 if count else ring.last)
        return await _replay(call, ring, since, wanted)

    async def _plan(self, call: Call) -> Result:
        if self._fabric.plan is None:
            raise DoorError("no-plan", "nothing was built yet")
        return {"plan": to_json(self._fabric.plan)}

    async def _impair(self, call: Call) -> Result:
        rules = [from_json(Impairment, rule, f"$.rules[{place}]") for place, rule in enumerate(call.args["rules"])]
        for rule in rules:
            if rule.only:
                check_program(rule.program)
        await self._fabric.impair(_text(call, "link"), rules)
        return {}

    async def _impairments(self, call: Call) -> Result:
        return {"links": await self._fabric.impairments()}

    async def _shutdown(self, call: Call) -> Result:
        # After the answer is on its way: nobody waits for a fabric that is gone.
        asyncio.get_running_loop().call_soon(self._fabric.shutdown.set)
        return {}


async def _replay(call: Call, ring: Ring, since: int, wanted: Callable[[dict[str, Any]], bool]) -> Result:
    """Send what a ring has above `since`; then, if the client follows, what comes, until it gives up."""
    if not call.args.get("follow"):
        for entry in ring.since(since):
            if wanted(entry):
                await call.send(entry)
        return {"last": ring.last}

    async def follow() -> None:
        async for entry in ring.follow(since):
            if wanted(entry):
                await call.send(entry)

    following = asyncio.create_task(follow())
    cancelled = asyncio.create_task(call.cancelled.wait())
    try:
        await asyncio.wait({following, cancelled}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        following.cancel()
        cancelled.cancel()
    return {"last": ring.last}


def _reporter(call: Call) -> Callable[[dict[str, Any]], Awaitable[None]]:
    async def report(item: dict[str, Any]) -> None:
        try:
            await call.send(item)
        except DoorClosed:
            return  # whoever asked is gone; what was asked is done all the same, and `down` finds it

    return report


def _names(call: Call) -> Sequence[str] | None:
    names = call.args.get("nodes")
    if names is not None and not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
        raise DoorError("bad-request", f"{call.op}: nodes is a list of names")
    return names


def _text(call: Call, key: str) -> str:
    value = call.args.get(key)
    if not isinstance(value, str):
        raise DoorError("bad-request", f"{call.op}: {key} is missing")
    return value


def listen_at(path: Path) -> socket.socket:
    """A listening unix socket, mode 0600. Replaces one that nobody serves any more; raises OSError if somebody does."""
    if path.is_socket():
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(path))
            except ConnectionRefusedError:
                path.unlink()
            else:
                raise FileExistsError(f"somebody serves {path} already")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    before = os.umask(0o177)
    try:
        listener.bind(str(path))
    finally:
        os.umask(before)
    listener.listen()
    return listener


async def run(fabric: Fabric, listener: socket.socket, first_client: socket.socket | None = None) -> None:
    """Serve the door until somebody asks for the shutdown."""
    server = DoorServer(fabric)
    await server.listen(listener)
    serving = asyncio.create_task(server.serve(first_client)) if first_client is not None else None
    await fabric.shutdown.wait()
    print("labctl fabric: shutdown", file=sys.stderr, flush=True)
    await server.close()
    if serving is not None:
        await serving
    await fabric.close()
