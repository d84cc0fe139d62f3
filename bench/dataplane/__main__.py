"""The benchmark itself, in namespaces of its own: `python -m bench dataplane` starts it there."""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from bench.dataplane.pairs import PAIRS, Missing
from labctl.measure.pairs import Pair, members
from labctl.measure.traffic import Effort, Figures, measure
from labctl.measure.world import World, sh, until

REKEY_SECONDS, STEADY_SECONDS = 0.5, 5.0

ROUNDS = int(os.environ.get("LABCTL_BENCH_ROUNDS", "3"))

# One round is for a quick look: all pairs in less than two minutes.
EFFORT = Effort() if ROUNDS > 1 else Effort(rates=(40_000, 90_000, 200_000), seconds=1.0, streams=3.0, echoes=200)

# Against strongSwan's libipsec: times its packets of 64 octets, times its TCP; and TCP at all, Mbit/s.
PACKETS_GOAL, TCP_GOAL, TCP_FLOOR = 2.5, 4.0, 1000


def main(names: list[str]) -> int:
    """All pairs in turn, as many times as there are rounds: what else the machine does is spread over all of them."""
    found: dict[str, list[Figures]] = {}
    for _ in range(ROUNDS):
        for name, pair in PAIRS.items():
            if names and name not in names:
                continue
            try:
                found.setdefault(name, []).append(_measure(pair))
            except Missing as missing:
                print(f"  {name}: left out: {missing}")
    print(f"  {ROUNDS} rounds, best of each figure (median); load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    print(f"  {'':18} {'64 octets':>17} {'1400 octets':>17} {'TCP':>18} {'ping':>16}   CPU: 64/1400, a Mbit of TCP")
    for name, figures in found.items():
        _print(name, figures)
    if not names or "labctl" in names:
        _steady(0.8 * max(item.packets[64] for item in found["labctl"]))
    _ratios({name: figures for name, figures in found.items() if figures})
    return 0


def _measure(pair: Pair) -> Figures:
    with tempfile.TemporaryDirectory(prefix="labctl-bench-") as folder, World(Path(folder)) as world:
        return measure(world, pair(world), EFFORT)


def _steady(rate: float) -> None:
    """Numbered packets at a part of what got through, while keys turn over."""
    with tempfile.TemporaryDirectory(prefix="labctl-bench-") as folder, World(Path(folder)) as world:
        members(world, "esp-gcm 128", str(REKEY_SECONDS))
        until(world.answers, "a way through two members")
        numbered = (sys.executable, "-m", "bench.dataplane.numbered")
        output = world.start("sink", *numbered, "receive", "lan")
        output.readline()
        sent = int(world.run("source", *numbered, "send", "lan", str(rate), str(STEADY_SECONDS)))
        came, late = map(int, output.readline().split())
    print(
        f"  labctl at 80 % of its packets of 64 octets ({rate / 1000:.1f} kpps for {STEADY_SECONDS:.0f} s, new keys "
        f"every {REKEY_SECONDS} s): {sent - came} of {sent} lost, {late} out of turn"
    )


def _print(name: str, figures: list[Figures]) -> None:
    def best(values: list[float], form: str, unit: str, *, least: bool = False) -> str:
        chosen = min(values) if least else max(values)
        return f"{chosen:{form}} ({statistics.median(values):{form}}) {unit}"

    columns = [
        best([item.packets[64] / 1000 for item in figures], ".1f", "kpps"),
        best([item.packets[1400] / 1000 for item in figures], ".1f", "kpps"),
        best([item.tcp for item in figures], ".0f", "Mbit/s"),
        best([item.ping for item in figures], ".3f", "ms", least=True),
    ]
    cpu = "/".join(f"{min(item.cpu[size] for item in figures):.1f}" for size in (64, 1400))
    stream = min(item.tcp_cpu for item in figures)
    print(f"  {name:18} {columns[0]:>17} {columns[1]:>17} {columns[2]:>18} {columns[3]:>16}   {cpu}, {stream:.0f} us")


def _ratios(found: Mapping[str, list[Figures]]) -> None:
    ours = found.get("labctl")
    if ours is None:
        return
    tcp = max(item.tcp for item in ours)
    print(f"  labctl TCP {tcp:.0f} Mbit/s, goal {TCP_FLOOR}")
    for name, theirs in found.items():
        if name == "labctl":
            continue
        packets = max(i.packets[64] for i in ours) / max(i.packets[64] for i in theirs)
        large = max(i.packets[1400] for i in ours) / max(i.packets[1400] for i in theirs)
        stream = tcp / max(i.tcp for i in theirs)
        cost = min(i.tcp_cpu for i in theirs) / min(i.tcp_cpu for i in ours)
        added = min(i.ping for i in ours) - min(i.ping for i in theirs)
        goals = f" (goals {PACKETS_GOAL}, {TCP_GOAL}, 0)" if name.startswith("strongSwan") else ""
        print(
            f"  labctl / {name}: {packets:.2f} x packets of 64, {large:.2f} x of 1400, {stream:.2f} x TCP, "
            f"{added:+.3f} ms ping; a Mbit of TCP costs them {cost:.2f} times the CPU{goals}"
        )


if __name__ == "__main__":
    sh("mount", "-t", "tmpfs", "tmpfs", "/run")
    sys.exit(main(sys.argv[1:]))
