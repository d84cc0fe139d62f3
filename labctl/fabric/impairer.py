"""The process that carries the frames of impaired links: one a lab, started with the first of them.

An impaired link is two veth pairs whose far ends are here; frames go from one to the other through the rules of
labctl/impairment. It is a process of its own, so that traffic never waits for the fabric, nor the fabric for traffic.
The fabric asks over a socket pair, in frames of the door: `set`, `clear`, `counters`. It ends with that socket.
"""

from __future__ import annotations

import asyncio
import errno
import selectors
import socket
import sys
from typing import Any

from labctl.configuration import Impairment, from_json
from labctl.dataplane.packet_socket import GONE, LOST, PacketSocket
from labctl.door import Call, Connection, DoorError
from labctl.impairment.direction import ImpairedDirection
from labctl.kernel.signals import forget_inherited_signals

# Frames taken from one end before the others have their turn.
BATCH = 64
LONGEST_FRAME = 65_536 + 14


class _Way:
    """Frames of one end on their way to the other."""

    def __init__(self, came: PacketSocket, leaves: PacketSocket, direction: ImpairedDirection) -> None:
        self.direction = direction
        self.lost = 0
        self._came = came
        self._leaves = leaves
        self._loop = asyncio.get_running_loop()
        self._buffer = bytearray(LONGEST_FRAME)
        self._timer: asyncio.TimerHandle | None = None
        self._loop.add_reader(came.fileno(), self._receive)

    def close(self) -> None:
        self._loop.remove_reader(self._came.fileno())
        self._stop_timer()

    def become(self, direction: ImpairedDirection) -> None:
        """Other rules from the next frame on; frames on their way leave when they were to."""
        direction.take_over(self.direction)
        self.direction = direction
        self._send_due()

    def _receive(self) -> None:
        now = self._loop.time()
        for _ in range(BATCH):
            try:
                size = self._came.raw.recv_into(self._buffer)
            except OSError as error:
                if error.errno in GONE | {errno.EAGAIN}:
                    break
                raise
            self.direction.offer(bytes(self._buffer[:size]), now)
        self._send_due()

    def _send_due(self) -> None:
        self._stop_timer()
        for frame in self.direction.due(self._loop.time()):
            try:
                self._leaves.raw.send(frame)
            except OSError as error:
                if error.errno not in LOST:
                    raise
                self.lost += 1
        moment = self.direction.next_departure()
        if moment is not None:
            self._timer = self._loop.call_at(moment, self._send_due)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def counters(self) -> dict[str, Any]:
        return {
            "passed": self.direction.passed,
            "lost": self.lost + self.direction.overrun,
            "rules": self.direction.counters(),
        }


class _Link:
    """Both ways of an impaired link."""

    def __init__(self, name: str, senders: tuple[str, str], ends: tuple[str, str], rules: list[Impairment]) -> None:
        self._name = name
        self._senders = senders
        self._sockets: list[PacketSocket] = []
        try:
            for end in ends:
                self._sockets.append(PacketSocket(end, promiscuous=True))
        except OSError:
            self._close_sockets()
            raise
        one, other = self._sockets
        first, second = self._directions(rules)
        self.ways = (_Way(one, other, first), _Way(other, one, second))

    def become(self, rules: list[Impairment]) -> None:
        for way, direction in zip(self.ways, self._directions(rules), strict=True):
            way.become(direction)

    def _directions(self, rules: list[Impairment]) -> list[ImpairedDirection]:
        return [ImpairedDirection(rules, link=self._name, sender=sender) for sender in self._senders]

    def close(self) -> None:
        for way in self.ways:
            way.close()
        self._close_sockets()

    def _close_sockets(self) -> None:
        for sock in self._sockets:
            sock.close()

    def counters(self) -> dict[str, Any]:
        return {sender: way.counters() for sender, way in zip(self._senders, self.ways, strict=True)}


class _Impairer:
    """Serves the fabric."""

    def __init__(self) -> None:
        self._links: dict[str, _Link] = {}

    async def handle(self, call: Call) -> dict[str, Any]:
        link = str(call.args.get("link"))
        try:
            if call.op == "set":
                rules = [from_json(Impairment, rule) for rule in call.args["rules"]]
                if link in self._links:
                    self._links[link].become(rules)
                else:
                    senders, ends = tuple(call.args["senders"]), tuple(call.args["ends"])
                    self._links[link] = _Link(link, senders, ends, rules)
                return {}
            if call.op == "clear":
                if link in self._links:
                    self._links.pop(link).close()
                return {}
            if call.op == "counters":
                return {name: item.counters() for name, item in self._links.items()}
        except (OSError, ValueError) as error:
            raise DoorError("system", f"impair {link}: {error}") from None
        raise DoorError("unknown-op", f"the impairer has no op {call.op!r}")


async def _run(sock: socket.socket) -> None:
    connection = await Connection.over(sock, handler=_Impairer().handle)
    await connection.wait_closed()


def main(descriptor: int) -> None:
    """Serve the fabric at the other end of this socket until it goes."""
    forget_inherited_signals()
    # Of the selectors only select() waits in microseconds; the others round up to a millisecond.
    loop = asyncio.SelectorEventLoop(selectors.SelectSelector())
    loop.run_until_complete(_run(socket.socket(fileno=descriptor)))


if __name__ == "__main__":
    main(int(sys.argv[1]))
