"""The lab's journal: JSON lines, each synced to disk before what it names is made (design decision 11).

`down` reads it to know what a killed `up` may have left. A line that a crash tore is no line: what it would have
named was never begun.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Entry = dict[str, Any]

# `begin` opens an `up`; `making` carries one object as its runtime describes it; `phase` times a part of `up`; `up`
# closes it.
BEGIN, MAKING, PHASE, UP = "begin", "making", "phase", "up"


class Journal:
    """Appends to one journal file; `entries()` reads it back."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, event: str, **facts: Any) -> None:
        """Write one entry and return once it is on disk."""
        line = json.dumps({"time": round(time.time(), 3), "event": event, **facts}, separators=(",", ":"))
        is_new = not self.path.exists()
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            # After a torn line the new one must begin on a line of its own.
            size = os.fstat(descriptor).st_size
            torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
            os.write(descriptor, (b"\n" if torn else b"") + line.encode() + b"\n")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if is_new:
            _sync_folder(self.path.parent)

    def record(self, made: dict[str, Any]) -> None:
        """What a runtime calls before it makes something."""
        self.append(MAKING, object=made)

    def entries(self) -> Iterator[Entry]:
        """Every whole entry, in order; nothing where there is no journal."""
        try:
            text = self.path.read_bytes()
        except FileNotFoundError:
            return
        for line in text.split(b"\n"):
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            if isinstance(entry, dict) and isinstance(entry.get("event"), str):
                yield entry


@dataclass(slots=True)
class LabState:
    """What a journal says when read to its end. `making` are the objects that may exist, in the runtime's words."""

    runtime: str | None = None
    topology: Path | None = None
    began: float | None = None
    is_up: bool = False
    phases: dict[str, float] = field(default_factory=dict)
    making: list[Entry] = field(default_factory=list)

    @classmethod
    def read(cls, journal: Journal) -> LabState:
        """The state of the lab whose journal this is."""
        return cls.after(journal.entries())

    @classmethod
    def after(cls, entries: Iterable[Entry]) -> LabState:
        """Fold entries; unknown events are of another version and change nothing."""
        state = cls()
        for entry in entries:
            event = entry["event"]
            if event == BEGIN:
                topology = entry.get("topology")
                state.runtime = entry.get("runtime")
                state.topology = Path(topology) if topology else None
                state.began = entry.get("time")
                state.is_up = False
                state.phases = {}
            elif event == PHASE:
                state.phases[str(entry.get("name"))] = float(entry.get("seconds", 0.0))
            elif event == MAKING and isinstance(entry.get("object"), dict):
                state.making.append(entry["object"])
            elif event == UP:
                state.is_up = True
        return state


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
