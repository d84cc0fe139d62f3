"""Whatever dies, at whatever moment of `up`, `down` leaves no process, namespace, link, mount, container or file."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from lab_command import TIMEOUT, Labctl, finish
from lab_group import until
from lab_traces import Machine, docker_objects, namespaces_of, processes, require_engine
from warm_labctl import Running

MOMENTS = 20
SEED = int(os.environ.get("LABCTL_SEED") or random.SystemRandom().randrange(1_000_000))

on_namespaces = pytest.mark.parametrize(
    "runtime_name", [pytest.param("namespaces", marks=pytest.mark.lab)], indirect=True
)
on_docker = pytest.mark.parametrize(
    "runtime_name", [pytest.param("docker", marks=[pytest.mark.lab, pytest.mark.docker])], indirect=True
)

TEXT = (Path(__file__).resolve().parents[2] / "topologies/two-sites.yml").read_text()


@pytest.fixture
def fresh(runtime_name: str, tmp_path: Path) -> Iterator[Labctl]:
    """labctl with a state of this test's own and a topology; afterwards `down` and no trace."""
    if runtime_name == "docker":
        require_engine()
    (tmp_path / "topology.yml").write_text(TEXT.replace("name: two-sites", "name: killed"))
    before = Machine.before(tmp_path / "state")
    labctl = Labctl(before.state, tmp_path, runtime_name)
    yield labctl
    nothing_left(labctl, before)


def nothing_left(labctl: Labctl, before: Machine) -> None:
    """`down`, by the lab's name because there may be no state; then there is no trace, and a second `down` agrees."""
    # A trial of the kernel that the killed one was waiting for is no part of a lab, and ends by itself.
    until(lambda: not any("--probe" in command for command in processes(labctl.state).values()), "the trial ends")
    had = namespaces_of(processes(labctl.state))
    labctl("down", "killed")
    assert before.traces(had) == []
    if labctl.runtime == "docker":
        assert docker_objects(labctl.state) == []
    assert "nothing to take down" in labctl("down", "killed").stdout


def begin_up(labctl: Labctl) -> Running:
    """`up` as a user's shell starts it."""
    return replace(labctl, own_process=True).start("up", "--runtime", labctl.runtime)


def seconds_of_an_up(labctl: Labctl) -> float:
    begin = time.monotonic()
    begin_up(labctl).communicate(timeout=TIMEOUT)
    seconds = time.monotonic() - begin
    labctl("down")
    return seconds


@pytest.mark.timeout(900)  # twenty labs, on a machine that may be busy
def test_kill_9_of_labctl_at_random_moments_of_up_then_down_leaves_nothing(fresh: Labctl) -> None:
    before = Machine.before(fresh.state)
    whole = seconds_of_an_up(fresh)
    chance = random.Random(SEED)
    for number in range(MOMENTS):
        # One moment in each twentieth of the way, so that every part of it is met.
        moment = (number + chance.random()) / MOMENTS * whole
        process = begin_up(fresh)
        try:
            process.wait(timeout=moment)
        except subprocess.TimeoutExpired:
            process.kill()
        process.communicate(timeout=TIMEOUT)
        try:
            nothing_left(fresh, before)
        except AssertionError as error:
            raise AssertionError(f"killed after {moment:.3f} of {whole:.3f} s, LABCTL_SEED={SEED}: {error}") from error


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
def test_up_that_is_told_to_stop_rolls_back_by_itself(fresh: Labctl, number: signal.Signals) -> None:
    before = Machine.before(fresh.state)
    process = begin_up(fresh)
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("wiring"):
            break
    had = namespaces_of(processes(fresh.state))
    status, _, err = finish(process, number)
    assert status == (130 if number is signal.SIGINT else 143)
    assert "rolling back" in err
    assert "Traceback" not in err
    assert before.traces(had) == []


@on_namespaces
def test_kill_9_of_the_supervisor_during_up_is_an_error_and_leaves_nothing(fresh: Labctl) -> None:
    process = begin_up(fresh)
    supervisor = supervisor_of(fresh, process)
    os.kill(supervisor, signal.SIGKILL)
    _, err = process.communicate(timeout=TIMEOUT)
    assert process.returncode in (4, 5), err
    assert "Traceback" not in err


@on_namespaces
def test_kill_9_of_the_supervisor_of_a_lab_that_is_up(fresh: Labctl) -> None:
    fresh.up()
    had = namespaces_of(processes(fresh.state))
    pids = [pid for pid, command in processes(fresh.state).items() if "--supervise" in command]
    os.kill(min(pids), signal.SIGKILL)
    (lab,) = fresh.json("ps")["labs"]
    assert lab["state"] == "dead"
    assert "does not answer" in fresh("exec", "h1", "--", "true", status=5).stderr
    assert fresh.up().returncode == 0, "up makes it anew"
    fresh("down")
    assert processes(fresh.state) == {}
    assert had


@on_docker
def test_kill_9_of_the_fabric_container_of_a_lab_that_is_up(fresh: Labctl) -> None:
    fresh.up()
    names = subprocess.run(
        ["docker", "ps", "--filter", "label=labctl.lab=killed", "--format", "{{.Names}}"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    (fabric,) = [name for name in names if "fabric" in name]
    subprocess.run(["docker", "kill", fabric], check=True, capture_output=True)
    (lab,) = fresh.json("ps")["labs"]
    assert lab["state"] == "dead"


@on_namespaces
def test_kill_9_of_an_agent_during_up_names_the_node(fresh: Labctl) -> None:
    process = begin_up(fresh)
    kill_an_agent(fresh, process)
    _, err = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 6, err
    # How the fabric learns of it depends on the moment: an exit status, a broken connection, a node that never stood.
    assert re.search(r"^labctl: (.*; )?(ks1|pe1|ce1|ce2|h1|h2): \w", err, re.MULTILINE), err
    assert "Traceback" not in err


def supervisor_of(labctl: Labctl, process: Running) -> int:
    """The supervisor's pid, as soon as it is in the journal."""
    journal = labctl.state / "labs/killed/journal"
    while True:
        assert process.poll() is None, "up ended"
        lines = journal.read_text().splitlines() if journal.exists() else []
        for line in lines:
            # The last line may be half written yet.
            made = json.loads(line).get("object", {}) if line.endswith("}") else {}
            if made.get("kind") == "supervisor":
                return int(made["pid"])


def kill_an_agent(labctl: Labctl, process: Running) -> None:
    """Kill an agent as soon as there is one: it has a network namespace that neither we nor the supervisor have."""
    while process.poll() is None:
        pids = [pid for pid, command in processes(labctl.state).items() if "--supervise" in command]
        if not pids:
            continue
        others = {network_of(os.getpid()), network_of(min(pids))}
        for pid in pids:
            if (found := network_of(pid)) is not None and found not in others:
                os.kill(pid, signal.SIGKILL)
                return
    raise AssertionError("up ended before there was an agent")


def network_of(pid: int) -> Path | None:
    """The network namespace of a process; None if it has ended."""
    try:
        return Path(f"/proc/{pid}/ns/net").readlink()
    except OSError:
        return None
