"""What a lab leaves on a machine: processes, namespaces, mounts, links, files. Found by a test's own state folder.

Every process of a lab has `LABCTL_STATE` in its environment, inherited from the labctl that a test started.
"""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest


def processes(state: Path) -> dict[int, str]:
    """Living processes of labs with that state folder: pid -> command line."""
    label = f"LABCTL_STATE={state}".encode()
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            if label in (entry / "environ").read_bytes().split(b"\0"):
                found[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue  # it ended while we looked, or is a zombie
    return found


def namespaces_of(pids: dict[int, str]) -> set[str]:
    """The inodes of every namespace that those processes have and we do not."""
    found: set[str] = set()
    for pid in pids:
        for kind in ("user", "mnt", "pid", "net", "uts", "ipc"):
            try:
                inode = Path(f"/proc/{pid}/ns/{kind}").readlink()
            except OSError:
                continue
            if inode != Path(f"/proc/self/ns/{kind}").readlink():
                found.add(str(inode).rpartition("[")[2].rstrip("]"))
    return found


def existing_namespaces(state: Path) -> set[str]:
    """The inodes of every namespace that lsns(8) sees and that labs of that state folder hold.

    The kernel gives numbers again at once: one that a lab of another test got meanwhile is no trace.
    """
    held = {(str(item["ns"]), int(item["pid"] or 0)) for item in json.loads(_lsns())["namespaces"]}
    label = f"LABCTL_STATE={state}".encode()
    found = set()
    for inode, pid in held:
        try:
            environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0") if pid else [label]
        except OSError:
            continue  # it ended while we looked
        if label in environment:
            found.add(inode)
    return found


def _lsns() -> str:
    """lsns(8) gives up where a process ends while it looks, as many do: then it looks again."""
    for _ in range(20):
        done = subprocess.run(["lsns", "--json", "--output", "NS,PID"], capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return done.stdout
    raise AssertionError(f"lsns: {done.stderr}")


def host_links() -> set[str]:
    """Names of links in our own network namespace."""
    return {path.name for path in Path("/sys/class/net").iterdir()}


def require_engine() -> None:
    """Skip without a Docker engine; in CI, fail."""
    done = subprocess.run(["docker", "version"], capture_output=True, text=True, check=False)
    if done.returncode != 0 and os.environ.get("CI") == "true":
        pytest.fail(f"no Docker engine answers: {done.stderr}")
    if done.returncode != 0:
        pytest.skip("no Docker engine answers")


def docker_objects(state: Path) -> list[str]:
    """Containers, networks and volumes of the labs of that state folder, in words."""
    found = []
    for kind, command in (("container", ["ps", "--all"]), ("network", ["network", "ls"]), ("volume", ["volume", "ls"])):
        made = ["--filter", "label=labctl.state", "--format", '{{.Label "labctl.state"}} {{.Label "labctl.node"}}']
        done = subprocess.run(["docker", *command, *made], capture_output=True, text=True, check=True)
        found += [f"{kind} {line}" for line in done.stdout.splitlines() if line.startswith(f"{state}/")]
    return found


@dataclass(frozen=True, slots=True)
class Machine:
    """What was there before the lab."""

    state: Path
    links: frozenset[str]

    @classmethod
    def before(cls, state: Path) -> Machine:
        """Remember the machine as it is."""
        return cls(state, frozenset(host_links()))

    def traces(self, namespaces: set[str]) -> list[str]:
        """What the labs of this state left, in words; `namespaces` are those they had."""
        left = [f"process {pid}: {command}" for pid, command in processes(self.state).items()]
        left += [f"namespace {inode}" for inode in namespaces & existing_namespaces(self.state)]
        left += [f"link {name}" for name in host_links() - self.links]
        left += [
            f"mount {line}" for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(self.state) in line
        ]
        if self.state.is_dir():
            left += [f"file {path}" for path in self.state.rglob("*") if path != self.state / "labs"]
        return left
