"""Whoever is at work in a lab that goes down is told so, and does not stay behind, on each runtime."""

from __future__ import annotations

import time

import pytest
from lab_command import TIMEOUT, Labctl

pytestmark = pytest.mark.lab

TOPOLOGY = """\
name: gone
nodes: {h1: host, h2: host}
links: [h1 -- h2]
"""


def test_commands_end_with_the_lab_that_they_work_in(machine: Labctl) -> None:
    (machine.folder / "topology.yml").write_text(TOPOLOGY)
    machine.up()
    ping = machine.start("exec", "h1", "--", "ping", "-n", "-i", "0.2", "-c", "5000", "10.1.1.11")
    capture = machine.start("capture", "h2:eth0", "-w", str(machine.folder / "gone.pcapng"))
    events = machine.start("events", "-f")
    assert ping.stdout is not None
    while "icmp_seq=3" not in ping.stdout.readline():
        assert ping.poll() is None
    machine("down", "gone")
    end = time.monotonic() + TIMEOUT
    for process in (ping, capture, events):
        _, err = process.communicate(timeout=max(0.1, end - time.monotonic()))
        assert process.returncode != 0 and "Traceback" not in err and err.startswith("labctl: "), err
