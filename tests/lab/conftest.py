"""A state folder that is the test's own."""

from __future__ import annotations

from pathlib import Path

import pytest

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
