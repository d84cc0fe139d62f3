"""The journal tells what was begun, whatever moment `up` was killed at."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labctl.lab.journal import BEGIN, PHASE, UP, Journal, LabState


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "journal")


def test_entries_come_back_in_order_with_their_facts(journal: Journal) -> None:
    journal.append(BEGIN, lab="x", runtime="namespaces", topology="/t.yml")
    journal.record({"kind": "process", "pid": 7})
    journal.append(PHASE, name="start", seconds=0.25)
    state = LabState.read(journal)
    assert (state.runtime, str(state.topology), state.is_up) == ("namespaces", "/t.yml", False)
    assert state.making == [{"kind": "process", "pid": 7}]
    assert state.phases == {"start": 0.25}
    journal.append(UP)
    assert LabState.read(journal).is_up


def test_no_journal_is_a_lab_that_nothing_is_known_of(journal: Journal) -> None:
    assert LabState.read(journal) == LabState()


def test_the_journal_is_the_users_alone(journal: Journal) -> None:
    journal.append(BEGIN)
    assert journal.path.stat().st_mode & 0o777 == 0o600


def test_every_entry_is_on_disk_before_append_returns(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        real(descriptor)
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        synced.append(path.stat().st_size if path == journal.path else -1)

    monkeypatch.setattr(os, "fsync", fsync)
    journal.append(BEGIN)
    assert synced == [journal.path.stat().st_size, -1], "the file, and for a new file its folder"
    journal.append(UP)
    assert synced[2:] == [journal.path.stat().st_size]


@given(st.integers(min_value=1, max_value=400))
def test_a_torn_last_line_is_no_entry_and_does_not_spoil_the_next(
    tmp_path_factory: pytest.TempPathFactory, cut: int
) -> None:
    journal = Journal(tmp_path_factory.mktemp("journal") / "journal")
    journal.append(BEGIN, lab="x", runtime="docker")
    whole = journal.path.stat().st_size
    journal.record({"kind": "container", "name": "n" * 300})
    cut = min(cut, journal.path.stat().st_size - whole)
    os.truncate(journal.path, journal.path.stat().st_size - cut)
    torn = LabState.read(journal)
    assert torn.runtime == "docker"
    assert torn.making in ([], [{"kind": "container", "name": "n" * 300}])
    journal.append(UP)
    again = LabState.read(journal)
    assert again.is_up
    assert again.making == torn.making


def test_entries_of_another_version_change_nothing(journal: Journal) -> None:
    journal.append(BEGIN, runtime="namespaces")
    journal.append("something-new", runtime="docker")
    assert LabState.read(journal).runtime == "namespaces"
