"""One labctl at a time changes a lab.

A POSIX record lock (fcntl(2)): the kernel frees it when its process dies, by whatever signal, so no lock is ever
stale; and unlike flock(2) it does not pass to the supervisor that `up` forks. The file's text only names the holder.
"""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path
from types import TracebackType

from labctl.lab.errors import LabBusy


class LabLock:
    """A context manager that holds the lock of one lab. Raises LabBusy at entry if another process has it."""

    def __init__(self, path: Path, verb: str) -> None:
        self._path = path
        self._verb = verb
        self._descriptor: int | None = None

    def __enter__(self) -> LabLock:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        while True:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (BlockingIOError, PermissionError):
                holder = os.pread(descriptor, 4096, 0)
                os.close(descriptor)
                raise LabBusy(
                    f"lab {_lab_of(self._path)} is being changed by {_describe(holder)}",
                    "wait until it is done, or end that process; what it began is undone by 'labctl down'",
                ) from None
            if _is_still(self._path, descriptor):
                break
            os.close(descriptor)  # its last holder removed the file under us: take the lock of the new one
        text = json.dumps({"pid": os.getpid(), "verb": self._verb}).encode()
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, text, 0)
        self._descriptor = descriptor
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._descriptor is not None:
            self._path.unlink(missing_ok=True)  # while it is held: nobody else can have taken it
            os.close(self._descriptor)
            self._descriptor = None


def _is_still(path: Path, descriptor: int) -> bool:
    ours = os.fstat(descriptor)
    try:
        there = path.stat()
    except FileNotFoundError:
        return False
    return (ours.st_dev, ours.st_ino) == (there.st_dev, there.st_ino)


def _lab_of(path: Path) -> str:
    return path.name.removeprefix(".").removesuffix(".lock")


def _describe(holder: bytes) -> str:
    try:
        facts = json.loads(holder)
        return f"'labctl {facts['verb']}' (pid {facts['pid']})"
    except (ValueError, KeyError, TypeError):
        return "another labctl"
