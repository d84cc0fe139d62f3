"""A lab that answers at a door like the fabric and its agents, and shows on its wires what a test tells it to.

The frames it makes are real Ethernet and IPv4; the door is a real Connection over a socket pair.
"""

from __future__ import annotations

import asyncio
import base64
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from labctl.checks import CheckResult, run
from labctl.door import Call, Connection, DoorError
from labctl.topology import read
from labctl.topology.plan import Plan
from labctl.topology.planner import plan

# Turns of the event loop that a probe lasts.
PROBE_TURNS = 50

TOPOLOGIES = Path(__file__).resolve().parents[2] / "topologies"


def frame(
    source: str,
    destination: str,
    protocol: int,
    payload: bytes,
    *,
    dscp: int = 0,
    labels: int = 0,
    tagged: bool = False,
) -> bytes:
    """An Ethernet frame with an IPv4 packet, behind a VLAN tag and MPLS labels if asked."""
    header = bytes([0x45, dscp << 2]) + (20 + len(payload)).to_bytes(2, "big") + bytes(4) + bytes([63, protocol, 0, 0])
    packet = header + IPv4Address(source).packed + IPv4Address(destination).packed + payload
    stack = b"".join(
        (((16 + place) << 12) | (0x100 if place == labels - 1 else 0) | 63).to_bytes(4, "big")
        for place in range(labels)
    )
    kind = b"\x88\x47" if labels else b"\x08\x00"
    tag = b"\x81\x00\x00\x07" if tagged else b""
    return bytes(12) + tag + kind + stack + packet


@dataclass
class FakeLab:
    """How the lab behaves. `carry` says what a packet from one node to another looks like on the provider's links."""

    plan: Plan
    lost: set[tuple[str, str]] = field(default_factory=set)
    clear: set[tuple[str, str]] = field(default_factory=set)
    nowhere: set[tuple[str, str]] = field(default_factory=set)
    keep_dscp: bool = True
    keep_addresses: bool = True
    labels: int = 0
    rtts_ms: tuple[float, ...] = (1.0,)
    answered: int | None = None
    states: dict[str, dict[str, Any]] = field(default_factory=dict)
    deaf: set[str] = field(default_factory=set)
    broken: set[str] = field(default_factory=set)
    dropping: int = 0
    asked: list[tuple[str, str]] = field(default_factory=list)
    captures: dict[tuple[str, str], list[Call]] = field(default_factory=dict)
    running: int = 0
    most_running: int = 0

    async def serve(self, call: Call) -> dict[str, Any]:
        """The fabric's `node` operation."""
        name, op, args = call.args["name"], call.args["op"], call.args["args"]
        self.asked.append((name, op))
        if name in self.broken:
            raise DoorError("gone", f"node {name} is not running")
        serving: dict[str, Callable[[Call, str, dict[str, Any]], Awaitable[dict[str, Any]]]] = {
            "status": self._status,
            "probe": self._probe,
            "capture": self._capture,
        }
        return await serving[op](call, name, args)

    async def _status(self, call: Call, name: str, args: dict[str, Any]) -> dict[str, Any]:
        group = {"name": "GETVPN_LAB", "role": "gm", "state": "registered", "key_server": "172.16.1.2"}
        return {"name": name, "state": "ready", "groups": [{**group, **self.states.get(name, {})}]}

    async def _capture(self, call: Call, name: str, args: dict[str, Any]) -> dict[str, Any]:
        key = (name, args["interface"])
        self.captures.setdefault(key, []).append(call)
        await call.send({"packets": [], "dropped": 0})
        await call.cancelled.wait()
        return {"captured": 0, "dropped": self.dropping}

    async def _probe(self, call: Call, name: str, args: dict[str, Any]) -> dict[str, Any]:
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        target = next(node.name for node in self.plan.nodes if self._address(node.name) == args["destination"])
        marker = base64.b64decode(args.get("marker_b64", ""))
        for _ in range(PROBE_TURNS):
            await asyncio.sleep(0)  # a probe takes its time, in which others begin
        for _ in range(args["count"]):
            await self._carry(name, target, marker, args["dscp"])
        self.running -= 1
        received = args["count"] if self.answered is None else self.answered
        if (name, target) in self.lost | self.nowhere:
            received = 0
        return {
            "sent": args["count"],
            "received": received,
            "rtts_ms": [self.rtts_ms[place % len(self.rtts_ms)] for place in range(received)],
            "errors": {"timeout": args["count"] - received} if received < args["count"] else {},
        }

    async def _carry(self, source: str, target: str, marker: bytes, dscp: int) -> None:
        here, there = self._address(source), self._address(target)
        await self._show(source, "eth0", frame(here, there, 1, b"12345678" + marker * 2, dscp=dscp))
        if (source, target) in self.nowhere:
            return
        if (source, target) in self.clear:
            passing = frame(here, there, 1, b"12345678" + marker * 2, dscp=dscp, labels=self.labels)
        else:
            outer = (here, there) if self.keep_addresses else ("172.16.2.2", "172.16.3.2")
            passing = frame(*outer, 50, bytes(40), dscp=dscp if self.keep_dscp else 0, labels=self.labels)
        for node, interface in list(self.captures):
            if self.plan.node(node).kind.value in ("pe", "p"):
                await self._show(node, interface, passing)

    async def _show(self, node: str, interface: str, data: bytes) -> None:
        if node in self.deaf:
            return
        for call in self.captures.get((node, interface), []):
            packet = [0, len(data), base64.b64encode(data).decode()]
            await call.send({"packets": [packet], "dropped": 0})

    def _address(self, name: str) -> str:
        return self.plan.node(name).configuration.hosts[name]


class Bench:
    """Runs the checks of a topology against a FakeLab."""

    def __init__(self, topology: str) -> None:
        self.lab = FakeLab(plan(read(topology), secret=b"secret"))

    def run(self, *selection: str) -> list[CheckResult]:
        """The results."""
        return asyncio.run(self._run(selection))

    def one(self, *selection: str) -> CheckResult:
        """The only result."""
        (result,) = self.run(*selection)
        return result

    async def _run(self, selection: tuple[str, ...]) -> list[CheckResult]:
        ours, theirs = socket.socketpair()
        server = await Connection.over(theirs, handler=self.lab.serve)
        client = await Connection.over(ours)
        try:
            return await run(self.lab.plan, client, selection)
        finally:
            await client.close()
            await server.close()


TWO_SITES = (TOPOLOGIES / "two-sites.yml").read_text()
