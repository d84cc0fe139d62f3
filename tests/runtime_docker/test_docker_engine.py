"""`.ci/docker-engine` begins an engine where none answers, and ends what it began and nothing else."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / ".ci/docker-engine"

pytestmark = pytest.mark.docker

Script = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """For an engine of our own beside the machine's."""
    if shutil.which("dockerd") is None or os.geteuid() != 0:
        if os.environ.get("CI") == "true":
            pytest.fail("CI starts an engine: install docker.io, and be root")
        pytest.skip("to start an engine one must be root and have dockerd")
    yield tmp_path
    assert traces(tmp_path) == []


@pytest.fixture
def script(folder: Path) -> Iterator[Script]:
    settings = {"STATE": folder / "state", "DATA": folder / "data", "SOCKET": folder / "engine.sock"}
    environment = {**os.environ, **{f"LABCTL_ENGINE_{name}": str(path) for name, path in settings.items()}}

    def run(word: str, status: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [str(SCRIPT), word], env=environment, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == status, done.stdout + done.stderr
        return done

    yield run
    run("stop")


def checksum(path: Path) -> str:
    done = subprocess.run(["cksum"], input=f"{path}\n", capture_output=True, text=True, check=True)
    return done.stdout.split()[0]


def traces(folder: Path) -> list[str]:
    """Processes that name the engine's folders, and mounts below them."""
    run = f"/run/labctl-engine-{checksum(folder / 'state')}"
    found = [run] if Path(run).exists() else []
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    found += [line for line in mounts if f" {folder}/" in line or f" {run}" in line]
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue  # it ended while we looked
        if str(folder) in command or run in command:
            found.append(f"{process.name} {command}")
    return found


def daemon(folder: Path) -> int:
    return int((folder / "state/pid").read_text().split()[0])


def test_it_starts_once_and_stops_without_a_trace(folder: Path, script: Script) -> None:
    assert "none answers" in script("status", 3).stdout
    assert "started" in script("start").stdout
    assert "answers, started here" in script("status").stdout
    before = daemon(folder)
    assert "one answers already" in script("start").stdout
    assert daemon(folder) == before
    assert traces(folder)
    assert "stopped" in script("stop").stdout
    assert traces(folder) == []
    assert not (folder / "state").exists()
    assert script("stop").stdout == ""


def test_a_killed_daemon_leaves_nothing_once_stopped_and_none_of_its_containers(folder: Path, script: Script) -> None:
    script("start")
    host = f"unix://{folder}/engine.sock"

    def docker(*words: str, octets: bytes | None = None) -> str:
        done = subprocess.run(["docker", "-H", host, *words], input=octets, capture_output=True, check=True)
        return done.stdout.decode().strip()

    # The smallest image there is: one program, and what it links to.
    libraries = subprocess.run(["ldd", "/bin/sleep"], capture_output=True, text=True, check=True).stdout.split()
    files = ["/bin/sleep", *(word for word in libraries if word.startswith("/"))]
    archive = subprocess.run(["tar", "-chP", *files], capture_output=True, check=True).stdout
    docker("import", "-", "sleep", octets=archive)
    container = docker("run", "-d", "--network=none", "sleep", "/bin/sleep", "1000")
    pid = int(docker("inspect", "-f", "{{.State.Pid}}", container))
    os.kill(daemon(folder), signal.SIGKILL)
    assert Path(f"/proc/{pid}").exists() and traces(folder), "containers outlive their engine"
    assert "stopped" in script("stop").stdout
    assert traces(folder) == []
    assert not Path(f"/proc/{pid}/exe").exists()
    assert not list(Path("/sys/fs/cgroup").glob(f"*/docker/{container}"))
    script("start")
    assert docker("ps", "-aq") == ""


def test_a_daemon_that_cannot_start_is_told_with_its_log(folder: Path, script: Script) -> None:
    (folder / "data").mkdir()
    (folder / "data/image").write_text("not a folder\n")
    told = script("start", 1).stderr
    assert "it did not start" in told
    assert str(folder / "data/image") in told
    assert traces(folder) == []


def test_a_wrong_word_is_answered_with_the_right_ones(script: Script) -> None:
    assert "start|stop|status" in script("restart", 2).stderr
