"""Labs on a real engine: what the containers may do, packets end to end, and nothing left behind."""

from __future__ import annotations

import json
import os
import shutil
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


@pytest.fixture(scope="module")
def lab(engine: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A running two-sites lab: its name and state folder."""
    name, tmp_path = f"d{os.getpid()}", tmp_path_factory.mktemp("lab")
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


def test_a_node_may_touch_packets_and_little_else(lab: tuple[str, Path]) -> None:
    _, state = lab

    def inside(command: str, status: int = 0) -> str:
        return labctl(state, "exec", "h1", "--", "sh", "-c", command, status=status)

    assert "CapEff:\t0000000000003000" in inside("cat /proc/self/status"), "NET_ADMIN and NET_RAW (capabilities(7))"
    assert "NoNewPrivs:\t1" in inside("cat /proc/self/status")
    inside("touch /etc/x 2>/dev/null || touch /opt/labctl/x 2>/dev/null", status=1)
    inside("touch /tmp/x /run/x /root/x /var/tmp/x /var/log/x")
    # Only the lab's names are known; nobody waits for a name server of the host's.
    assert inside("getent hosts ce2").split()[1] == "ce2"
    inside("timeout 2 getent hosts nosuch.example", status=2)
    inside("for tool in ip nft ping ps traceroute iperf3; do command -v $tool || exit; done")


def test_after_the_fabric_was_killed_down_removes_everything(engine: Any, tmp_path: Path) -> None:
    name = f"k{os.getpid()}"
    labctl(tmp_path, "up", str(topology(tmp_path, name)), "--runtime", "docker")
    fabric = next(item for item in containers(engine, name) if item["Labels"]["labctl.node"] == "_fabric")
    engine.kill(fabric["Id"], signal.SIGKILL)
    labctl(tmp_path, "down", name)
    assert containers(engine, name) == []
    labctl(tmp_path, "down", name)


def test_two_labs_live_side_by_side(engine: Any, lab: tuple[str, Path]) -> None:
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


def test_a_change_of_the_code_makes_only_the_last_layers_anew(
    engine: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def layers(name: str) -> list[str]:
        found: list[str] = engine.inspect_image(name)["RootFS"]["Layers"]
        return found

    current = layers(image.IMAGE)
    copy = tmp_path / "labctl"
    shutil.copytree(image.package_folder(), copy, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(image.recipe_folder(), tmp_path / "images")
    (copy / "node/changed.py").write_text("CHANGED = True\n")
    base = image.state(engine).base
    monkeypatch.setattr(image, "package_folder", lambda: copy)
    monkeypatch.setattr(image, "IMAGE", f"labctl-node:test{os.getpid()}")
    assert image.state(engine).identity is None
    try:
        built = image.build(base, client=engine)
        assert image.ensure(client=engine) == built, "nothing to do"
        assert layers(image.IMAGE)[:-2] == current[:-2]
        assert layers(image.IMAGE)[-2:] != current[-2:]
    finally:
        engine.remove_image(image.IMAGE)
