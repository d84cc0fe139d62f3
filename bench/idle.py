"""What a lab costs that nobody uses: processor time of all its processes while nothing is asked of it."""

from __future__ import annotations

import time
from pathlib import Path

from bench.command import Labctl, descendants

# Most of the nodes are members, which have timers, keys and packet rings.
MEMBERS = 8
SETTLE_SECONDS, SECONDS = 5.0, 20.0

# Percent of one core for a lab of 20 nodes.
GOAL = 2.0


def idle(labctl: Labctl) -> None:
    """Processor time of a lab of 20 nodes, registered, while no packet but its own passes."""
    topology = labctl.folder / "idle.yml"
    topology.write_text(_topology())
    try:
        labctl.run("up", str(topology), "--runtime", "namespaces")
        count = len(labctl.json("ps")["labs"][0]["nodes"])
        supervisor = labctl.supervisor("idle")
        processes = [supervisor, *descendants(supervisor)]
        time.sleep(SETTLE_SECONDS)
        before = _processor_time(processes)
        time.sleep(SECONDS)
        used = {pid: spent - before.get(pid, 0.0) for pid, spent in _processor_time(processes).items()}
    finally:
        labctl.run("down", "idle", check=False)
    percent = sum(used.values()) / SECONDS * 100
    most = max(used.values()) / SECONDS * 100
    print(f"  {count} nodes, {len(processes)} processes: {percent:.2f} % of a core, goal {GOAL:.0f}, of one {most:.2f}")


def _topology() -> str:
    members = [f"ce{number}" for number in range(1, MEMBERS + 1)]
    hosts = [f"h{number}" for number in range(1, MEMBERS + 1)]
    kinds = ["p1: p", "pe1: pe", "pe2: pe", "ks1: ks"]
    kinds += [f"{name}: ce" for name in members] + [f"{name}: host" for name in hosts]
    links = ["pe1 -- p1", "pe2 -- p1", "ks1 -- pe1"]
    links += [f"{name} -- pe{1 + number % 2}" for number, name in enumerate(members)]
    links += [f"{host} -- {member}" for host, member in zip(hosts, members, strict=True)]
    return f"""\
name: idle
nodes: {{{", ".join(kinds)}}}
links: [{", ".join(links)}]
groups:
  LAB:
    identity: 1234
    key-servers: [ks1]
    members: [{", ".join(members)}]
    policy: [permit ip 10.1.0.0/16 10.1.0.0/16]
"""


def _processor_time(processes: list[int]) -> dict[int, float]:
    """Seconds that each process ran, all its threads."""
    found = {}
    for pid in processes:
        tasks = Path(f"/proc/{pid}/task").iterdir()
        found[pid] = sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9
    return found
