"""What makes nodes: the Runtime protocol, and behind it `namespaces` and `docker`."""

from labctl.runtime.protocol import (
    Availability,
    JournalEntry,
    LabNotRunning,
    LabPaths,
    Leftover,
    Record,
    Runtime,
    RuntimeFailure,
)

__all__ = [
    "Availability",
    "JournalEntry",
    "LabNotRunning",
    "LabPaths",
    "Leftover",
    "Record",
    "Runtime",
    "RuntimeFailure",
]
