"""Two hosts, two gateways and what joins them:

    source -- 10.1.0.0/24 -- one -- 172.16.0.0/30 -- two -- 10.2.0.0/24 -- sink

Packets to 10.2.0.200 reach the sink's interface, which counts them, and go no further: it has no such address.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

NAMES = ("source", "one", "two", "sink")
WIRE = {"one": "172.16.0.1", "two": "172.16.0.2"}
NETWORKS = {"one": "10.1.0", "two": "10.2.0"}
OTHER = {"one": "two", "two": "one"}
SINK, COUNTED = "10.2.0.2", "10.2.0.200"
MACS = {
    "source": "02:00:00:00:00:01",
    "one": "02:00:00:00:00:02",
    "two": "02:00:00:00:00:03",
    "sink": "02:00:00:00:00:04",
}
PATIENCE_SECONDS = 20.0


def sh(*words: str) -> str:
    """Standard output. Raises CalledProcessError."""
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout


class World:
    """Use as a context manager. Ends what was started in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._started: list[subprocess.Popen[bytes]] = []
        self.agents: list[int] = []

    def __enter__(self) -> World:
        for name in NAMES:
            sh("ip", "netns", "add", name)
            self.ip(name, "link set lo up")
            for setting in ("net.ipv6.conf.all.disable_ipv6=1", "net.ipv6.conf.default.disable_ipv6=1"):
                self.run(name, "sysctl", "-qw", setting)
        for host, gateway in (("source", "one"), ("sink", "two")):
            sh("ip", "-n", host, "link", "add", "lan", "address", MACS[host], "type", "veth",
               "peer", "name", "lan", "netns", gateway, "address", MACS[gateway])  # fmt: skip
            network = NETWORKS[gateway]
            self.ip(host, f"addr add {network}.2/24 dev lan", "link set lan up")
            self.ip(gateway, f"addr add {network}.1/24 dev lan", "link set lan up")
            self.ip(host, f"route add default via {network}.1")
            self.run(gateway, "sysctl", "-qw", "net.ipv4.ip_forward=1")
        self.ip("two", f"neigh add {COUNTED} lladdr {MACS['sink']} dev lan")
        return self

    def __exit__(self, *_: object) -> None:
        for process in reversed(self._started):
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for name in NAMES:
            sh("ip", "netns", "delete", name)

    def ip(self, name: str, *commands: str) -> None:
        """ip(8) in a namespace, one command a line."""
        subprocess.run(["ip", "-n", name, "-batch", "-"], input="\n".join(commands), text=True, check=True)

    def run(self, name: str, *words: str) -> str:
        """A command in a namespace."""
        return sh("ip", "netns", "exec", name, *words)

    def start(
        self, name: str, *words: str, agent: bool = False, environment: Sequence[tuple[str, str]] = ()
    ) -> IO[bytes]:
        """A program that runs until the end. Returns its output. The time of an `agent` is what packets cost."""
        process = subprocess.Popen(
            ["ip", "netns", "exec", name, *words],
            env={**os.environ, **dict(environment)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=(self.folder / f"{name}-{len(self._started)}.log").open("wb"),
        )
        self._started.append(process)
        if agent:
            self.agents.append(process.pid)
        assert process.stdout is not None
        return process.stdout

    def join_gateways(self, *, wire: str = "wire") -> None:
        """The wire between the gateways, without addresses."""
        sh("ip", "-n", "one", "link", "add", wire, "type", "veth", "peer", "name", wire, "netns", "two")
        for name in WIRE:
            self.ip(name, f"link set {wire} up")

    def address_gateways(self, interface: str, *, routes: bool) -> None:
        """Addresses of the wire, and routes to the other side's network through it."""
        for name, address in WIRE.items():
            other = OTHER[name]
            commands = [f"addr add {address}/30 dev {interface}"]
            if routes:
                commands.append(f"route add {NETWORKS[other]}.0/24 via {WIRE[other]}")
            self.ip(name, *commands)

    def answers(self) -> bool:
        """True if the sink answers the source."""
        words = ["ip", "netns", "exec", "source", "ping", "-c1", "-W1", SINK]
        return subprocess.run(words, capture_output=True, check=False).returncode == 0


def until(condition: Callable[[], bool], what: str) -> None:
    """Wait. Raises TimeoutError that says for what."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} did not come about in {PATIENCE_SECONDS:.0f} s")
        time.sleep(0.1)
