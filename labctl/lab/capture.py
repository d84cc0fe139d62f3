"""Captures: which interface a link's name means, and the stream of packets from the node that has it."""

from __future__ import annotations

import asyncio
import base64
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from labctl.door import Call, Connection
from labctl.lab import keylog
from labctl.lab.directory import LabDirectory
from labctl.lab.errors import BadRequest
from labctl.lab.keylog import KeyTables
from labctl.lab.links import link_named, meant
from labctl.lab.listening import KeyListening
from labctl.lab.session import opened
from labctl.lab.standing import standing_plan
from labctl.topology.plan import Plan, PlannedLink

# Octets kept of a packet: all of them; a lab has no jumbo frame beyond this.
DEFAULT_SNAPLEN = 65535


@dataclass(frozen=True, slots=True)
class CapturePoint:
    """An interface of a node, and on which side of its crypto map: `wire` (what a cable carries) or `inside`."""

    node: str
    interface: str
    side: str = "wire"

    def __str__(self) -> str:
        return f"{self.node}:{self.interface}" + ("" if self.side == "wire" else f" ({self.side})")


@dataclass(frozen=True, slots=True)
class CapturedPacket:
    """A frame: nanoseconds since 1970, its length on the wire, and the octets that were kept."""

    time_ns: int
    original_length: int
    data: bytes


@dataclass(frozen=True, slots=True)
class CaptureResult:
    """How many frames the interface saw, and how many of them were lost before they were written."""

    captured: int
    dropped: int


def _nothing() -> None:
    return None


@dataclass(frozen=True, slots=True)
class KeysOfCapture:
    """Keys while a capture runs: `known` is called once `tables` has those that nodes hold, `news` at every change."""

    tables: KeyTables
    known: Callable[[], None] = _nothing
    news: Callable[[], None] = _nothing


@dataclass(frozen=True, slots=True)
class CaptureOptions:
    """What `capture` was asked. `point` is a link or `node:interface`; None of count and seconds is until Ctrl-C."""

    point: str
    side: str = "wire"
    snaplen: int = DEFAULT_SNAPLEN
    count: int | None = None
    seconds: float | None = None


class PacketSink(Protocol):
    """Takes what is captured: a pcapng file, or lines for eyes."""

    def begin(self, point: CapturePoint, snaplen: int) -> None:
        """The capture is on."""

    def packets(self, packets: Sequence[CapturedPacket]) -> None:
        """Some packets, in order."""

    def end(self, result: CaptureResult) -> None:
        """No more come."""


async def capture_in(
    directory: LabDirectory,
    options: CaptureOptions,
    sink: PacketSink,
    keys: KeysOfCapture | None = None,
    enough: asyncio.Event | None = None,
) -> CaptureResult:
    """Capture in a lab that is up, until `enough` is set at the latest. Raises BadRequest, NoSuchLab, DoorError."""
    plan = standing_plan(directory)
    point = capture_point(plan, options.point, options.side)
    left = options.count

    def take(packets: list[CapturedPacket]) -> bool:
        nonlocal left
        if left is not None:
            packets = packets[:left]
            left -= len(packets)
        sink.packets(packets)
        return left is None or left > 0

    async with opened(directory) as connection:
        listening = None if keys is None else KeyListening(connection, plan, keys.tables, keys.news)
        if listening is not None and keys is not None:
            await listening.begin()
            keys.known()
        result = await capture(
            connection,
            point,
            take,
            snaplen=options.snaplen,
            seconds=options.seconds,
            started=lambda: sink.begin(point, options.snaplen),
            enough=enough,
        )
        if listening is not None:
            await listening.end()
        await keylog.refresh(connection, directory)
    if left is not None and options.count is not None:
        result = replace(result, captured=options.count - left)
    sink.end(result)
    return result


def capture_point(plan: Plan, word: str, side: str) -> CapturePoint:
    """What the user means: `node:interface`, a link's full name, or `a--b` where one link joins a and b."""
    nodes = {node.name: [item.name for item in node.configuration.interfaces] for node in plan.nodes}
    if word.count(":") == 1 and "--" not in word:
        node, interface = word.split(":")
        if node not in nodes:
            raise BadRequest(f"lab {plan.lab} has no node {node!r}", meant(node, list(nodes)))
        if interface not in nodes[node]:
            raise BadRequest(f"{node} has no interface {interface!r}", f"it has {', '.join(nodes[node])}")
        return CapturePoint(node, interface, side)
    return _point_on(link_named(plan, word, "link or interface"), nodes, side)


async def capture(
    connection: Connection,
    point: CapturePoint,
    take: Callable[[list[CapturedPacket]], bool],
    *,
    snaplen: int = DEFAULT_SNAPLEN,
    seconds: float | None = None,
    started: Callable[[], None] = _nothing,
    enough: asyncio.Event | None = None,
) -> CaptureResult:
    """Stream packets to `take` until it returns False, the time is over, `enough`, or Ctrl-C; say what was lost."""
    args = {"interface": point.interface, "side": point.side, "snaplen": snaplen}
    call = await connection.open("node", name=point.node, op="capture", args=args)
    loop = asyncio.get_running_loop()
    stopping: set[asyncio.Task[None]] = set()

    def stop() -> None:
        if not stopping:
            stopping.add(asyncio.create_task(call.cancel()))

    timer = loop.call_later(seconds, stop) if seconds is not None else None
    waiting = None if enough is None else asyncio.create_task(enough.wait())
    if waiting is not None:
        waiting.add_done_callback(lambda task: None if task.cancelled() else stop())
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    try:
        return await _stream(call, take, stop, started)
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
        if timer is not None:
            timer.cancel()
        if waiting is not None:
            waiting.cancel()
        await asyncio.gather(*stopping)


async def _stream(
    call: Call, take: Callable[[list[CapturedPacket]], bool], stop: Callable[[], None], started: Callable[[], None]
) -> CaptureResult:
    wanted, begun = True, False
    captured = dropped = 0
    async for item in call:
        if not begun:  # the first item, empty, says that the node listens
            begun = True
            started()
        packets = [CapturedPacket(when, length, base64.b64decode(data)) for when, length, data in item["packets"]]
        captured += len(packets)
        dropped = int(item.get("dropped") or dropped)
        if packets and wanted:
            wanted = take(packets)
            if not wanted:
                stop()
    result = await call.result()
    return CaptureResult(int(result.get("captured", captured)), int(result.get("dropped", dropped)))


def _point_on(link: PlannedLink, nodes: dict[str, list[str]], side: str) -> CapturePoint:
    for end in link.ends:
        if end.node in nodes:
            return CapturePoint(end.node, end.interface, side)
    raise BadRequest(f"{link.name} joins two switches, and only nodes can capture", "capture at a node's interface")
