"""A group in a real lab: what its nodes say of it, and the packets that hosts exchange meanwhile."""

from __future__ import annotations

import re
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from lab_command import TIMEOUT, Labctl, finish


def group_of(lab: Labctl, node: str) -> Any:
    """The one group of a node, as `gdoi show` says it."""
    (group,) = lab.json("gdoi", "show", node)
    return group


def until(condition: Callable[[], bool], what: str) -> None:
    """Ask again until it holds: the lab's clock decides when, and no event tells."""
    end = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.1)


def logged(lab: Labctl, *nodes: str) -> list[str]:
    """The mnemonics that nodes logged, in order."""
    return re.findall(r"%(?:GDOI|CRYPTO)-\d-(\w+):", lab("logs", *nodes).stdout)


def until_logged(lab: Labctl, node: str, *mnemonics: str) -> None:
    """Wait until a node has logged all of these, one after the other: what it does and what it says are two things."""

    def all_there() -> bool:
        rest = iter(logged(lab, node))
        return all(word in rest for word in mnemonics)

    until(all_there, f"{node} logs {', '.join(mnemonics)}")


def packets_of(path: Path) -> Counter[tuple[str, str]]:
    """Packets of a capture by the host that sent them and what they are: `esp`, or `clear`."""
    done = subprocess.run(
        ["tshark", "-r", str(path), "-T", "fields", "-E", "occurrence=f", "-e", "ip.src", "-e", "ip.proto"],
        capture_output=True,
        text=True,
        check=True,
    )
    found: Counter[tuple[str, str]] = Counter()
    for line in done.stdout.splitlines():
        source, _, protocol = line.partition("\t")
        if source.startswith("10.1."):
            found[source, "esp" if protocol == "50" else "clear"] += 1
    return found


class Wire:
    """A capture that runs while a test does something."""

    def __init__(self, lab: Labctl, point: str) -> None:
        self._path = lab.folder / f"{point.replace(':', '-')}-{time.monotonic_ns()}.pcapng"
        self._capture = lab.start("capture", point, "-w", str(self._path))
        until(lambda: self._runs() or self._capture.poll() is not None, "the capture runs")
        assert self._capture.poll() is None, self._capture.communicate()

    def _runs(self) -> bool:
        """Its header is written once it does."""
        return self._path.exists() and self._path.stat().st_size > 0

    def packets(self) -> Counter[tuple[str, str]]:
        """End it: what passed."""
        finish(self._capture, signal.SIGINT)
        return packets_of(self._path)

    def kinds(self) -> Counter[str]:
        """End it: packets of hosts that passed, `esp` and `clear`."""
        found: Counter[str] = Counter()
        for (_, kind), count in self.packets().items():
            found[kind] += count
        return found


class Pings:
    """Hosts that ping each other until the test ends it, each request numbered."""

    def __init__(self, lab: Labctl, pairs: Iterable[tuple[str, str]], interval: float = 0.01) -> None:
        self._pings = {
            pair: lab.start("exec", pair[0], "--", "ping", "-n", "-i", str(interval), pair[1]) for pair in pairs
        }
        # Whoever does not read what a ping says holds it up.
        self._readers = ThreadPoolExecutor(len(self._pings))
        self._said = {pair: self._readers.submit(ping.communicate) for pair, ping in self._pings.items()}

    def lost(self) -> dict[tuple[str, str], list[int]]:
        """End it: the requests of each pair that got no answer while a later one got one. Raises if none did."""
        found = {}
        for pair, ping in self._pings.items():
            ping.send_signal(signal.SIGINT)
            out, err = self._said[pair].result(TIMEOUT)
            answered = {int(number) for number in re.findall(r"bytes from .* icmp_seq=(\d+)", out)}
            assert answered and "DUP!" not in out, (pair, out[-500:], err)
            found[pair] = sorted(set(range(1, max(answered) + 1)) - answered)
        self._readers.shutdown()
        return found
