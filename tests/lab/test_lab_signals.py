"""However `labctl up` was started, commands in its nodes heed signals. On each runtime."""

from __future__ import annotations

import subprocess
import sys

import pytest
from lab_command import TIMEOUT, Labctl
from process_signals import signals_of

pytestmark = pytest.mark.lab

TOPOLOGY = """\
name: signals
nodes: {h1: host, h2: host}
links:
  - h1 -- h2
"""

# What a shell does to its background jobs, and nohup to anything.
START = (
    "import os, signal, sys\n"
    "for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP): signal.signal(number, signal.SIG_IGN)\n"
    "os.execv(sys.executable, [sys.executable, '-m', 'labctl', 'up', '--runtime', sys.argv[1]])\n"
)


def test_a_lab_that_was_started_with_signals_ignored_has_commands_that_heed_them(machine: Labctl) -> None:
    (machine.folder / "topology.yml").write_text(TOPOLOGY)
    subprocess.run(
        [sys.executable, "-c", START, machine.runtime],
        cwd=machine.folder,
        env=machine.environment(),
        capture_output=True,
        timeout=TIMEOUT,
        check=True,
    )
    found = machine("exec", "h1", "--", "grep", "SigIgn", "/proc/self/status").stdout
    assert signals_of(found) == set()
    machine("down")
