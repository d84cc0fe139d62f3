"""`probe` and `respond`: traffic that checks are made of. Bounded in count, size and time; ICMP, UDP and TCP.

UDP and TCP probes need `respond` at the other end: an echo service that lives as long as its request.
"""

from __future__ import annotations

import asyncio
import base64
import os
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from typing import Any

from labctl.door import Call, DoorError

MAX_COUNT = 1_000_000
MAX_SIZE = 65_000
MAX_SECONDS = 3600.0

# The echo service's port where nobody says another.
ECHO_PORT = 7

ICMP_ECHO_REPLY, ICMP_UNREACHABLE, ICMP_ECHO, ICMP_TIME_EXCEEDED = 0, 3, 8, 11
IP_MTU_DISCOVER, IP_PMTUDISC_DO, IP_PMTUDISC_DONT = 10, 2, 0
MAX_ERRORS = 20

_ICMP = struct.Struct("!BBHHH")


@dataclass(slots=True)
class Outcome:
    """What came of a probe. Round trips are milliseconds."""

    sent: int = 0
    rtts: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def error(self, text: str) -> None:
        """Note an error, each once."""
        if text not in self.errors and len(self.errors) < MAX_ERRORS:
            self.errors.append(text)

    def result(self) -> dict[str, Any]:
        """For the door."""
        return {
            "sent": self.sent,
            "received": len(self.rtts),
            "rtts_ms": [round(rtt, 4) for rtt in self.rtts],
            "errors": self.errors,
        }


@dataclass(frozen=True, slots=True)
class Request:
    """A probe as asked for; intervals and timeouts are seconds."""

    destination: str
    protocol: str
    port: int
    count: int
    interval: float
    timeout: float
    size: int
    dscp: int
    df: bool
    ttl: int
    source: str
    marker: bytes

    @classmethod
    def parse(cls, args: dict[str, Any]) -> Request:
        """Raises DoorError for what makes no sense, with what would."""
        try:
            request = cls(
                str(IPv4Address(args["destination"])),
                str(args.get("protocol") or "icmp"),
                int(args.get("port") or ECHO_PORT),
                int(args.get("count") or 3),
                float(args.get("interval", 0.1)),
                float(args.get("timeout") or 2.0),
                int(args.get("size") or 56),
                int(args.get("dscp") or 0),
                bool(args.get("df")),
                int(args.get("ttl") or 64),
                str(IPv4Address(args["source"])) if args.get("source") else "",
                base64.b64decode(args.get("marker_b64") or ""),
            )
        except (KeyError, ValueError, TypeError) as error:
            raise DoorError("bad-request", f"a probe that makes no sense: {error}") from None
        limits = (
            (request.protocol in ("icmp", "udp", "tcp"), "protocol is icmp, udp or tcp"),
            (1 <= request.count <= MAX_COUNT, f"count is 1 to {MAX_COUNT}"),
            (0 <= request.size <= MAX_SIZE, f"size is 0 to {MAX_SIZE}"),
            (0 <= request.dscp <= 63, "dscp is 0 to 63"),
            (1 <= request.ttl <= 255, "ttl is 1 to 255"),
            (0 < request.port <= 65535, "port is 1 to 65535"),
            (0 <= request.interval <= 60 and 0 < request.timeout <= 60, "interval and timeout are at most 60 seconds"),
            (request.count * request.interval <= MAX_SECONDS, f"a probe lasts at most {MAX_SECONDS:.0f} seconds"),
        )
        for holds, text in limits:
            if not holds:
                raise DoorError("bad-request", f"a probe that makes no sense: {text}")
        return request

    def payload(self, number: int) -> bytes:
        """The octets of one packet: its number, the marker again and again, `size` in all."""
        head = struct.pack("!Q", number)
        filler = self.marker or b"labctl-probe."
        body = head + filler * (self.size // len(filler) + 1)
        return body[: max(self.size, len(head) + len(self.marker))]

    def prepare(self, sock: socket.socket) -> None:
        """Options of the IP header."""
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, self.dscp << 2)
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, self.ttl)
        sock.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DO if self.df else IP_PMTUDISC_DONT)


async def probe(call: Call) -> dict[str, Any]:
    """Serve `probe`."""
    request = Request.parse(call.args)
    run = _Tcp(request).run if request.protocol == "tcp" else _Datagrams(request).run
    return (await run(call)).result()


