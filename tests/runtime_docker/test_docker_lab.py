"""Labs on a real engine: what the containers may do, packets end to end, and nothing left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from labctl.runtime import image
from labctl.runtime.docker_client import open_client
from labctl.runtime.protocol import RuntimeFailure

pytestmark = pytest.mark.docker

TOPOLOGIES = Path(__file__).resolve().parents[2] / "topologies"


@pytest.fixture(scope="session")
def engine() -> Any:
    """An engine with a current node image. Without one: a failure in CI, a skip elsewhere."""
    try:
        client = open_client()
        image.ensure(client=client)
    except RuntimeFailure as error:
        if os.environ.get("CI") == "true":
            pytest.fail(f"CI runs the docker tests: {error.message}. {error.hint}")
        pytest.skip(f"{error.message}. {error.hint}")
    return client


def labctl(state: Path, *words: str, status: int = 0) -> str:
    """Run a command; its standard output."""
    done = subprocess.run(
        [sys.executable, "-m", "labctl", *words],
        env={**os.environ, "LABCTL_STATE": str(state), "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout


def topology(folder: Path, name: str, source: str = "two-sites") -> Path:
    """A shipped topology under another name, so that tests do not meet."""
    text = (TOPOLOGIES / f"{source}.yml").read_text()
    path = folder / f"{name}.yml"
    path.write_text(text.replace(f"name: {source}", f"name: {name}", 1))
    return path


def containers(client: Any, lab: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = client.containers(all=True, filters={"label": f"labctl.lab={lab}"})
    return found


@pytest.fixture
def lab(engine: Any, tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A running two-sites lab: its name and state folder."""
    name = f"d{os.getpid()}"
    try:
        labctl(tmp_path, "up", str(topology(tmp_path, name)), "--runtime", "docker")
        yield name, tmp_path
    finally:
        labctl(tmp_path, "down", name)
        assert containers(engine, name) == []


def test_sites_reach_each_other_and_the_containers_have_what_they_need_and_no_more(
    engine: Any, lab: tuple[str, Path]
) -> None:
    name, state = lab
    assert "1 received" in labctl(state, "exec", "h1", "--", "ping", "-c", "1", "-W", "2", "h2")
    roles = {item["Labels"]["labctl.node"]: engine.inspect_container(item["Id"]) for item in containers(engine, name)}
    assert set(roles) == {"_fabric", "ks1", "pe1", "ce1", "ce2", "h1", "h2"}
    for node, facts in roles.items():
        host = facts["HostConfig"]
        assert host["NetworkMode"] == "none" and not host["Privileged"]
        assert host["ReadonlyRootfs"] and host["PidsLimit"] == 512 and host["Memory"] == 512 * 1024 * 1024
        assert host["CapDrop"] == ["ALL"] and not host["PortBindings"] and not facts["Mounts"]
        capabilities = {name.removeprefix("CAP_") for name in host["CapAdd"]}
        if node == "_fabric":
            assert capabilities == {"SYS_ADMIN", "SYS_PTRACE", "NET_ADMIN", "NET_RAW"}
            assert host["PidMode"] == "host"
        else:
            assert capabilities == {"NET_ADMIN", "NET_RAW"}
            assert host["PidMode"] == "" and "no-new-privileges" in host["SecurityOpt"]


def test_after_the_fabric_was_killed_down_removes_everything(engine: Any, tmp_path: Path) -> None:
    name = f"k{os.getpid()}"
    labctl(tmp_path, "up", str(topology(tmp_path, name)), "--runtime", "docker")
    fabric = next(item for item in containers(engine, name) if item["Labels"]["labctl.node"] == "_fabric")
    engine.kill(fabric["Id"], signal.SIGKILL)
    labctl(tmp_path, "down", name)
    assert containers(engine, name) == []
    labctl(tmp_path, "down", name)


def test_two_labs_live_side_by_side(
    engine: Any, lab: tuple[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> None:
    _, state = lab
    name = f"o{os.getpid()}"
    try:
        labctl(state, "up", str(topology(state, name, "open-network")), "--runtime", "docker")
        rows = json.loads(labctl(state, "ps", "--json"))["labs"]
        assert len(rows) == 2
        assert "1 received" in labctl(state, "exec", "--lab", name, "h1", "--", "ping", "-c", "1", "-W", "2", "h2")
    finally:
        labctl(state, "down", name)
    assert containers(engine, name) == []


def test_the_image_says_from_which_code_it_was_made(engine: Any) -> None:
    state = image.state(engine)
    assert state.current
    assert engine.inspect_image(image.IMAGE)["Config"]["Labels"][image.SOURCE_LABEL] == image.source_digest()


def test_without_an_engine_the_message_tells_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent/docker.sock")
    with pytest.raises(RuntimeFailure) as caught:
        open_client()
    assert "no Docker engine answers" in caught.value.message
    assert "--runtime namespaces" in caught.value.hint
