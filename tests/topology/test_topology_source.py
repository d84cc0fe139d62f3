"""The reader of YAML: positions, plain values, limits, and no text that breaks it."""

from __future__ import annotations

from typing import NoReturn

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from labctl.topology import TopologyErrors, read
from labctl.topology.problems import Position, Problems
from labctl.topology.source import MAX_DEPTH, MAX_OCTETS, MAX_VALUES, Mapping, Scalar, Value, parse, plain

GOOD = "name: lab\nnodes: {pe1: pe, ce1: ce, h1: host}\nlinks:\n  - ce1 -- pe1\n  - h1 -- ce1\n"


def failing_loader(text: str) -> NoReturn:
    raise yaml.YAMLError("a parser that gives up where the other one does not")


def tree(text: str) -> Value:
    problems = Problems("x.yml")
    value = parse(text, problems)
    problems.raise_any()
    assert value is not None
    return value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"),
        ("on", "on"),
        ("true", True),
        ("12", 12),
        ("-3", -3),
        ("0x10", 16),
        ("1.5", 1.5),
        ("~", None),
        ("", None),
        ("'12'", "12"),
        ("02:00:00:00:00:10", "02:00:00:00:00:10"),
        ("10.1.0.0/16", "10.1.0.0/16"),
        ("1e400", float("inf")),
    ],
)
def test_plain_values_follow_yaml_1_2(text: str, value: object) -> None:
    assert plain(tree(f"key: {text}\n")) == {"key": value}


def test_every_key_and_value_knows_its_place() -> None:
    root = tree("a: 1\nb:\n  - x\n  - {c: 'quoted'}\n")
    assert isinstance(root, Mapping)
    assert [entry.key_at for entry in root.entries] == [Position(1, 1), Position(2, 1)]
    assert plain(root) == {"a": 1, "b": ["x", {"c": "quoted"}]}
    entry = root.get("b")
    assert entry is not None and not isinstance(entry.value, (Scalar, Mapping))
    inner = entry.value.items[1]
    assert isinstance(inner, Mapping)
    quoted = inner.entries[0].value
    assert isinstance(quoted, Scalar)
    assert quoted.at == Position(4, 9)
    assert quoted.position_of(3) == Position(4, 13), "a quote is one column wide"


def test_a_word_is_found_inside_a_text_only_where_its_column_is_known() -> None:
    root = tree('a: "two\\twords"\n')
    assert isinstance(root, Mapping)
    value = root.entries[0].value
    assert isinstance(value, Scalar)
    assert value.position_of(4) == value.at


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("a: " + "[" * (MAX_DEPTH + 1), "nested deeper"),
        ("a: " + "[" * 50_000, "nested deeper"),
        ("{a: " * 50_000, "nested deeper"),
        ("[" + "1," * (MAX_VALUES + 1) + "]", "more than"),
        ("a: " + "x" * MAX_OCTETS, "larger than"),
        ("a: &a [x]\nb: &b [*a, *a]\nc: [*b, *b]\n", "anchor"),
        ("a: !!python/object/apply:os.system [ls]\n", "tag"),
    ],
    ids=["deep", "very-deep", "deep-mappings", "many", "large", "bomb", "python-tag"],
)
@pytest.mark.parametrize("loader", ["libyaml", "python", "failing"])
def test_a_hostile_file_is_refused_at_a_limit(
    text: str, what: str, loader: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if loader == "python":
        monkeypatch.setattr("labctl.topology.source._Loader", yaml.SafeLoader)
    elif loader == "failing":
        monkeypatch.setattr("labctl.topology.source._Loader", failing_loader)
    with pytest.raises(TopologyErrors, match=what):
        read(text)


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=200))
def test_any_text_gives_a_topology_or_errors_with_places(text: str) -> None:
    with pytest.raises(TopologyErrors) as caught:
        read(text)
    assert all(error.line >= 1 and error.column >= 1 for error in caught.value.errors)


@settings(max_examples=400, deadline=None)
@given(
    st.integers(0, len(GOOD)),
    st.integers(0, 12),
    st.sampled_from(
        ["", ":", "-", "{", "}", "[", "]", "'", '"', "&", "*", "!", "\t", "\n", " ", "0", "x", "--", "~", "é"]
    ),
)
def test_a_damaged_topology_gives_a_topology_or_errors_with_places(place: int, cut: int, put: str) -> None:
    try:
        read(GOOD[:place] + put + GOOD[place + cut :])
    except TopologyErrors as caught:
        assert caught.errors
        assert all(error.line >= 1 and error.column >= 1 for error in caught.errors)
