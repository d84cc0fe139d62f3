"""One connection of the door, either side: requests, streams, events over any asyncio byte stream."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

PROTOCOL_VERSION = 1

# A frame carries at most a batch of captured packets; anything longer is a broken or hostile peer.
MAX_FRAME_OCTETS = 16 * 1024 * 1024

# Items of a stream that may wait for a slow reader before the sender is told to wait as well.
STREAM_BACKLOG = 1024


class DoorError(Exception):
    """A request failed on the other side. `code` is a stable word, `hint` may be empty."""

    def __init__(self, code: str, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint


class DoorClosed(DoorError):
    """The other side is gone."""

    def __init__(self, message: str = "the other side closed the connection") -> None:
        super().__init__("closed", message)


class Call:
    """A request while it runs. The requester iterates over it and awaits `result`; the handler uses `send`."""

    def __init__(self, connection: Connection, call_id: int, op: str, args: dict[str, Any], *, remote: bool) -> None:
        self.connection = connection
        self.call_id = call_id
        self.op = op
        self.args = args
        self.remote = remote
        self.cancelled = asyncio.Event()
        self._items: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue(STREAM_BACKLOG)
        self._result: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        # A caller that only reads the stream never looks at the future; asyncio must not complain about it.
        self._result.add_done_callback(lambda future: future.cancelled() or future.exception())

    async def send(self, data: dict[str, Any]) -> None:
        """Send one stream item to the other side of this call."""
        frame: dict[str, Any] = {"id": self.call_id, "data": data}
        if not self.remote:
            frame["to"] = "server"  # both sides number their own requests, so an id alone does not say whose it is
        await self.connection.send_frame(frame)

    async def cancel(self) -> None:
        """Tell the other side that nobody waits any more."""
        if not self._result.done():
            await self.connection.send_frame({"id": self.call_id, "cancel": True})

    async def result(self) -> dict[str, Any]:
        """The answer. Raises DoorError as the other side said it, DoorClosed if it went away."""
        return await self._result

    async def __aiter__(self) -> AsyncIterator[dict[str, Any]]:
        """Stream items from the other side, until its end (then await `result`)."""
        while True:
            item = await self._items.get()
            if item is None:
                return
            yield item

    async def deliver(self, item: dict[str, Any]) -> None:
        """Called by the connection's reader."""
        await self._items.put(item)

    def finish(self, result: dict[str, Any] | None, error: DoorError | None) -> None:
        """Called by the connection's reader: the end of the call, either way."""
        if self._result.done():
            return
        if error is not None:
            self._result.set_exception(error)
        else:
            self._result.set_result(result or {})
        try:
            self._items.put_nowait(None)
        except asyncio.QueueFull:
            # The reader is behind; it learns of the end once it has drained what is there.
            asyncio.get_running_loop().create_task(self._items.put(None))


Handler = Callable[[Call], Awaitable[dict[str, Any] | None]]
EventHandler = Callable[[dict[str, Any]], None]


