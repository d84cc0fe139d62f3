"""The `probe` operation."""

from __future__ import annotations

import asyncio
import errno
from typing import Any

from labctl.door import Call, DoorError
from labctl.node.probe.datagrams import DatagramProbe
from labctl.node.probe.report import Report, error_word
from labctl.node.probe.request import ProbeRequest, Protocol, parse
from labctl.node.probe.streams import probe_streams

# Probes of one agent at one time.
MAX_PROBES = 64


class Probes:
    """The probes of one agent, so many at a time."""

    def __init__(self) -> None:
        self._running = 0

    async def probe(self, call: Call) -> dict[str, Any]:
        """Serve one `probe`; cancelled, it reports what it has so far. Raises DoorError."""
        request = parse(call.args)
        if self._running >= MAX_PROBES:
            raise DoorError("busy", f"{MAX_PROBES} probes run on this node already", "wait for one to end")
        self._running += 1
        try:
            return (await run_probe(request, call.cancelled)).result()
        finally:
            self._running -= 1


async def run_probe(request: ProbeRequest, cancelled: asyncio.Event) -> Report:
    """Carry a probe out. Raises DoorError where it cannot even begin; a network that is missing is a result."""
    if request.protocol is Protocol.TCP:
        report = Report()
        await probe_streams(request, report, cancelled)
        return report
    try:
        running = DatagramProbe(request)
    except OSError as error:
        if error.errno == errno.EPERM:
            raise DoorError("not-permitted", "probe: the agent has no CAP_NET_RAW", "see `labctl doctor`") from None
        if error.errno == errno.EADDRNOTAVAIL:
            raise DoorError("bad-argument", f"probe: source: {request.source} is no address of this node") from None
        # There is no route, or one that prohibits: every echo would fail the same way.
        report = Report(request.count)
        report.errors[error_word(error)] = request.count
        return report
    await running.run(cancelled)
    return running.report
