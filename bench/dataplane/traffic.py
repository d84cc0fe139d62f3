"""What is measured: packets that arrive a second, a TCP stream, echoes, and the gateways' processor time."""

from __future__ import annotations

import json
import re
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from bench.dataplane.world import SINK, World, until

SIZES = (64, 1400)

# Packets a second that are offered, one after the other: what arrives grows with it, until it does not.
RATES = (15_000, 25_000, 40_000, 60_000, 90_000, 130_000, 200_000)
SECONDS, TCP_SECONDS, ECHOES = 1.5, 4, 400


@dataclass(frozen=True, slots=True)
class Figures:
    """`packets` a second and microseconds of `cpu` a packet by size; Mbit/s; the median echo in milliseconds."""

    packets: dict[int, float]
    cpu: dict[int, float]
    tcp: float
    ping: float


def measure(world: World, name: str) -> Figures:
    """All of it, once the hosts reach each other."""
    until(world.answers, f"a way through {name}")
    packets, cpu = {}, {}
    for size in SIZES:
        packets[size], cpu[size] = _rate(world, size)
    return Figures(packets, cpu, _stream(world), _echo(world))


def _rate(world: World, size: int) -> tuple[float, float]:
    """The most packets a second that arrived, and the gateways' processes' microseconds for each of them."""
    best, cost = 0.0, 0.0
    for rate in RATES:
        before, used = _arrived(world), _processor_time(world)
        words = (sys.executable, "-m", "bench.dataplane.generate", "lan", str(size), str(rate), str(SECONDS))
        _, seconds = world.run("source", *words).split()
        arrived = _arrived(world) - before
        if arrived / float(seconds) > best:
            best, cost = arrived / float(seconds), (_processor_time(world) - used) / max(arrived, 1) * 1e6
        elif arrived / float(seconds) < best / 2:
            break  # far past what it can do
    return best, cost


def _arrived(world: World) -> int:
    table = world.run("sink", "cat", "/proc/net/dev")
    line = next(line for line in table.splitlines() if line.strip().startswith("lan:"))
    return int(line.split(":")[1].split()[1])


def _processor_time(world: World) -> float:
    """Seconds that the gateways' processes ran, all their threads, what the kernel did for them included."""
    tasks = [task for pid in world.agents for task in Path(f"/proc/{pid}/task").iterdir()]
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def _stream(world: World) -> float:
    world.start("sink", "iperf3", "-s", "-1")
    time.sleep(0.5)  # iperf3 says nothing that could be waited for when its output is not a terminal
    report = json.loads(world.run("source", "iperf3", "-c", SINK, "-t", str(TCP_SECONDS), "-J"))
    return float(report["end"]["sum_received"]["bits_per_second"]) / 1e6


def _echo(world: World) -> float:
    output = world.run("source", "ping", "-i", "0.005", "-c", str(ECHOES), SINK)
    return statistics.median(float(found) for found in re.findall(r"time=([0-9.]+)", output))
