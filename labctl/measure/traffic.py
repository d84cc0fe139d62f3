"""What is measured: packets that arrive a second, a TCP stream, echoes, and the gateways' processor time."""

from __future__ import annotations

import json
import re
import shutil
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from labctl.measure.world import SINK, World, until

SIZES = (64, 1400)

# Where the sink's TCP listens: iperf3's own port, which both generators use.
TCP_PORT = 5201
_LISTEN = "0A"  # the state of a listening socket in /proc/net/tcp


@dataclass(frozen=True, slots=True)
class Effort:
    """How long each figure takes. `rates` are packets a second that are offered, one after the other, each for
    `seconds`: what arrives grows with it, until it does not. `streams` is how long TCP runs, `echoes` are counted.
    """

    rates: tuple[int, ...] = (15_000, 25_000, 40_000, 60_000, 90_000, 130_000, 200_000)
    seconds: float = 1.5
    streams: float = 4.0
    echoes: int = 400


@dataclass(frozen=True, slots=True)
class Figures:
    """`packets` a second and microseconds of `cpu` a packet by size; Mbit/s; the median echo in milliseconds.

    `tcp_cpu`: microseconds of the gateways' processors for a megabit of the stream.
    """

    packets: dict[int, float]
    cpu: dict[int, float]
    tcp: float
    ping: float
    tcp_cpu: float = 0.0


def _silent(_: str) -> None:
    return None


def measure(world: World, name: str, effort: Effort | None = None, tell: Callable[[str], None] = _silent) -> Figures:
    """All of it, once the hosts reach each other; `tell` hears what is measured next."""
    effort = effort or Effort()
    until(world.answers, f"a way through {name}")
    packets, cpu = {}, {}
    for size in SIZES:
        tell(f"packets of {size} octets")
        packets[size], cpu[size] = _rate(world, size, effort)
    tell("TCP")
    used = _processor_time(world)
    tcp, megabits = _stream(world, effort)
    used = _processor_time(world) - used
    tell("round trips")
    return Figures(packets, cpu, tcp, _echo(world, effort), used / megabits * 1e6)


def tcp_generator() -> str:
    """Who sends the TCP stream: iperf3 where it is installed, else a loop of our own."""
    return "iperf3" if shutil.which("iperf3") else "labctl"


def _rate(world: World, size: int, effort: Effort) -> tuple[float, float]:
    """The most packets a second that arrived, and the gateways' processes' microseconds for each of them."""
    best, cost = 0.0, 0.0
    for rate in effort.rates:
        before, used = _arrived(world), _processor_time(world)
        words = (sys.executable, "-m", "labctl.measure.generate", "lan", str(size), str(rate), str(effort.seconds))
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


def _stream(world: World, effort: Effort) -> tuple[float, float]:
    """Mbit/s of a TCP stream, as its receiver counts, and how many there were in all."""
    if tcp_generator() == "iperf3":
        server = ["iperf3", "-s", "-1"]
        client = ["iperf3", "-c", SINK, "-t", str(max(round(effort.streams), 1)), "-J"]
    else:
        server = [sys.executable, "-m", "labctl.measure.stream", str(TCP_PORT)]
        client = [*server, SINK, str(effort.streams)]
    world.start("sink", *server)
    # iperf3 says nothing that could be waited for when its output is not a terminal.
    until(lambda: _listening(world), "a TCP server")
    report = json.loads(world.run("source", *client))
    received = report["end"]["sum_received"]
    return float(received["bits_per_second"]) / 1e6, float(received["bytes"]) * 8 / 1e6


def _listening(world: World) -> bool:
    lines = world.run("sink", "cat", "/proc/net/tcp", "/proc/net/tcp6").splitlines()
    return any(words[1].endswith(f":{TCP_PORT:04X}") and words[3] == _LISTEN for words in map(str.split, lines))


def _echo(world: World, effort: Effort) -> float:
    output = world.run("source", "ping", "-i", "0.005", "-c", str(effort.echoes), SINK)
    return statistics.median(float(found) for found in re.findall(r"time=([0-9.]+)", output))
