"""labctl as a user runs it: a process of its own, in a state folder of the test's own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# A lab that does not come up in this time does not come up; a machine under load gets all of it.
TIMEOUT = 120


@dataclass(frozen=True, slots=True)
class Labctl:
    """Runs verbs in `folder` with `state`; `runtime` is given to `up`."""

    state: Path
    folder: Path
    runtime: str

    def environment(self) -> dict[str, str]:
        """Ours, with the state folder that labels everything."""
        return {**os.environ, "LABCTL_STATE": str(self.state), "NO_COLOR": "1", "COLUMNS": "160"}

    def start(self, *words: str, **options: Any) -> subprocess.Popen[str]:
        """Begin a verb, and return while it runs."""
        return subprocess.Popen(
            [sys.executable, "-m", "labctl", *words],
            cwd=self.folder,
            env=self.environment(),
            text=True,
            stdin=options.pop("stdin", subprocess.DEVNULL),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            **options,
        )

    def __call__(self, *words: str, stdin: str = "", status: int | None = 0) -> subprocess.CompletedProcess[str]:
        """Run a verb to its end, and insist on its exit status."""
        done = subprocess.run(
            [sys.executable, "-m", "labctl", *words],
            cwd=self.folder,
            env=self.environment(),
            text=True,
            input=stdin,
            capture_output=True,
            timeout=TIMEOUT,
            check=False,
        )
        said = f"labctl {' '.join(words)} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
        assert status is None or done.returncode == status, said
        assert "Traceback" not in done.stderr, said
        return done

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


def finish(process: subprocess.Popen[str], number: signal.Signals) -> tuple[int, str, str]:
    """Signal a verb and wait for its end: status, stdout, stderr."""
    process.send_signal(number)
    out, err = process.communicate(timeout=TIMEOUT)
    return process.returncode, out, err
