"""What makes nodes: the one small protocol behind which `namespaces` and `docker` stand (design decision 1).

`labctl/lab` owns a lab's directory and its journal; a runtime is given both and keeps no state of its own. What a
runtime is about to make it first hands to `record`, which writes and syncs one journal line before it returns
(design decision 11); `destroy` takes the same lines back and may be called at any time, any number of times.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from labctl.door import Connection
from labctl.door.connection import EventHandler
from labctl.topology.plan import Plan

JournalEntry = Mapping[str, Any]
Record = Callable[[dict[str, Any]], None]

# In the folder of logs; no node can have this name.
SUPERVISOR_LOG = "_supervisor.log"


class RuntimeFailure(Exception):
    """A runtime could not do what was asked: what, why, and a hint that says what the user can do."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class LabNotRunning(RuntimeFailure):
    """Nobody answers at the lab's door."""


@dataclass(frozen=True, slots=True)
class Availability:
    """Whether a runtime can be used on this machine; if not, why, and how to change that."""

    available: bool
    reason: str = ""
    remedy: str = ""


class LabPaths(Protocol):
    """Where one lab keeps its files; `labctl.lab.directory.LabDirectory` is one."""

    @property
    def name(self) -> str:
        """The lab's name."""

    @property
    def path(self) -> Path:
        """The lab's directory, mode 0700."""

    @property
    def door(self) -> Path:
        """The unix socket of a namespaces lab."""

    @property
    def logs(self) -> Path:
        """A folder: one file a node, and SUPERVISOR_LOG."""


@dataclass(frozen=True, slots=True)
class Leftover:
    """Something of a lab that still exists: `kind` is process, container, network...; `identity` says which."""

    runtime: str
    lab: str
    kind: str
    identity: str


class Runtime(Protocol):
    """One way to make nodes. Every method raises RuntimeFailure; none leaves half a thing that is not journalled."""

    @property
    def name(self) -> str:
        """`namespaces` or `docker`."""

    async def probe(self) -> Availability:
        """Can this machine do it? Touches nothing that outlives the call."""

    async def start(
        self, paths: LabPaths, plan: Plan, record: Record, *, on_event: EventHandler | None = None
    ) -> Connection:
        """Start the supervisor or the fabric container, without nodes. Returns a greeted connection to its door.

        What takes long meanwhile reaches `on_event` as `{"type": "progress", "text"}`.
        """

    async def connect(self, paths: LabPaths, *, on_event: EventHandler | None = None) -> Connection:
        """A greeted connection to the door of a running lab. Raises LabNotRunning."""

    async def create(self, paths: LabPaths, plan: Plan, nodes: Sequence[str], record: Record) -> dict[str, int]:
        """Make the containers of `nodes` and return their pids for the door's `build`; namespaces has none to make."""

    async def remove(self, paths: LabPaths, nodes: Sequence[str]) -> None:
        """Remove the containers of `nodes`, after the door's `remove`; namespaces has nothing left to do."""

    async def destroy(self, paths: LabPaths, journal: Sequence[JournalEntry]) -> list[Leftover]:
        """End the lab and everything of it, wait until it is gone, and return what was there. Idempotent."""

    async def leftovers(self, paths: LabPaths, journal: Sequence[JournalEntry]) -> list[Leftover]:
        """What of the lab exists at this moment."""
