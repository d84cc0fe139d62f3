"""A lab's directory is private, found again, and leaves nothing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from labctl.lab.directory import LONGEST_SOCKET_PATH, LabDirectory, labs, state_root
from labctl.lab.errors import BadRequest, LabError


def test_state_is_where_the_environment_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.delenv("LABCTL_STATE", raising=False)
    assert state_root() == tmp_path / ".local/state/labctl"
    monkeypatch.setenv("XDG_STATE_HOME", "/xdg")
    assert state_root() == Path("/xdg/labctl")
    monkeypatch.setenv("LABCTL_STATE", "/mine")
    assert state_root() == Path("/mine")


def test_a_lab_directory_is_for_its_user_alone(directory: LabDirectory) -> None:
    directory.create()
    for folder in (directory.root, directory.path, directory.logs):
        assert folder.stat().st_mode & 0o777 == 0o700
    directory.keep_secret(b"x" * 32)
    assert (directory.path / "secret").stat().st_mode & 0o777 == 0o600


def test_the_secret_stays_while_the_lab_does(directory: LabDirectory) -> None:
    first = directory.secret()
    assert first != directory.secret(), "drawn anew until it is kept"
    directory.create()
    directory.keep_secret(first)
    assert directory.secret() == first
    directory.remove()
    assert directory.secret() != first


def test_labs_are_listed_by_name(state: Path) -> None:
    assert list(labs()) == []
    for name in ("two", "one"):
        LabDirectory(name).create()
    assert [lab.name for lab in labs()] == ["one", "two"]


@pytest.mark.parametrize("name", ["", "..", "a/b", "-x", "a b", "x" * 64])
def test_a_name_that_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(BadRequest):
        LabDirectory(name)


def test_removing_leaves_nothing_and_may_be_repeated(directory: LabDirectory) -> None:
    directory.create()
    (directory.logs / "a.log").write_text("x")
    directory.remove()
    directory.remove()
    assert list((directory.root / "labs").iterdir()) == []


def test_a_path_too_long_for_a_socket_gets_a_short_door(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    runtime = tmp_path / "run"
    runtime.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    deep = LabDirectory("chain", tmp_path / ("d" * 120))
    assert len(os.fsencode(deep.door)) <= LONGEST_SOCKET_PATH or len(os.fsencode(runtime)) > 80
    assert deep.door.parent == runtime / "labctl"
    assert deep.door == LabDirectory("chain", tmp_path / ("d" * 120)).door, "found again without state"
    assert deep.door != LabDirectory("other", tmp_path / ("d" * 120)).door
    deep.create()
    assert deep.door.parent.stat().st_mode & 0o777 == 0o700
    # Another lab that ends before our socket is there does not take the folder along.
    other = LabDirectory("other", tmp_path / ("d" * 120))
    other.create()
    other.remove()
    deep.door.touch()
    deep.remove()
    assert list(runtime.iterdir()) == [], "not even the folder"


def test_a_short_folder_that_others_may_write_to_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    (tmp_path / "labctl").mkdir()
    (tmp_path / "labctl").chmod(0o777)
    with pytest.raises(LabError, match="not a folder of this user alone"):
        LabDirectory("chain", tmp_path / ("d" * 120)).create()


def test_a_short_path_keeps_its_door_in_the_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    assert LabDirectory("chain", Path("/s")).door == Path("/s/labs/chain/door.sock")
