"""The `respond` operation: an echo service (RFC 862) on UDP or TCP, for as long as the requester wants it."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

from labctl.door import Call, DoorError
from labctl.node.arguments import Arguments
from labctl.node.probe.request import ECHO_PORT
from labctl.node.sockets import IP_PKTINFO, from_address, local_address

# Connections at one time, how long one may stand, and how much it may send.
MAX_CONNECTIONS = 256
CONNECTION_SECONDS = 60.0
CONNECTION_OCTETS = 16 << 20

# Datagrams answered before everything else on the loop gets its turn.
BATCH = 64


async def respond(call: Call) -> dict[str, Any]:
    """Serve until cancelled: `{port}` to the requester once it answers, `{echoed}` at the end. Raises DoorError."""
    args = Arguments("respond", call.args).known("protocol", "port")
    protocol = args.text("protocol", "udp")
    port = args.integer("port", ECHO_PORT, 0, 65535)
    if protocol not in ("udp", "tcp"):
        raise args.error("protocol", "it is udp or tcp; a node's kernel answers icmp by itself")
    try:
        responder = _Datagrams(port) if protocol == "udp" else await _Streams.open(port)
    except OSError as error:
        raise DoorError(
            "port-in-use", f"respond: {protocol} port {port}: {error.strerror}", "port 0 takes any that is free"
        ) from None
    try:
        await call.send({"port": responder.port})
        await call.cancelled.wait()
        return {"echoed": responder.echoed}
    finally:
        responder.close()


class _Datagrams:
    def __init__(self, port: int) -> None:
        self.echoed = 0
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            self._socket.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
            self._socket.setsockopt(socket.IPPROTO_IP, socket.IP_RECVTOS, 1)
            self._socket.bind(("0.0.0.0", port))
        except OSError:
            self._socket.close()
            raise
        self.port = int(self._socket.getsockname()[1])
        asyncio.get_running_loop().add_reader(self._socket.fileno(), self._echo)

    def _echo(self) -> None:
        for _ in range(BATCH):
            try:
                data, ancillary, _, peer = self._socket.recvmsg(65536, 256)
            except OSError:
                return
            address = local_address(ancillary)
            # The answer leaves from where the question came to, in the question's class of service.
            answer = from_address(address) if address is not None else []
            answer += [item for item in ancillary if item[:2] == (socket.IPPROTO_IP, socket.IP_TOS)]
            try:
                self._socket.sendmsg(
                    [data], [(level, kind, _padded(kind, value)) for level, kind, value in answer], 0, peer
                )
            except OSError:
                continue  # a datagram that is lost
            self.echoed += 1

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._socket.fileno())
        self._socket.close()


def _padded(kind: int, value: bytes) -> bytes:
    """IP_TOS comes as one octet and is sent as an int (ip(7))."""
    return value.ljust(4, b"\0") if kind == socket.IP_TOS else value


class _Streams:
    def __init__(self) -> None:
        self.echoed = 0
        self.port = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    @classmethod
    async def open(cls, port: int) -> _Streams:
        self = cls()
        self._server = await asyncio.start_server(self._serve, "0.0.0.0", port, backlog=128)
        self.port = int(self._server.sockets[0].getsockname()[1])
        return self

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        try:
            if len(self._tasks) < MAX_CONNECTIONS:
                self._tasks.add(task)
                async with asyncio.timeout(CONNECTION_SECONDS):
                    await self._echo(reader, writer)
        except (OSError, TimeoutError):
            pass  # the peer is gone, or was here too long
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _echo(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        left = CONNECTION_OCTETS
        while left > 0 and (data := await reader.read(65536)):
            left -= len(data)
            writer.write(data)
            await writer.drain()
            self.echoed += 1

    def close(self) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
