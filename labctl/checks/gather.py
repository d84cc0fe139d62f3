"""Gets the evidence through the lab's door: captures run first, then every echo, then the captures end.

All checks are served together. Echoes whose time is measured come after the others, few at once, so that labctl's own
load is not what they measure.
"""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Iterable, Mapping
from typing import Any

from labctl.checks.evidence import Evidence, Needs, Probe, ProbeOutcome, Tap, TapOutcome
from labctl.checks.needs import address_of
from labctl.door import Call, Connection, DoorClosed, DoorError
from labctl.topology.plan import Plan

# Probes under way at once: enough to finish a matrix quickly, few enough for a machine with two cores.
AT_ONCE = 64
TIMED_AT_ONCE = 2

# Between the echoes of one probe, and how long the last may take; seconds.
INTERVAL = 0.05
TIMEOUT = 2.0

# An agent that does not answer for so much longer than its work takes is taken for dead.
GRACE = 15.0

# Frames that one capture keeps; more is counted as dropped, which no check of plain text forgives.
MOST_FRAMES = 200_000
WHOLE_FRAME = 65535


async def gather(plan: Plan, door: Connection, needs: Iterable[Needs]) -> Evidence:
    """See everything that the checks want to see. Raises DoorClosed if the lab goes away."""
    wanted = list(needs)
    probes = dict.fromkeys(probe for need in wanted for probe in need.probes)
    taps = {tap: _Listener(door, tap) for need in wanted for tap in need.taps}
    names = dict.fromkeys(name for need in wanted for name in need.statuses)
    try:
        await asyncio.gather(*(listener.start() for listener in taps.values()))
        statuses, outcomes = await asyncio.gather(
            _statuses(door, names), _probe_all(plan, door, [probe for probe in probes if not probe.timed], AT_ONCE)
        )
        timed = await _probe_all(plan, door, [probe for probe in probes if probe.timed], TIMED_AT_ONCE)
    finally:
        await asyncio.gather(*(listener.stop() for listener in taps.values()))
    return Evidence(outcomes | timed, {tap: listener.outcome() for tap, listener in taps.items()}, statuses)


async def _statuses(door: Connection, names: Iterable[str]) -> dict[str, Mapping[str, Any] | str]:
    async def ask(name: str) -> Mapping[str, Any] | str:
        try:
            async with asyncio.timeout(GRACE):
                return await door.call("node", name=name, op="status", args={})
        except DoorClosed:
            raise
        except DoorError as error:
            return error.message
        except TimeoutError:
            return f"its agent did not answer within {GRACE:.0f} s"

    known = list(names)
    return dict(zip(known, await asyncio.gather(*map(ask, known)), strict=True))


async def _probe_all(plan: Plan, door: Connection, probes: list[Probe], at_once: int) -> dict[Probe, ProbeOutcome]:
    turn = asyncio.Semaphore(at_once)

    async def send(probe: Probe) -> ProbeOutcome:
        async with turn:
            return await _probe(plan, door, probe)

    return dict(zip(probes, await asyncio.gather(*map(send, probes)), strict=True))


async def _probe(plan: Plan, door: Connection, probe: Probe) -> ProbeOutcome:
    args: dict[str, Any] = {
        "destination": str(address_of(plan, probe.source, probe.destination, ipv6=probe.ipv6)),
        "protocol": "icmp",
        "count": probe.count,
        "interval": INTERVAL,
        "timeout": TIMEOUT,
        "dscp": probe.dscp,
    }
    if probe.marker:
        args["marker_b64"] = base64.b64encode(probe.marker).decode()
    begun = time.monotonic()
    try:
        async with asyncio.timeout(probe.count * INTERVAL + TIMEOUT + GRACE):
            said = await door.call("node", name=probe.source, op="probe", args=args)
    except DoorClosed:
        raise
    except DoorError as error:
        return ProbeOutcome(failure=error.message, seconds=time.monotonic() - begun)
    except TimeoutError:
        failure = f"the agent of {probe.source} did not answer"
        return ProbeOutcome(failure=failure, seconds=time.monotonic() - begun)
    return ProbeOutcome(
        sent=said["sent"],
        received=said["received"],
        rtts_ms=tuple(said["rtts_ms"]),
        errors=said["errors"],
        seconds=time.monotonic() - begun,
    )


class _Listener:
    """One capture, from its first item, which says that it runs, to what comes after its end."""

    def __init__(self, door: Connection, tap: Tap) -> None:
        self._door = door
        self._tap = tap
        self._call: Call | None = None
        self._reader: asyncio.Task[None] | None = None
        self._runs = asyncio.Event()
        self._frames: list[bytes] = []
        self._dropped = 0
        self._failure = ""

    async def start(self) -> None:
        """Return once the capture runs, or has failed."""
        tap = self._tap
        args = {"interface": tap.interface, "side": tap.side, "snaplen": WHOLE_FRAME}
        self._call = await self._door.open("node", name=tap.node, op="capture", args=args)
        self._reader = asyncio.create_task(self._read(self._call))
        try:
            async with asyncio.timeout(GRACE):
                await self._runs.wait()
        except TimeoutError:
            self._failure = self._failure or f"the agent of {tap.node} did not begin to capture"

    async def stop(self) -> None:
        """End the capture and take what it still has."""
        if self._call is None or self._reader is None:
            return
        try:
            async with asyncio.timeout(GRACE):
                await self._call.cancel()
                await self._reader
        except DoorClosed:
            self._failure = self._failure or "the lab went away"
        except TimeoutError:
            self._failure = self._failure or f"the agent of {self._tap.node} did not end its capture"

    def outcome(self) -> TapOutcome:
        """What passed."""
        return TapOutcome(tuple(self._frames), self._dropped, self._failure)

    async def _read(self, call: Call) -> None:
        lost = 0
        try:
            async for item in call:
                for _, _, data in item["packets"]:
                    if len(self._frames) < MOST_FRAMES:
                        self._frames.append(base64.b64decode(data))
                    else:
                        lost += 1
                self._dropped = item["dropped"] + lost
                self._runs.set()
            self._dropped = (await call.result())["dropped"] + lost
        except DoorError as error:
            self._failure = error.message
        finally:
            self._runs.set()
