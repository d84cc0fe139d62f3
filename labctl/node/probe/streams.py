"""TCP echoes: one connection an echo; the round trip is from the connection's start to the whole answer."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from typing import Any

from labctl.node.probe.datagrams import open_socket
from labctl.node.probe.report import Report, error_word
from labctl.node.probe.request import TOKEN_OCTETS, ProbeRequest


async def probe_streams(request: ProbeRequest, report: Report, cancelled: asyncio.Event) -> None:
    """Connect, send, compare what comes back: `count` times, started `interval` apart."""
    token = os.urandom(TOKEN_OCTETS)
    stop: asyncio.Task[Any] = asyncio.create_task(cancelled.wait())
    running: set[asyncio.Task[None]] = set()
    try:
        for number in range(request.count):
            if number:
                await asyncio.wait({stop}, timeout=request.interval)
            if cancelled.is_set():
                break
            report.sent += 1
            running.add(asyncio.create_task(_echo(request, request.payload(token, number), report)))
        rest: asyncio.Future[Any] = asyncio.gather(*running)
        await asyncio.wait({rest, stop}, return_when=asyncio.FIRST_COMPLETED)
        if not rest.done():
            rest.cancel()
            await asyncio.gather(*running, return_exceptions=True)
    finally:
        stop.cancel()
        for task in running:
            task.cancel()


async def _echo(request: ProbeRequest, payload: bytes, report: Report) -> None:
    loop = asyncio.get_running_loop()
    began = time.monotonic()
    try:
        sock = open_socket(request, socket.SOCK_STREAM)
    except OSError as error:
        report.errors[error_word(error)] += 1
        return
    try:
        async with asyncio.timeout(request.timeout):
            await loop.sock_connect(sock, (str(request.destination), request.port))
            sending = asyncio.ensure_future(loop.sock_sendall(sock, payload))
            try:
                answer = bytearray()
                while len(answer) < len(payload):
                    data = await loop.sock_recv(sock, 65536)
                    if not data:
                        break
                    answer += data
            finally:
                sending.cancel()
                await asyncio.gather(sending, return_exceptions=True)
        if answer == payload:
            report.rtts_ms.append(round((time.monotonic() - began) * 1000, 3))
        else:
            report.errors["mangled" if len(answer) == len(payload) else "reset"] += 1
    except TimeoutError:
        report.errors["timeout"] += 1
    except OSError as error:
        report.errors[error_word(error)] += 1
    finally:
        sock.close()