class Connection:
    """Frames over a stream. `handler` serves requests of the other side; `on_event` sees its events.

    Usage: `await Connection.over(socket)`, or create it over streams made with `limit=MAX_FRAME_OCTETS` and
    `await start()`; then `call`/`open`; `await wait_closed()` returns when the peer is gone.
    """

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        handler: Handler | None = None,
        on_event: EventHandler | None = None,
        hello: dict[str, Any] | None = None,
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._handler = handler
        self._on_event = on_event
        self._hello = hello or {}
        self._next_id = 1
        self._outgoing: dict[int, Call] = {}
        self._incoming: dict[int, Call] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = asyncio.Event()
        self._greeted = asyncio.Event()
        self._reader_task: asyncio.Task[None] | None = None
        self.peer_hello: dict[str, Any] = {}
        self.failure: DoorError | None = None

    @classmethod
    async def over(
        cls,
        sock: socket.socket,
        *,
        handler: Handler | None = None,
        on_event: EventHandler | None = None,
        hello: dict[str, Any] | None = None,
    ) -> Connection:
        """A started connection over a connected stream socket, which it owns from now on."""
        reader, writer = await asyncio.open_connection(sock=sock, limit=MAX_FRAME_OCTETS)
        connection = cls(reader, writer, handler=handler, on_event=on_event, hello=hello)
        await connection.start()
        return connection

    async def start(self) -> None:
        """Greet and begin to read. Returns once the greeting is sent."""
        await self.send_frame({"v": PROTOCOL_VERSION, "hello": self._hello})
        self._reader_task = asyncio.create_task(self._read())

    async def greeting(self) -> dict[str, Any]:
        """The other side's hello. Raises DoorError if it speaks another version or goes away first."""
        closed = asyncio.create_task(self._closed.wait())
        greeted = asyncio.create_task(self._greeted.wait())
        await asyncio.wait({closed, greeted}, return_when=asyncio.FIRST_COMPLETED)
        closed.cancel()
        greeted.cancel()
        if not self._greeted.is_set():
            raise self.failure or DoorClosed()
        return self.peer_hello

    async def open(self, op: str, /, **args: Any) -> Call:
        """Begin a request and return it while it runs."""
        if self._closed.is_set():
            raise self.failure or DoorClosed()
        call_id = self._next_id
        self._next_id += 1
        call = Call(self, call_id, op, args, remote=False)
        self._outgoing[call_id] = call
        await self.send_frame({"id": call_id, "op": op, "args": args})
        return call

    async def call(self, op: str, /, **args: Any) -> dict[str, Any]:
        """A request without a stream: its result. Raises DoorError."""
        return await (await self.open(op, **args)).result()

    async def event(self, event: dict[str, Any]) -> None:
        """Tell the other side something it did not ask for."""
        await self.send_frame({"event": event})

    async def send_frame(self, frame: dict[str, Any]) -> None:
        """Write one frame. Raises DoorClosed."""
        if self._closed.is_set():
            raise self.failure or DoorClosed()
        try:
            self._writer.write(json.dumps(frame, separators=(",", ":")).encode() + b"\n")
            await self._writer.drain()
        except (ConnectionError, RuntimeError, OSError) as error:
            self._shut(DoorClosed(f"the connection broke: {error}"))
            raise DoorClosed() from error

    async def wait_closed(self) -> None:
        """Return when the connection has ended."""
        await self._closed.wait()

    @property
    def is_closed(self) -> bool:
        """True once nothing can be sent any more."""
        return self._closed.is_set()

    async def close(self) -> None:
        """End the connection; running calls fail with DoorClosed."""
        if self._reader_task is not None:
            self._reader_task.cancel()
        self._shut(DoorClosed("the connection was closed"))
        for task in list(self._tasks):
            task.cancel()
        self._writer.close()

    async def _read(self) -> None:
        failure = DoorClosed()
        try:
            while True:
                line = await self._reader.readuntil(b"\n")
                await self._dispatch(json.loads(line))
        except asyncio.IncompleteReadError:
            pass
        except (ConnectionError, OSError) as error:
            failure = DoorClosed(f"the connection broke: {error}")
        except asyncio.LimitOverrunError:
            failure = DoorClosed("the other side sent a frame over the limit")
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            failure = DoorClosed(f"the other side sent a frame that is not of the protocol: {error}")
        except DoorError as error:
            failure = DoorClosed(error.message)
        self._shut(failure)
        self._writer.close()

    async def _dispatch(self, frame: Any) -> None:
        if not isinstance(frame, dict):
            raise ValueError(f"a frame is an object, not {type(frame).__name__}")
        if "hello" in frame:
            if frame.get("v") != PROTOCOL_VERSION:
                raise DoorError(
                    "version", f"the other side speaks door version {frame.get('v')}, not {PROTOCOL_VERSION}"
                )
            self.peer_hello = frame["hello"]
            self._greeted.set()
        elif "event" in frame:
            if self._on_event is not None:
                self._on_event(frame["event"])
        elif "op" in frame:
            call = Call(self, frame["id"], frame["op"], frame.get("args", {}), remote=True)
            self._incoming[call.call_id] = call
            task = asyncio.create_task(self._serve(call))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        elif "result" in frame or "error" in frame:
            self._finish(frame)
        else:
            await self._stream(frame)

    def _finish(self, frame: dict[str, Any]) -> None:
        call = self._outgoing.pop(frame["id"], None)
        if call is None:
            return
        if "error" in frame:
            error = frame["error"]
            call.finish(None, DoorError(error["code"], error["message"], error.get("hint", "")))
        else:
            call.finish(frame["result"], None)

    async def _stream(self, frame: dict[str, Any]) -> None:
        # A cancel, and data from the requester, belong to a call we serve; data from the server to one we made.
        if frame.get("cancel"):
            call = self._incoming.get(frame["id"])
            if call is not None:
                call.cancelled.set()
                await call.deliver({"cancel": True})
            return
        item = frame["data"]
        call = self._incoming.get(frame["id"]) if frame.get("to") == "server" else self._outgoing.get(frame["id"])
        if call is not None:
            await call.deliver(item)

    async def _serve(self, call: Call) -> None:
        frame: dict[str, Any]
        try:
            if self._handler is None:
                raise DoorError("unknown-op", "this side serves no requests")
            frame = {"id": call.call_id, "result": await self._handler(call) or {}}
        except DoorError as error:
            frame = {
                "id": call.call_id,
                "error": {"code": error.code, "message": error.message, "hint": error.hint},
            }
        finally:
            self._incoming.pop(call.call_id, None)
        if not self._closed.is_set():
            try:
                await self.send_frame(frame)
            except DoorClosed:
                return

    def _shut(self, failure: DoorError) -> None:
        if self._closed.is_set():
            return
        self.failure = failure
        self._closed.set()
        for call in self._outgoing.values():
            call.finish(None, failure)
        for call in self._incoming.values():
            call.cancelled.set()
            call.finish(None, failure)
        self._outgoing.clear()
        self._incoming.clear()
