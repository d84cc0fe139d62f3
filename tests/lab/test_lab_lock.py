"""Two labctl never change one lab at the same time, and a killed one holds nobody up."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from labctl.lab.errors import LabBusy
from labctl.lab.lock import LabLock

HOLDER = """
import sys
from pathlib import Path
from labctl.lab.lock import LabLock
with LabLock(Path(sys.argv[1]), "up"):
    print("held", flush=True)
    sys.stdin.read()
"""


def holder(path: Path) -> subprocess.Popen[str]:
    """Another process that holds the lock until its standard input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


def test_the_second_is_told_who_is_at_work(tmp_path: Path) -> None:
    path = tmp_path / ".chain.lock"
    first = holder(path)
    try:
        with (
            pytest.raises(LabBusy, match=rf"lab chain is being changed by 'labctl up' \(pid {first.pid}\)"),
            LabLock(path, "down"),
        ):
            pass
    finally:
        first.communicate("")
    with LabLock(path, "down"):
        pass
    assert not path.exists()


def test_a_killed_holder_holds_nothing(tmp_path: Path) -> None:
    path = tmp_path / ".chain.lock"
    first = holder(path)
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert path.exists(), "a killed process cannot clean up"
    with LabLock(path, "down"):
        pass
    assert not path.exists()


def test_a_child_of_the_holder_does_not_keep_the_lock(tmp_path: Path) -> None:
    path = tmp_path / ".chain.lock"
    read, write = os.pipe()
    with LabLock(path, "up"):
        child = os.fork()
        if child == 0:
            os.close(write)
            os.read(read, 1)  # until the parent closes its end
            os._exit(0)
        os.close(read)
    second = holder(path)
    second.communicate("")
    os.close(write)
    os.waitpid(child, 0)
    assert second.returncode == 0
