"""ICMP and UDP echoes: one connected socket a probe, any number of echoes under way, errors from the error queue.

The kernel hands every ICMP error about our datagrams to the socket that sent them (ip(7), IP_RECVERR), with the
head of the datagram it is about, so that each error is put down to its echo.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import struct
import time
from collections.abc import Iterator
from typing import Any

from labctl.node.probe.report import Report, error_word
from labctl.node.probe.request import HEAD_OCTETS, TOKEN_OCTETS, ProbeRequest, Protocol
from labctl.node.sockets import (
    IP_MTU_DISCOVER,
    IP_PMTUDISC_DO,
    IP_PMTUDISC_DONT,
    IP_PMTUDISC_WANT,
    IP_RECVERR,
    IPV6_MTU_DISCOVER,
    IPV6_RECVERR,
    icmp_errors,
)

SOL_RAW, ICMP_FILTER = 255, 1
ECHO_REPLY, ECHO_REQUEST = 0, 8
# RFC 3542 3.2: a bit for each type that is blocked.
ICMPV6_FILTER = 1
ECHO_REPLY_IPV6, ECHO_REQUEST_IPV6 = 129, 128
ICMP_HEADER = struct.Struct("!BBHHH")

RECEIVE_OCTETS = 65_536


class DatagramProbe:
    """One probe while it runs. Raises OSError from the constructor where the socket cannot be made."""

    def __init__(self, request: ProbeRequest) -> None:
        self.report = Report()
        self._request = request
        self._token = os.urandom(TOKEN_OCTETS)
        self._identifier = int.from_bytes(os.urandom(2), "big")
        self._icmp = request.protocol is Protocol.ICMP
        self._waiting: dict[int, int] = {}  # number of an echo -> nanoseconds of the monotonic clock when it left
        self._idle = asyncio.Event()
        self._socket = open_socket(request, socket.SOCK_RAW if self._icmp else socket.SOCK_DGRAM)
        try:
            if request.ipv6:
                self._socket.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVERR, 1)
            else:
                self._socket.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
            if self._icmp and request.ipv6:
                blocked = bytearray(b"\xff" * 32)
                word, bit = divmod(ECHO_REPLY_IPV6, 32)
                struct.pack_into("=I", blocked, word * 4, ~(1 << bit) & 0xFFFFFFFF)
                self._socket.setsockopt(socket.IPPROTO_ICMPV6, ICMPV6_FILTER, bytes(blocked))
            elif self._icmp:
                everything_but_replies = ~(1 << ECHO_REPLY) & 0xFFFFFFFF
                self._socket.setsockopt(SOL_RAW, ICMP_FILTER, struct.pack("=I", everything_but_replies))
            self._socket.connect((str(request.destination), 0 if self._icmp else request.port))
        except OSError:
            self._socket.close()
            raise

    async def run(self, cancelled: asyncio.Event) -> None:
        """Send every echo and wait for the last answer, or until `cancelled`."""
        loop = asyncio.get_running_loop()
        loop.add_reader(self._socket.fileno(), self._receive)
        stop: asyncio.Task[Any] = asyncio.create_task(cancelled.wait())
        try:
            for number in range(self._request.count):
                if number:
                    # Returns early only when the probe is cancelled.
                    await asyncio.wait({stop}, timeout=self._request.interval)
                if cancelled.is_set():
                    break
                self._send(number)
                if not self._request.interval:
                    await asyncio.sleep(0)  # answers of the burst so far get their turn
            await self._wait_for_the_rest(stop)
        finally:
            stop.cancel()
            loop.remove_reader(self._socket.fileno())
            self._socket.close()
        self.report.errors.update({"timeout": len(self._waiting)} if self._waiting else {})

    async def _wait_for_the_rest(self, stop: asyncio.Task[Any]) -> None:
        """Each echo has `timeout` seconds from when it left; the last one left last."""
        if not self._waiting:
            return
        last = max(self._waiting.values())
        self._idle.clear()
        idle: asyncio.Task[Any] = asyncio.create_task(self._idle.wait())
        left = self._request.timeout - (time.monotonic_ns() - last) / 1e9
        await asyncio.wait({idle, stop}, timeout=max(0.0, left), return_when=asyncio.FIRST_COMPLETED)
        idle.cancel()

    def _send(self, number: int) -> None:
        payload = self._request.payload(self._token, number)
        datagram = payload
        if self._icmp:
            datagram = echo_request(self._identifier, number & 0xFFFF, payload, ipv6=self._request.ipv6)
        self._waiting[number] = time.monotonic_ns()
        self.report.sent += 1
        try:
            self._socket.send(datagram)
        except OSError as error:
            # An error that was waiting here may be about an earlier echo: then this one has not left yet.
            earlier = list(self._errors())
            if earlier and error.errno != errno.EMSGSIZE:
                for about, word in earlier:
                    self._fail(about, word)
                with contextlib.suppress(OSError):
                    self._socket.send(datagram)
                return
            self._fail(number, error_word(error))

    def _receive(self) -> None:
        while True:
            try:
                data = self._socket.recv(RECEIVE_OCTETS)
            except BlockingIOError:
                break
            except OSError:
                continue  # its cause is in the error queue, which is read below
            moment = time.monotonic_ns()
            payload = _echo_payload(data, self._identifier, ipv6=self._request.ipv6) if self._icmp else data
            if payload is not None and payload[:TOKEN_OCTETS] == self._token and len(payload) >= HEAD_OCTETS:
                self._answered(payload, moment)
        for number, word in self._errors():
            self._fail(number, word)

    def _answered(self, payload: bytes, moment: int) -> None:
        number = int.from_bytes(payload[TOKEN_OCTETS:HEAD_OCTETS], "big")
        left = self._waiting.pop(number, None)
        if left is None:
            return  # a duplicate, or too late
        milliseconds = max(0, moment - left) / 1e6
        if payload != self._request.payload(self._token, number):
            self.report.errors["mangled"] += 1
        elif milliseconds > self._request.timeout * 1000:
            self.report.errors["timeout"] += 1
        else:
            self.report.rtts_ms.append(round(milliseconds, 3))
        if not self._waiting:
            self._idle.set()

    def _errors(self) -> Iterator[tuple[int | None, str]]:
        for error in icmp_errors(self._socket):
            quoted = error.quoted[ICMP_HEADER.size :] if self._icmp else error.quoted
            if self._icmp and len(error.quoted) >= ICMP_HEADER.size:
                _, _, _, identifier, _ = ICMP_HEADER.unpack_from(error.quoted)
                if identifier != self._identifier:
                    continue  # another probe's to the same destination
            if len(quoted) >= HEAD_OCTETS:
                yield int.from_bytes(quoted[TOKEN_OCTETS:HEAD_OCTETS], "big"), error.name
            else:
                yield None, error.name

    def _fail(self, number: int | None, word: str) -> None:
        """Put an error down to its echo; one that does not say which is about the oldest."""
        if number is None:
            number = next(iter(self._waiting), None)
        if number is not None and self._waiting.pop(number, None) is not None:
            self.report.errors[word] += 1
            if not self._waiting:
                self._idle.set()


def open_socket(request: ProbeRequest, kind: int) -> socket.socket:
    """A non-blocking socket that sends as the request wants. Raises OSError."""
    if request.ipv6:
        return _open_socket_of_ipv6(request, kind)
    protocol = socket.IPPROTO_ICMP if kind == socket.SOCK_RAW else 0
    sock = socket.socket(socket.AF_INET, kind | socket.SOCK_NONBLOCK, protocol)
    try:
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, request.dscp << 2)
        sock.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DO if request.df else IP_PMTUDISC_DONT)
        if request.ttl is not None:
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, request.ttl)
        if request.source is not None:
            sock.bind((str(request.source), 0))
    except OSError:
        sock.close()
        raise
    return sock


def _open_socket_of_ipv6(request: ProbeRequest, kind: int) -> socket.socket:
    protocol = socket.IPPROTO_ICMPV6 if kind == socket.SOCK_RAW else 0
    sock = socket.socket(socket.AF_INET6, kind | socket.SOCK_NONBLOCK, protocol)
    try:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, request.dscp << 2)
        discover = IP_PMTUDISC_DO if request.df else IP_PMTUDISC_WANT
        sock.setsockopt(socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER, discover)
        if request.ttl is not None:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, request.ttl)
        if request.source is not None:
            sock.bind((str(request.source), 0))
    except OSError:
        sock.close()
        raise
    return sock


def echo_request(identifier: int, sequence: int, payload: bytes, *, ipv6: bool = False) -> bytes:
    """An ICMP echo request (RFC 792) with its checksum; of ICMPv6 (RFC 4443 4.1) without, which the kernel writes."""
    if ipv6:
        return ICMP_HEADER.pack(ECHO_REQUEST_IPV6, 0, 0, identifier, sequence) + payload
    blank = ICMP_HEADER.pack(ECHO_REQUEST, 0, 0, identifier, sequence)
    return ICMP_HEADER.pack(ECHO_REQUEST, 0, checksum(blank + payload), identifier, sequence) + payload


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071)."""
    if len(data) % 2:
        data += b"\0"
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _echo_payload(packet: bytes, identifier: int, *, ipv6: bool) -> bytes | None:
    """The payload of an echo reply to us; None if it is anything else.

    What the kernel gives begins with the IPv4 header, or without one where it is ICMPv6 (ipv6(7), RFC 3542 3).
    """
    start = (packet[0] & 15) * 4 if packet and not ipv6 else 0
    if len(packet) < start + ICMP_HEADER.size:
        return None
    kind, _, _, found, _ = ICMP_HEADER.unpack_from(packet, start)
    reply = ECHO_REPLY_IPV6 if ipv6 else ECHO_REPLY
    return packet[start + ICMP_HEADER.size :] if kind == reply and found == identifier else None
