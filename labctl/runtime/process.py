"""Another process, named so that it cannot be mistaken: pid, start time and boot. Facts: proc(5), pidfd_open(2)."""

from __future__ import annotations

import asyncio
import os
import select
import signal
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

# A killed process that the kernel has not let go of after so many seconds hangs in it (a dead disk, for example).
KILL_TIMEOUT = 20.0


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """`started` is in clock ticks after boot: pids come again, and so do machines, but not all three together."""

    pid: int
    started: int
    boot: str

    @classmethod
    def of(cls, pid: int) -> ProcessIdentity:
        """The process that has this pid now. Raises ProcessLookupError."""
        try:
            text = Path(f"/proc/{pid}/stat").read_text()
        except FileNotFoundError:
            raise ProcessLookupError(pid) from None
        # The second field is the name in parentheses, and may hold anything; the start time is field 22.
        fields = text.rpartition(")")[2].split()
        return cls(pid, int(fields[19]), Path("/proc/sys/kernel/random/boot_id").read_text().strip())

    @classmethod
    def from_json(cls, facts: Mapping[str, Any]) -> ProcessIdentity:
        """What `to_json` gave. Raises KeyError, TypeError, ValueError."""
        return cls(int(facts["pid"]), int(facts["started"]), str(facts["boot"]))

    def to_json(self) -> dict[str, Any]:
        """For a journal."""
        return asdict(self)

    def open(self) -> int | None:
        """A pidfd of this very process, or None if it has ended. The caller closes it."""
        try:
            descriptor = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return None
        # The pid may have changed hands between journal and pidfd, but no more once we hold the pidfd.
        try:
            if ProcessIdentity.of(self.pid) == self and not _has_ended(descriptor):
                return descriptor
        except ProcessLookupError:
            pass
        os.close(descriptor)
        return None

    @property
    def is_alive(self) -> bool:
        """True while it runs."""
        descriptor = self.open()
        if descriptor is None:
            return False
        os.close(descriptor)
        return True

    async def kill(self) -> bool:
        """Kill it and wait for its end; False if it had ended. Raises TimeoutError, PermissionError.

        The first process of a pid namespace ends only after every other process of it (pid_namespaces(7)).
        """
        descriptor = self.open()
        if descriptor is None:
            return False
        try:
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
            await _ended(descriptor)
        except ProcessLookupError:
            pass  # it ended by itself
        finally:
            os.close(descriptor)
        return True


def _has_ended(descriptor: int) -> bool:
    # A zombie that nobody reaped yet still takes signals; its pidfd is readable from its end on (pidfd_open(2)).
    poller = select.poll()
    poller.register(descriptor, select.POLLIN)
    return bool(poller.poll(0))


async def _ended(descriptor: int) -> None:
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_reader(descriptor, ended.set)
    try:
        async with asyncio.timeout(KILL_TIMEOUT):
            await ended.wait()
    finally:
        loop.remove_reader(descriptor)
