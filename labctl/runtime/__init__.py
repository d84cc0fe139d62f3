"""What makes nodes: the Runtime protocol, and behind it `namespaces` and `docker`."""

from labctl.runtime.protocol import (
    SUPERVISOR_LOG,
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
    "SUPERVISOR_LOG",
    "Availability",
    "JournalEntry",
    "LabNotRunning",
    "LabPaths",
    "Leftover",
    "Record",
    "Runtime",
    "RuntimeFailure",
]
