"""The door's connection: requests, streams both ways, cancel, errors, hostile frames."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest

from labctl.door import Call, Connection, DoorClosed, DoorError


async def pair(handler: Callable[[Call], Awaitable[dict[str, Any] | None]]) -> tuple[Connection, Connection, list[Any]]:
    """A client and a server connection over a real socket pair, and the list of events the client saw."""
    ours, theirs = socket.socketpair()
    events: list[Any] = []
    client = await Connection.over(ours, on_event=events.append, hello={"who": "client"})
    server = await Connection.over(theirs, handler=handler, hello={"who": "server"})
    return client, server, events


def run(main: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(main, 20))


async def serve(call: Call) -> dict[str, Any] | None:
    if call.op == "add":
        return {"sum": call.args["a"] + call.args["b"]}
    if call.op == "count":
        for number in range(call.args["to"]):
            await call.send({"number": number})
        return {"done": True}
    if call.op == "echo":
        async for item in call:
            if item.get("end"):
                return {"ended": True}
            await call.send(item)
    if call.op == "wait":
        await call.cancelled.wait()
        return {"cancelled": True}
    raise DoorError("unknown-op", f"no such operation: {call.op}", "ask for add")


def test_a_request_gets_its_result_and_both_sides_know_each_other() -> None:
    async def main() -> None:
        client, server, _ = await pair(serve)
        assert await client.greeting() == {"who": "server"}
        assert await server.greeting() == {"who": "client"}
        results = await asyncio.gather(*(client.call("add", a=number, b=1) for number in range(50)))
        assert [result["sum"] for result in results] == list(range(1, 51))
        await client.close()
        await server.wait_closed()

    run(main())


def test_a_failure_arrives_with_its_code_and_hint() -> None:
    async def main() -> None:
        client, server, _ = await pair(serve)
        with pytest.raises(DoorError) as caught:
            await client.call("fly")
        assert (caught.value.code, caught.value.hint) == ("unknown-op", "ask for add")
        assert (await client.call("add", a=1, b=1))["sum"] == 2
        await client.close()
        await server.wait_closed()

    run(main())


def test_a_stream_longer_than_the_backlog_arrives_whole_and_in_order() -> None:
    async def main() -> None:
        client, server, _ = await pair(serve)
        call = await client.open("count", to=5000)
        numbers = [item["number"] async for item in call]
        assert numbers == list(range(5000))
        assert await call.result() == {"done": True}
        await client.close()
        await server.wait_closed()

    run(main())


def test_streams_run_both_ways_at_once() -> None:
    async def main() -> None:
        client, server, _ = await pair(serve)
        call = await client.open("echo")
        await call.send({"text": "one"})
        await call.send({"text": "two"})
        await call.send({"end": True})
        assert [item["text"] async for item in call] == ["one", "two"]
        assert await call.result() == {"ended": True}
        await client.close()
        await server.wait_closed()

    run(main())


def test_cancel_reaches_the_handler() -> None:
    async def main() -> None:
        client, server, _ = await pair(serve)
        call = await client.open("wait")
        await call.cancel()
        assert await call.result() == {"cancelled": True}
        await client.close()
        await server.wait_closed()

    run(main())


def test_both_sides_may_ask_at_the_same_time_with_the_same_numbers() -> None:
    async def main() -> None:
        ours, theirs = socket.socketpair()
        left = await Connection.over(ours, handler=serve)
        right = await Connection.over(theirs, handler=serve)

        async def echo(connection: Connection, word: str) -> list[str]:
            call = await connection.open("echo")
            await call.send({"text": word})
            await call.send({"end": True})
            return [item["text"] async for item in call]

        assert list(await asyncio.gather(echo(left, "from left"), echo(right, "from right"))) == [
            ["from left"],
            ["from right"],
        ]
        await left.close()
        await right.wait_closed()

    run(main())


def test_a_frame_of_a_megabyte_arrives_whole() -> None:
    async def main() -> None:
        client, server, _ = await pair(serve)
        text = "x" * 1_000_000
        assert (await client.call("add", a=text, b="y"))["sum"] == text + "y"
        await client.close()
        await server.wait_closed()

    run(main())


def test_events_arrive_unasked() -> None:
    async def main() -> None:
        client, server, events = await pair(serve)
        await server.event({"type": "log", "text": "hello"})
        await client.call("add", a=1, b=1)
        assert events == [{"type": "log", "text": "hello"}]
        await client.close()
        await server.wait_closed()

    run(main())


def test_when_the_other_side_dies_every_call_fails_with_closed() -> None:
    async def main() -> None:
        client, server, _ = await pair(serve)
        call = await client.open("wait")
        await server.close()
        with pytest.raises(DoorClosed):
            await call.result()
        with pytest.raises(DoorClosed):
            await client.call("add", a=1, b=1)

    run(main())


@pytest.mark.parametrize(
    "frame",
    [b"not json\n", b"[]\n", b'{"id": 1}\n', b'{"op": "add"}\n', b"\xff\xfe\n", b'{"v": 99, "hello": {}}\n', b"7\n"],
)
def test_a_frame_that_is_not_of_the_protocol_ends_that_connection_only(frame: bytes) -> None:
    async def main() -> None:
        ours, theirs = socket.socketpair()
        server = await Connection.over(theirs, handler=serve)
        ours.sendall(frame)
        await server.wait_closed()
        assert isinstance(server.failure, DoorClosed)
        ours.close()

    run(main())


def test_another_version_is_refused_by_name() -> None:
    async def main() -> None:
        ours, theirs = socket.socketpair()
        client = await Connection.over(ours)
        theirs.sendall(json.dumps({"v": 2, "hello": {}}).encode() + b"\n")
        with pytest.raises(DoorClosed, match="version 2"):
            await client.greeting()
        theirs.close()

    run(main())
