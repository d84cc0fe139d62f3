"""Labs in odd places and at odd times: a state path too long for a socket, and two `up`s at once. On namespaces."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from lab_command import TIMEOUT, Labctl
from lab_traces import Machine, namespaces_of, processes

TOPOLOGIES = Path(__file__).resolve().parents[2] / "topologies"

pytestmark = pytest.mark.lab


def test_a_lab_whose_state_path_is_too_long_for_a_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    short = tmp_path / "run"
    short.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(short))
    labctl = Labctl(tmp_path / ("deep" * 30) / "state", tmp_path, "namespaces")
    before = Machine.before(labctl.state)
    labctl.up("open-network")
    (door,) = short.rglob("*.sock")
    assert door.stat().st_mode & 0o777 == 0o600
    assert labctl("exec", "h1", "hostname").stdout == "h1\n"
    had = namespaces_of(processes(labctl.state))
    labctl("down")
    assert before.traces(had) == []
    assert list(short.iterdir()) == []


def test_the_second_of_two_ups_is_told_of_the_first(tmp_path: Path) -> None:
    labctl = Labctl(tmp_path / "state", tmp_path, "namespaces")
    first = labctl.start("up", "two-sites", "--runtime", "namespaces")
    assert first.stderr is not None and first.stderr.readline() == "starting the lab\n"
    first.send_signal(signal.SIGSTOP)
    try:
        for verb in ("up", "down"):
            refused = labctl(verb, "two-sites", status=8)
            assert f"'labctl up' (pid {first.pid})" in refused.stderr
    finally:
        first.send_signal(signal.SIGCONT)
    _, err = first.communicate(timeout=TIMEOUT)
    assert first.returncode == 0, err
    assert labctl.nodes()["ce1"]["state"] == "ready"
    labctl("down")


def test_up_for_programs_says_what_it_did_and_how_long_it_took(tmp_path: Path) -> None:
    labctl = Labctl(tmp_path / "state", tmp_path, "namespaces")
    report = labctl.json("up", "open-network", "--runtime", "namespaces")
    assert (report["lab"], report["runtime"], report["was_up"]) == ("open-network", "namespaces", False)
    assert set(report["phases"]) == {"start", "create", "build", "ready"}
    assert sum(report["phases"].values()) <= report["seconds"]
    again = labctl.json("up", "open-network", "--runtime", "namespaces")
    assert (again["was_up"], again["started"]) == (True, [])
    (gone,) = labctl.json("down")["labs"]
    assert gone["lab"] == "open-network"
    assert gone["removed"][0]["kind"] == "supervisor"


def test_several_labs_live_side_by_side(tmp_path: Path) -> None:
    labctl = Labctl(tmp_path / "state", tmp_path, "namespaces")
    before = Machine.before(labctl.state)
    for name in ("two-sites", "open-network"):
        labctl.up(name)
    assert "several labs are up" in labctl("logs", status=5).stderr
    assert labctl("exec", "--lab", "open-network", "h1", "hostname").stdout == "h1\n"
    assert {lab["name"]: lab["state"] for lab in labctl.json("ps")["labs"]} == {"two-sites": "up", "open-network": "up"}
    labctl("down", "two-sites")
    assert labctl("exec", "h1", "hostname").stdout == "h1\n", "the one that is left needs no name"
    labctl("down", "--all")
    assert before.traces(set()) == []
