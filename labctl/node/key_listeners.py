"""The `keylog` operation: keys go to whoever asks, for as long as they listen (docs/internals.md, The agent)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from labctl.door import Call

# A key by kind (`isakmp`, `esp`, `rekey`) and its line of the table that it is for: `keylog` has their forms.
Key = tuple[str, str]


class _Listener:
    def __init__(self) -> None:
        self.keys: list[Key] = []
        self.wake = asyncio.Event()


class KeyListeners:
    """Nothing is kept here: a key that comes while nobody listens is told to nobody."""

    def __init__(self) -> None:
        self._listeners: set[_Listener] = set()

    def put(self, kind: str, line: str) -> None:
        """A key that the node has from now on."""
        for listener in self._listeners:
            listener.keys.append((kind, line))
            listener.wake.set()

    async def serve(self, call: Call, held: Iterable[Key]) -> dict[str, Any]:
        """Say what is held, then what comes, until the call is cancelled; what came until then is said as well."""
        listener = _Listener()
        listener.keys.extend(held)
        self._listeners.add(listener)
        cancelled = asyncio.ensure_future(call.cancelled.wait())
        cancelled.add_done_callback(lambda _: listener.wake.set())
        try:
            while True:
                told, listener.keys = listener.keys, []
                await call.send({"keys": [list(key) for key in told]})
                if call.cancelled.is_set() and not listener.keys:
                    return {}
                await listener.wake.wait()
                listener.wake.clear()
        finally:
            self._listeners.discard(listener)
            cancelled.cancel()
