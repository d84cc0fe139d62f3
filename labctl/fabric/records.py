"""What happened in a lab, numbered and bounded: events for `events`, lines for `logs`, and the nodes' log files."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, TextIO

# The newest entries that a fabric remembers. Whoever comes later, or reads too slowly, is told how many it lost.
EVENTS_KEPT = 10_000
LINES_KEPT = 20_000


class Ring:
    """The newest `size` entries, numbered from 1. Readers follow at their own pace and hold nobody up."""

    def __init__(self, size: int) -> None:
        self._entries: deque[dict[str, Any]] = deque(maxlen=size)
        self._next = 1
        self._grown = asyncio.Event()

    def append(self, entry: dict[str, Any]) -> None:
        """Number an entry (`seq`) and keep it."""
        self._entries.append({"seq": self._next, **entry})
        self._next += 1
        self._grown.set()
        self._grown = asyncio.Event()

    def since(self, seq: int) -> list[dict[str, Any]]:
        """The entries numbered above `seq` that are still here."""
        first = self._next - len(self._entries)
        skip = max(0, seq + 1 - first)
        return [entry for index, entry in enumerate(self._entries) if index >= skip]

    @property
    def last(self) -> int:
        """The number of the newest entry; 0 before the first."""
        return self._next - 1

    async def follow(self, seq: int) -> AsyncIterator[dict[str, Any]]:
        """Entries numbered above `seq`, for ever; `{"lost": n}` where the ring was faster than the reader."""
        while True:
            grown = self._grown
            for entry in self.since(seq):
                if entry["seq"] > seq + 1 and seq > 0:
                    yield {"lost": entry["seq"] - seq - 1}
                seq = entry["seq"]
                yield entry
            await grown.wait()


class Records:
    """Events and log lines of all nodes. `folder` is where `<node>.log` files grow; None in a container."""

    def __init__(self, folder: Path | None) -> None:
        self.events = Ring(EVENTS_KEPT)
        self.lines = Ring(LINES_KEPT)
        self._folder = folder
        self._files: dict[str, TextIO] = {}

    def event(self, node: str, event: dict[str, Any]) -> None:
        """Keep an event of a node; a `log` event also becomes a line."""
        moment = event.get("time")
        if not isinstance(moment, (int, float)):
            moment = time.time()
        self.events.append({**event, "time": moment, "node": node})
        if event.get("type") == "log":
            self.line(node, log_text(event), moment)

    def line(self, node: str, text: str, moment: float) -> None:
        """Keep a line and write it to the node's file."""
        self.lines.append({"time": moment, "node": node, "text": text})
        if self._folder is None:
            return
        if node not in self._files:
            # Line by line, so that `tail -f` works and a killed supervisor loses nothing.
            self._files[node] = (self._folder / f"{node}.log").open("a", buffering=1, encoding="utf-8")
        self._files[node].write(f"{timestamp(moment)}: {text}\n")

    def close(self) -> None:
        """Close the files."""
        for stream in self._files.values():
            stream.close()
        self._files.clear()


def log_text(event: dict[str, Any]) -> str:
    """An IOS log message: `%FACILITY-SEVERITY-MNEMONIC: text` (reference/cisco-getvpn.md, section 4)."""
    return f"%{event.get('facility')}-{event.get('severity')}-{event.get('mnemonic')}: {event.get('text')}"


def timestamp(moment: float) -> str:
    """`*Nov 24 02:20:20.123`, as `service timestamps log datetime msec` prints it; UTC."""
    return time.strftime("*%b %e %H:%M:%S", time.gmtime(moment)) + f".{int(moment * 1000) % 1000:03d}"
