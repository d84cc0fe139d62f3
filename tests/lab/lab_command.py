"""labctl as a user runs it, by its command line, in a state folder of the test's own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from warm_labctl import Forked, Running, run_forked

# A lab that does not come up in this time does not come up; a machine under load gets all of it.
TIMEOUT = 120


@dataclass(frozen=True, slots=True)
class Labctl:
    """Runs verbs in `folder` with `state`; `runtime` is given to `up`.

    With `own_process` each is a Python begun anew, as for a user; else a fork (`warm_labctl`), at a tenth of the cost.
    """

    state: Path
    folder: Path
    runtime: str
    own_process: bool = False

    def environment(self) -> dict[str, str]:
        """Ours, with the state folder that labels everything."""
        return {**os.environ, "LABCTL_STATE": str(self.state), "NO_COLOR": "1", "COLUMNS": "160"}

    def start(self, *words: str) -> Running:
        """Begin a verb without input, and return while it runs."""
        if not self.own_process:
            return Forked(words, self.folder, self.environment())
        return subprocess.Popen(
            [sys.executable, "-m", "labctl", *words],
            cwd=self.folder,
            env=self.environment(),
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def __call__(self, *words: str, stdin: str = "", status: int | None = 0) -> subprocess.CompletedProcess[str]:
        """Run a verb to its end, and insist on its exit status."""
        done = self._own(words, stdin) if self.own_process else self._forked(words, stdin)
        said = f"labctl {' '.join(words)} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
        assert status is None or done.returncode == status, said
        assert "Traceback" not in done.stderr, said
        return done

    def _own(self, words: Sequence[str], given: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "labctl", *words],
            cwd=self.folder,
            env=self.environment(),
            text=True,
            input=given,
            capture_output=True,
            timeout=TIMEOUT,
            check=False,
        )

    def _forked(self, words: Sequence[str], given: str) -> subprocess.CompletedProcess[str]:
        return run_forked(words, self.folder, self.environment(), given, timeout=TIMEOUT)

    def up(self, *words: str, status: int | None = 0) -> subprocess.CompletedProcess[str]:
        """`up` on this runtime."""
        return self("up", *words, "--runtime", self.runtime, status=status)

    def json(self, *words: str, status: int = 0) -> Any:
        """What a verb prints with --json."""
        return json.loads(self(*words, "--json", status=status).stdout)

    def nodes(self) -> dict[str, dict[str, Any]]:
        """The nodes of the one lab that is up, as `ps` says them."""
        (lab,) = self.json("ps")["labs"]
        return {node["name"]: node for node in lab["nodes"]}


def finish(process: Running, number: signal.Signals) -> tuple[int, str, str]:
    """Signal a verb and wait for its end: status, stdout, stderr."""
    process.send_signal(number)
    out, err = process.communicate(timeout=TIMEOUT)
    return process.wait(), out, err
