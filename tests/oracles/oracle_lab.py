"""A lab whose packets tshark is to read."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

TOPOLOGIES = Path(__file__).resolve().parents[2] / "topologies"


class Lab:
    """A shipped lab with a key log and a clock like ours, driven by the command line as a user would."""

    def __init__(self, folder: Path, topology: str) -> None:
        self.folder = folder
        self.name = f"t{os.getpid()}"
        self.topology = folder / f"{self.name}.yml"
        text = (TOPOLOGIES / f"{topology}.yml").read_text().replace("clock: {scale: 60}\n", "")
        self.topology.write_text(text.replace(f"name: {topology}", f"name: {self.name}", 1))
        self._environment = {**os.environ, "LABCTL_STATE": str(folder / "state"), "NO_COLOR": "1"}

    @property
    def keylog(self) -> Path:
        return self.folder / "state" / "labs" / self.name / "keylog"

    def labctl(self, *words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "labctl", *words],
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def up(self, *nodes: str) -> None:
        self.labctl("up", str(self.topology), *nodes, "--runtime", "namespaces", "--keylog")

    def group(self, node: str) -> Any:
        """The one group of a node, as `gdoi show` says it."""
        (group,) = json.loads(self.labctl("gdoi", "show", node, "--lab", self.name, "--json"))
        return group

    def capture(self, point: str, name: str, *options: str) -> tuple[subprocess.Popen[bytes], Path]:
        """A running capture; it listens once its file has a header."""
        path = self.folder / name
        command = [sys.executable, "-m", "labctl", "capture", "--lab", self.name, point, "-w", str(path), *options]
        process = subprocess.Popen(command, env=self._environment, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 30
        while not (path.exists() and path.stat().st_size):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        return process, path


def finish(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGINT)
    process.wait(20)


def read(tshark: str, path: Path, fields: list[str], *options: str, config: Path) -> list[list[str]]:
    """Rows of fields."""
    columns = [word for field in fields for word in ("-e", field)]
    done = subprocess.run(
        [tshark, "-r", str(path), "-d", "udp.port==848,isakmp", *options, "-T", "fields", *columns],
        env={**os.environ, "WIRESHARK_CONFIG_DIR": str(config)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return [line.split("\t") for line in done.stdout.splitlines()]
