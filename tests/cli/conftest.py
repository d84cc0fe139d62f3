"""The command line as a user types it: `labctl(...)` returns what came out and the exit status."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_outcome import Labctl, Outcome

from labctl.cli.entry import run


@pytest.fixture
def labctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Labctl:
    """Run labctl in a folder and with a state of the test's own; 80 columns, no colour."""
    monkeypatch.setenv("LABCTL_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("LABCTL_DEBUG", raising=False)
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path / "folder")

    def call(*words: str) -> Outcome:
        capsys.readouterr()
        status = run(words)
        out, err = capsys.readouterr()
        return Outcome(int(status), out, err)

    return call
