"""Every way to get a topology wrong: errors/NAME.yml and, in errors/NAME.txt, exactly what the user reads.

To add one, write the .yml, put what it should say into the .txt, and make it so.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from labctl.topology import TopologyErrors, load, read

ERRORS = Path(__file__).parent / "errors"


@pytest.mark.parametrize("name", sorted(path.stem for path in ERRORS.glob("*.yml")))
def test_a_bad_topology_says_what_is_wrong_and_where(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ERRORS)
    with pytest.raises(TopologyErrors) as caught:
        load(f"{name}.yml")
    assert str(caught.value) + "\n" == (ERRORS / f"{name}.txt").read_text()


def test_there_are_golden_pairs_and_none_is_half() -> None:
    bad = {path.stem for path in ERRORS.glob("*.yml")}
    said = {path.stem for path in ERRORS.glob("*.txt")}
    assert bad == said
    assert len(bad) >= 30


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(TopologyErrors) as caught:
        load(tmp_path / "lab.yml")
    assert str(caught.value).startswith(f"{tmp_path / 'lab.yml'}: cannot be read: No such file or directory.")


def test_a_folder_is_no_topology(tmp_path: Path) -> None:
    with pytest.raises(TopologyErrors, match="cannot be read: Is a directory"):
        load(tmp_path)


def test_a_byte_order_mark_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "lab.yml").write_bytes(b"\xef\xbb\xbfname: lab\nnodes: {pe1: pe, pe2: pe}\nlinks: [pe1 -- pe2]\n")
    assert load(tmp_path / "lab.yml").name == "lab"


def test_errors_come_in_the_order_of_the_file() -> None:
    with pytest.raises(TopologyErrors) as caught:
        read((ERRORS / "many-at-once.yml").read_text())
    places = [(error.line, error.column) for error in caught.value.errors]
    assert places == sorted(places)
    assert len(places) > 5


def test_a_pre_shared_key_is_never_repeated_in_an_error() -> None:
    text = (ERRORS / "pre-shared-keys.yml").read_text()
    with pytest.raises(TopologyErrors) as caught:
        read(text)
    assert "12345" in text and "two words" in text
    assert "12345" not in str(caught.value) and "two words" not in str(caught.value)
