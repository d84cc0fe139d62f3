"""A lab and its topology are found by name, by file, or because there is no other."""

from __future__ import annotations

from pathlib import Path

import pytest

from labctl.lab.directory import LabDirectory
from labctl.lab.errors import BadRequest, NoSuchLab, NothingUp
from labctl.lab.find import default_topology, find_lab, shipped_topologies, split_up_words, topology_file
from labctl.lab.journal import BEGIN, Journal


def lab(name: str, topology: Path) -> LabDirectory:
    """A lab with state, made from that file."""
    directory = LabDirectory(name)
    directory.create()
    Journal(directory.journal).append(BEGIN, lab=name, runtime="namespaces", topology=str(topology))
    return directory


def test_the_only_lab_needs_no_name(state: Path, tmp_path: Path) -> None:
    with pytest.raises(NothingUp, match="no lab is up"):
        find_lab(None, tmp_path)
    lab("one", tmp_path / "one.yml")
    assert find_lab(None, tmp_path).name == "one"


def test_of_several_labs_the_folders_own_is_meant_or_none(state: Path, tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "one/topology.yml").write_text("")
    lab("one", tmp_path / "one/topology.yml")
    lab("two", tmp_path / "two.yml")
    assert find_lab(None, tmp_path / "one").name == "one"
    with pytest.raises(NoSuchLab, match="several labs are up: one, two"):
        find_lab(None, tmp_path)


def test_a_lab_is_known_by_its_topology_file(state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "net.yml").write_text("")
    lab("one", tmp_path / "net.yml")
    lab("two", tmp_path / "two.yml")
    monkeypatch.chdir(tmp_path)
    assert find_lab("net.yml", tmp_path).name == "one"
    assert find_lab("two", tmp_path).name == "two"


def test_a_wrong_name_is_answered_with_the_likely_one(state: Path, tmp_path: Path) -> None:
    lab("two-sites", tmp_path / "t.yml")
    with pytest.raises(NoSuchLab) as caught:
        find_lab("two-site", tmp_path)
    assert caught.value.hint == "did you mean 'two-sites'?"


def test_the_default_topology_is_the_usual_name_or_the_only_one(tmp_path: Path) -> None:
    assert default_topology(tmp_path) is None
    (tmp_path / "a.yml").write_text("")
    assert default_topology(tmp_path) == tmp_path / "a.yml"
    (tmp_path / "b.yaml").write_text("")
    assert default_topology(tmp_path) is None
    (tmp_path / "topology.yml").write_text("")
    assert default_topology(tmp_path) == tmp_path / "topology.yml"


def test_shipped_topologies_go_by_name(tmp_path: Path) -> None:
    shipped = shipped_topologies()
    assert {"getvpn-basic", "two-sites", "hub-lan", "open-network"} <= set(shipped)
    assert topology_file("two-sites", tmp_path) == shipped["two-sites"]
    with pytest.raises(BadRequest) as caught:
        topology_file("getvpn-basik", tmp_path)
    assert caught.value.hint == "did you mean 'getvpn-basic'?"


def test_words_of_up_are_a_topology_then_nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.yml").write_text("")
    assert split_up_words((), None, tmp_path) == (tmp_path / "net.yml", ())
    assert split_up_words(("ce1", "h1"), None, tmp_path) == (tmp_path / "net.yml", ("ce1", "h1"))
    assert split_up_words(("net.yml", "h1"), None, tmp_path) == (Path("net.yml"), ("h1",))
    assert split_up_words(("two-sites",), None, tmp_path) == (shipped_topologies()["two-sites"], ())


def test_up_with_a_lab_means_the_topology_it_was_made_from(state: Path, tmp_path: Path) -> None:
    (tmp_path / "net.yml").write_text("")
    lab("one", tmp_path / "net.yml")
    assert split_up_words(("ce1",), "one", tmp_path) == (tmp_path / "net.yml", ("ce1",))
    (tmp_path / "net.yml").unlink()
    with pytest.raises(BadRequest, match="not there any more"):
        split_up_words((), "one", tmp_path)
