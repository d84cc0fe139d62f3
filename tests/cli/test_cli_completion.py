"""Shell completion knows verbs, labs, nodes, interfaces and topologies."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from cli_outcome import Labctl

from labctl.configuration import Interface, NodeConfiguration, NodeKind
from labctl.lab.directory import LabDirectory
from labctl.lab.standing import keep_plan
from labctl.topology.plan import LinkEnd, Plan, PlannedLink, PlannedNode


def completed(state: Path, line: str) -> list[str]:
    """What bash would offer at the end of the line: labctl as its completion script calls it."""
    words = line.split(" ")
    done = subprocess.run(
        [sys.executable, "-c", "import sys; sys.argv[0] = 'labctl'; from labctl.__main__ import main; main()"],
        env={
            **os.environ,
            "LABCTL_STATE": str(state),
            "_LABCTL_COMPLETE": "bash_complete",
            "COMP_WORDS": line,
            "COMP_CWORD": str(len(words) - 1),
        },
        capture_output=True,
        text=True,
        check=True,
    )
    return [item.split(",", 1)[1] for item in done.stdout.splitlines() if item]


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """Two labs: one with nodes, one called empty."""
    nodes = tuple(
        PlannedNode(name, NodeKind.CE, NodeConfiguration(name, NodeKind.CE, (Interface("eth0", "02:00:00:00:00:01"),)))
        for name in ("ce1", "ce2")
    )
    link = PlannedLink("ce1:eth0--ce2:eth0", (LinkEnd("ce1", "eth0"), LinkEnd("ce2", "eth0")))
    directory = LabDirectory("office", tmp_path)
    directory.create()
    keep_plan(directory, Plan("office", "auto", nodes, (), (link,), (), ()))
    return tmp_path


def test_verbs(state: Path) -> None:
    assert completed(state, "labctl s") == ["shell", "simulate", "schema"]


def test_nodes_of_the_lab_that_is_up(state: Path) -> None:
    assert completed(state, "labctl shell ") == ["ce1", "ce2"]
    assert completed(state, "labctl logs ce1 ") == ["ce2"], "not the same node twice"
    assert completed(state, "labctl exec ce2 c") == ["ce1"]


def test_labs(state: Path) -> None:
    LabDirectory("other", state).create()
    assert completed(state, "labctl down ") == ["office", "other"]
    assert completed(state, "labctl ps --lab of") == ["office"]


def test_nodes_of_the_lab_that_was_named(state: Path) -> None:
    LabDirectory("other", state).create()
    assert completed(state, "labctl shell ") == [], "which lab is not clear"
    assert completed(state, "labctl shell --lab office ") == ["ce1", "ce2"]


def test_links_and_interfaces(state: Path) -> None:
    assert completed(state, "labctl capture ") == ["ce1:eth0--ce2:eth0", "ce1:eth0", "ce2:eth0"]


def test_kinds_of_checks(state: Path) -> None:
    assert completed(state, "labctl test reg") == ["registered"]


def test_no_lab_offers_nothing_and_says_nothing(tmp_path: Path) -> None:
    assert completed(tmp_path / "nowhere", "labctl shell ") == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_has_a_script(labctl: Labctl, shell: str) -> None:
    shown = labctl("completion", shell)
    assert shown.status == 0
    assert "_LABCTL_COMPLETE" in shown.stdout
    if shell == "bash":
        subprocess.run(["bash", "-n"], input=shown.stdout, text=True, check=True)
