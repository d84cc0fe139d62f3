"""State folders that are the test's own, and labs on each runtime."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lab_command import Labctl
from lab_traces import Machine, docker_objects, namespaces_of, processes, require_engine

from labctl.lab.directory import LabDirectory


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """LABCTL_STATE in a folder that goes with the test."""
    root = tmp_path / "state"
    monkeypatch.setenv("LABCTL_STATE", str(root))
    return root


@pytest.fixture
def directory(state: Path) -> LabDirectory:
    """The directory of a lab called chain, not made yet."""
    return LabDirectory("chain")


def _runtimes() -> list[Any]:
    return [
        pytest.param("namespaces", marks=pytest.mark.lab),
        pytest.param("docker", marks=[pytest.mark.lab, pytest.mark.docker]),
    ]


@pytest.fixture(params=_runtimes(), scope="module")
def runtime_name(request: pytest.FixtureRequest) -> str:
    """Each of the runtimes; docker needs an engine."""
    return str(request.param)


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory, runtime_name: str) -> Iterator[Labctl]:
    """labctl with a state and a folder of its own; afterwards no lab of it is there, and no trace."""
    if runtime_name == "docker":
        require_engine()
    base = tmp_path_factory.mktemp(runtime_name)
    (base / "folder").mkdir()
    before = Machine.before(base / "state")
    labctl = Labctl(base / "state", base / "folder", runtime_name)
    yield labctl
    had = namespaces_of(processes(labctl.state))
    labctl("down", "--all")
    assert before.traces(had) == []
    if runtime_name == "docker":
        assert docker_objects(labctl.state) == []