class _Datagrams:
    """ICMP echo or UDP: packets at an interval, answers matched by number."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.outcome = Outcome()
        self._icmp = request.protocol == "icmp"
        self._identifier = int.from_bytes(os.urandom(2), "big")
        self._sent_at: dict[int, float] = {}
        self._done = asyncio.Event()

    async def run(self, call: Call) -> Outcome:
        kind = socket.SOCK_RAW if self._icmp else socket.SOCK_DGRAM
        protocol = socket.IPPROTO_ICMP if self._icmp else socket.IPPROTO_UDP
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_INET, kind | socket.SOCK_NONBLOCK, protocol) as sock:
            self.request.prepare(sock)
            try:
                if self.request.source:
                    sock.bind((self.request.source, 0))
                if not self._icmp:
                    # Connected, the kernel tells of ICMP errors.
                    sock.connect((self.request.destination, self.request.port))
            except OSError as error:
                self.outcome.error(error.strerror or str(error))
                return self.outcome
            loop.add_reader(sock.fileno(), self._receive, sock)
            try:
                await self._send_all(sock, call)
                if len(self.outcome.rtts) < self.outcome.sent:
                    waiting = {asyncio.create_task(self._done.wait()), asyncio.create_task(call.cancelled.wait())}
                    await asyncio.wait(waiting, timeout=self.request.timeout, return_when=asyncio.FIRST_COMPLETED)
                    for task in waiting:
                        task.cancel()
            finally:
                loop.remove_reader(sock.fileno())
        return self.outcome

    async def _send_all(self, sock: socket.socket, call: Call) -> None:
        begin = time.perf_counter()
        for number in range(self.request.count):
            if call.cancelled.is_set():
                return
            data = self.request.payload(number)
            self._sent_at[number] = time.perf_counter()
            try:
                if self._icmp:
                    sock.sendto(self._echo(number, data), (self.request.destination, 0))
                else:
                    sock.send(data)
            except OSError as error:
                self.outcome.error(error.strerror or str(error))
            self.outcome.sent += 1
            pause = begin + (number + 1) * self.request.interval - time.perf_counter()
            if number + 1 < self.request.count and pause > 0:
                await asyncio.sleep(pause)
            elif number % 64 == 0:
                await asyncio.sleep(0)

    def _echo(self, number: int, data: bytes) -> bytes:
        header = _ICMP.pack(ICMP_ECHO, 0, 0, self._identifier, number & 0xFFFF)
        return _ICMP.pack(ICMP_ECHO, 0, _checksum(header + data), self._identifier, number & 0xFFFF) + data

    def _receive(self, sock: socket.socket) -> None:
        while True:
            try:
                data = sock.recv(65_535)
            except BlockingIOError:
                return
            except OSError as error:
                self.outcome.error(error.strerror or str(error))
                return
            if self._icmp:
                self._receive_icmp(data)
            else:
                self._answered(data)

    def _receive_icmp(self, packet: bytes) -> None:
        start = (packet[0] & 15) * 4
        if len(packet) < start + _ICMP.size:
            return
        kind, code, _, identifier, _ = _ICMP.unpack_from(packet, start)
        if kind == ICMP_ECHO_REPLY and identifier == self._identifier:
            self._answered(packet[start + _ICMP.size :])
        elif kind in (ICMP_UNREACHABLE, ICMP_TIME_EXCEEDED):
            quoted = packet[start + _ICMP.size :]
            inner = (quoted[0] & 15) * 4 if quoted else 0
            mine = len(quoted) >= inner + _ICMP.size and quoted[9] == socket.IPPROTO_ICMP
            if mine and _ICMP.unpack_from(quoted, inner)[3] == self._identifier:
                router = socket.inet_ntoa(packet[12:16])
                names = {0: "network", 1: "host", 4: "fragmentation needed", 13: "administratively prohibited"}
                what = "time exceeded" if kind == ICMP_TIME_EXCEEDED else f"unreachable ({names.get(code, code)})"
                self.outcome.error(f"{what} from {router}")

    def _answered(self, data: bytes) -> None:
        if len(data) < 8:
            return
        number = int.from_bytes(data[:8], "big")
        sent = self._sent_at.pop(number, None)
        if sent is None or data != self.request.payload(number):
            return
        self.outcome.rtts.append((time.perf_counter() - sent) * 1000)
        if len(self.outcome.rtts) == self.request.count:
            self._done.set()


class _Tcp:
    """A connection for each try: connect, send, read the echo."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.outcome = Outcome()

    async def run(self, call: Call) -> Outcome:
        for number in range(self.request.count):
            if call.cancelled.is_set():
                break
            self.outcome.sent += 1
            begin = time.perf_counter()
            try:
                async with asyncio.timeout(self.request.timeout):
                    await self._once(number)
                self.outcome.rtts.append((time.perf_counter() - begin) * 1000)
            except TimeoutError:
                self.outcome.error("timeout")
            except OSError as error:
                self.outcome.error(error.strerror or str(error))
            if number + 1 < self.request.count:
                await asyncio.sleep(self.request.interval)
        return self.outcome

    async def _once(self, number: int) -> None:
        loop = asyncio.get_running_loop()
        data = self.request.payload(number)
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as sock:
            self.request.prepare(sock)
            if self.request.source:
                sock.bind((self.request.source, 0))
            await loop.sock_connect(sock, (self.request.destination, self.request.port))
            sending = asyncio.create_task(loop.sock_sendall(sock, data))
            echo = b""
            while len(echo) < len(data) and (part := await loop.sock_recv(sock, 65_536)):
                echo += part
            await sending
            if echo != data:
                raise OSError("the echo differs from what was sent")


async def respond(call: Call) -> dict[str, Any]:
    """Serve `respond`: UDP and TCP echo on `port` until cancelled; sends one item once it listens."""
    port = int(call.args.get("port") or ECHO_PORT)
    loop = asyncio.get_running_loop()
    echoed = 0

    def count() -> None:
        nonlocal echoed
        echoed += 1

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        count()
        try:
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass  # The prober went away; its own side says so.
        finally:
            writer.close()

    try:
        server = await asyncio.start_server(serve, "0.0.0.0", port)
        transport, _ = await loop.create_datagram_endpoint(lambda: _UdpEcho(count), ("0.0.0.0", port))
    except OSError as error:
        raise DoorError("respond-failed", f"cannot listen on port {port}: {error.strerror or error}") from None
    try:
        await call.send({"port": port})
        await call.cancelled.wait()
        return {"echoed": echoed}
    finally:
        server.close()
        transport.close()


class _UdpEcho(asyncio.DatagramProtocol):
    def __init__(self, count: Callable[[], None]) -> None:
        self._count = count
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if isinstance(transport, asyncio.DatagramTransport):
            self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        if self._transport is not None:
            self._count()
            self._transport.sendto(data, addr)


def _checksum(data: bytes) -> int:
    if len(data) % 2:
        data += b"\x00"
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF
