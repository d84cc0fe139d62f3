"""labctl as a user runs it, timed; and other programs beside it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

TIMEOUT_SECONDS = 300


class Labctl:
    """labctl with a state folder of the benchmark's own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._environment = {**os.environ, "LABCTL_STATE": str(folder / "state"), "NO_COLOR": "1"}

    def run(self, *words: str, check: bool = True) -> str:
        """Standard output. Raises RuntimeError with what labctl said."""
        done = subprocess.run(
            [sys.executable, "-m", "labctl", *words],
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_SECONDS,
            check=False,
        )
        if check and done.returncode:
            raise RuntimeError(f"labctl {' '.join(words)}: {done.stderr.strip()}")
        return done.stdout

    def timed(self, *words: str) -> float:
        """Seconds of a run, process start included."""
        begin = time.monotonic()
        self.run(*words)
        return time.monotonic() - begin

    def json(self, *words: str) -> Any:
        """What a verb prints with --json."""
        return json.loads(self.run(*words, "--json"))

    def supervisor(self, lab: str) -> int:
        """The pid of a namespaces lab's supervisor, from the lab's journal."""
        for line in (self.folder / "state" / "labs" / lab / "journal").read_text().splitlines():
            made = json.loads(line).get("object", {})
            if made.get("kind") == "supervisor":
                return int(made["pid"])
        raise RuntimeError(f"the journal of {lab} names no supervisor")


def peer(interpreter: str, script: str, nodes: int) -> dict[str, Any]:
    """Another tool's chain. Its last line is JSON; a tool that is missing gives {"error": why}."""
    path = Path(__file__).parent / "peers" / script
    try:
        done = subprocess.run(
            [interpreter, str(path), str(nodes)], capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return {"error": str(error)}
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        return {"error": (done.stderr.strip().splitlines() or ["it printed nothing"])[-1]}
    result: dict[str, Any] = json.loads(lines[-1])
    return result


def proportional_set_size(pid: int) -> int:
    """Pss of a process in octets (proc(5), smaps_rollup). 0 for one that has ended."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    for line in text.splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0


def descendants(pid: int) -> list[int]:
    """All processes below a process, in the host's numbers."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, task.read_text().split()):
            found += [child, *descendants(child)]
    return found
