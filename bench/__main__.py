"""`python -m bench [NAME...]`: figures and ratios, with the machine beside them. Nothing is asserted."""

from __future__ import annotations

import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable
from pathlib import Path

from bench.chain import NODES, write_chain
from bench.command import Labctl, descendants, peer, proportional_set_size
from bench.dataplane import dataplane
from bench.exclusion import exclusions
from bench.floods import floods
from bench.groups import registrations, rekeys
from bench.idle import idle
from bench.ios import ios

ROOT = Path(__file__).resolve().parent.parent
RUNS_OF_VERSION = 11

# What the project aims at (milliseconds a node, milliseconds, seconds, megabytes a node).
GOALS = {"namespaces": 40, "docker": 250}
VERSION_GOAL = 80
REGISTERED_GOALS = {"namespaces": 2.0, "docker": 5.0}
MEMORY_GOAL = 12


def engine_answers() -> bool:
    """True where a Docker engine can be used."""
    if shutil.which("docker") is None:
        return False
    return subprocess.run(["docker", "version"], capture_output=True, check=False).returncode == 0


def runtimes() -> list[str]:
    """The runtimes to measure; says so where docker is left out."""
    if engine_answers():
        return ["namespaces", "docker"]
    print("  docker: no engine answers, left out (.ci/docker-engine start)")
    return ["namespaces"]


def up(labctl: Labctl) -> None:
    """`up` of a chain of routers, a node, beside Mininet and munet."""
    topology = write_chain(labctl.folder, "chain")
    found: dict[str, float] = {}
    for runtime in runtimes():
        try:
            seconds = labctl.timed("up", str(topology), "--runtime", runtime)
            labctl.run("exec", "r0", "--", "ping", "-c", "1", "-W", "3", f"r{NODES - 1}")
            found[f"labctl {runtime}"] = seconds
        finally:
            labctl.run("down", "chain", check=False)
    if os.geteuid() != 0:
        print("  Mininet and munet need root, left out")
    else:
        found |= peers(labctl.folder)
    base = found.get("labctl namespaces")
    for name, seconds in found.items():
        each = seconds / NODES * 1000
        goal = GOALS.get(name.removeprefix("labctl "))
        aim = f", goal {goal}" if goal else ""
        ratio = f", {seconds / base:.1f} x labctl namespaces" if base and not name.startswith("labctl n") else ""
        print(f"  {name:18} {seconds:6.2f} s for {NODES} nodes, {each:6.1f} ms a node{aim}{ratio}")


def peers(folder: Path) -> dict[str, float]:
    """The same chain in other tools; says what to install where one is missing."""
    found = {}
    interpreters = {"Mininet": ("/usr/bin/python3", "mininet_chain.py", "apt-get install mininet")}
    munet = os.environ.get("LABCTL_BENCH_MUNET") or _munet(folder)
    interpreters["munet"] = (munet, "munet_chain.py", "pip install munet, and name its python in LABCTL_BENCH_MUNET")
    for name, (interpreter, script, remedy) in interpreters.items():
        result = peer(interpreter, script, NODES)
        if "error" in result:
            print(f"  {name}: left out: {result['error']} ({remedy})")
        elif not result["reached"]:
            print(f"  {name}: its chain does not reach the other end")
        else:
            found[name] = float(result["seconds"])
    return found


def _munet(folder: Path) -> str:
    """A virtual environment with munet, made for this run."""
    place = folder / "munet"
    venv.create(place, with_pip=True)
    python = str(place / "bin" / "python")
    subprocess.run([python, "-m", "pip", "install", "--quiet", "munet"], capture_output=True, check=False)
    return python


def version(labctl: Labctl) -> None:
    """`labctl --version`, beside an interpreter that does nothing."""
    script = str(Path(sys.executable).parent / "labctl")

    def median(*words: str) -> float:
        times = []
        for _ in range(RUNS_OF_VERSION):
            begin = time.monotonic()
            subprocess.run(words, capture_output=True, check=True)
            times.append((time.monotonic() - begin) * 1000)
        return statistics.median(times)

    ours, bare = median(script, "--version"), median(sys.executable, "-c", "pass")
    print(f"  labctl --version {ours:.0f} ms, goal {VERSION_GOAL}; python -c pass {bare:.0f} ms; {ours / bare:.1f} x")


def registered(labctl: Labctl) -> None:
    """From `up` to all members registered, on getvpn-basic."""
    topology = str(ROOT / "topologies" / "getvpn-basic.yml")
    for runtime in runtimes():
        if runtime == "docker":
            labctl.run("image", "build")
        try:
            seconds = labctl.timed("up", topology, "--runtime", runtime)
        finally:
            labctl.run("down", "getvpn-basic", check=False)
        print(f"  {runtime:10} {seconds:5.2f} s, goal {REGISTERED_GOALS[runtime]:.0f}")


def memory(labctl: Labctl) -> None:
    """Proportional set size a node, on namespaces; supervisor and fork server are shared out over the nodes."""
    topologies = {"chain": write_chain(labctl.folder, "chain"), "getvpn-basic": ROOT / "topologies/getvpn-basic.yml"}
    for name, topology in topologies.items():
        try:
            labctl.run("up", str(topology), "--runtime", "namespaces")
            supervisor = labctl.supervisor(name)
            below = descendants(supervisor)
            total = sum(proportional_set_size(pid) for pid in (supervisor, *below)) / 1e6
            count = len(labctl.json("ps")["labs"][0]["nodes"])
        finally:
            labctl.run("down", name, check=False)
        each = f"{total / count:.1f} MB a node, goal {MEMORY_GOAL}"
        print(f"  {name:12} {total:6.1f} MB in {len(below) + 1} processes, {count} nodes: {each}")


BENCHMARKS: dict[str, Callable[[Labctl], None]] = {
    "up": up,
    "version": version,
    "registered": registered,
    "memory": memory,
    "idle": idle,
    "registrations": registrations,
    "floods": floods,
    "rekeys": rekeys,
    "dataplane": dataplane,
    "exclusions": exclusions,
    "ios": ios,
}


def main(names: list[str]) -> int:
    """Run the named benchmarks, all without names. Exit status 2 for a name that is none."""
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        print(f"bench: no benchmark {', '.join(unknown)}. There are {', '.join(BENCHMARKS)}.", file=sys.stderr)
        return 2
    memory_size = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    print(
        f"{os.cpu_count()} cores, {memory_size:.0f} GiB, {platform.system()} {platform.release()}, "
        f"Python {platform.python_version()}"
    )
    with tempfile.TemporaryDirectory(prefix="labctl-bench-") as folder:
        for name in names or BENCHMARKS:
            print(f"{name}: {(BENCHMARKS[name].__doc__ or '').splitlines()[0]}")
            BENCHMARKS[name](Labctl(Path(folder)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
