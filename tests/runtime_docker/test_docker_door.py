"""The engine's multiplexed stream becomes a plain one, however it is cut."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable

import pytest

from labctl.runtime.docker_door import Pump


def frame(stream: int, data: bytes) -> bytes:
    return struct.pack("!BxxxI", stream, len(data)) + data


async def always() -> bool:
    return True


def pairs(
    is_running: Callable[[], Awaitable[bool]] = always, watch: float = 60.0
) -> tuple[Pump, socket.socket, socket.socket]:
    """A pump between an engine, whose end we hold, and a door, whose other end we hold."""
    engine, engine_end = socket.socketpair()
    door, door_end = socket.socketpair()
    for item in (engine, engine_end, door, door_end):
        item.setblocking(False)
    return Pump(engine, door, is_running, watch=watch), engine_end, door_end


async def everything(sock: socket.socket) -> bytes:
    loop, found = asyncio.get_running_loop(), b""
    while data := await loop.sock_recv(sock, 1 << 16):
        found += data
    return found


@pytest.mark.parametrize("piece", [1, 7, 8, 9, 1000])
def test_stdout_reaches_the_door_and_stderr_is_kept_as_words(piece: int) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        pump, engine, door = pairs()
        octets = (
            frame(1, b"one ") + frame(2, b"labctl: nobody ") + frame(1, b"") + frame(1, b"two") + frame(2, b"answers")
        )
        with engine, door:
            for start in range(0, len(octets), piece):
                await loop.sock_sendall(engine, octets[start : start + piece])
            engine.shutdown(socket.SHUT_WR)
            assert await everything(door) == b"one two"
            await pump.wait_closed()
            assert pump.words == "labctl: nobody answers"

    asyncio.run(asyncio.wait_for(main(), 20))


def test_what_the_door_says_goes_as_it_is_and_its_end_ends_the_stream() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        pump, engine, door = pairs()
        data = bytes(range(256)) * 4000
        with engine:
            with door:
                await asyncio.gather(loop.sock_sendall(door, data), _expect(engine, data))
            assert await everything(engine) == b""
            await pump.wait_closed()

    asyncio.run(asyncio.wait_for(main(), 20))


async def _expect(sock: socket.socket, data: bytes) -> None:
    loop, found = asyncio.get_running_loop(), b""
    while len(found) < len(data):
        found += await loop.sock_recv(sock, 1 << 16)
    assert found == data


def test_a_stream_that_the_engine_holds_open_ends_with_the_relay() -> None:
    async def main() -> None:
        answers = iter([True, True, False])

        async def is_running() -> bool:
            return next(answers)

        pump, engine, door = pairs(is_running, watch=0.01)
        with engine, door:
            assert await everything(door) == b""
            await pump.wait_closed()

    asyncio.run(asyncio.wait_for(main(), 20))
