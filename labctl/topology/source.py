"""YAML text -> a tree in which every key and value knows where it stands.

Built from the parser's events, not by PyYAML's composer: the tree never recurses deeper than MAX_DEPTH, whatever the
text says, duplicate keys are seen, and plain scalars follow the core schema of YAML 1.2 (10.3), so that `no` is a name
and not False, and `02:00:00:00:00:10` is not a number in base 60.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from labctl.topology.problems import START, Position, Problems

# A lab of 1000 nodes written out in full is some 150 kB; more than this is not a topology.
MAX_OCTETS = 1 << 20
# The deepest thing a topology says is five levels down.
MAX_DEPTH = 16
# Each costs some hundred octets of memory and a microsecond or two of every later step.
MAX_VALUES = 100_000

# libyaml where PyYAML was built with it: ten times faster, with the same events and marks.
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_INTEGER = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
# Longer digits are no number of a topology, and int() of very long ones is slow.
_LONGEST_NUMBER = 32


@dataclass(frozen=True, slots=True)
class Scalar:
    """A single value. `text` is as written, without quotes; `lead` is the width of the opening quote."""

    at: Position
    value: str | int | float | bool | None
    text: str
    lead: int | None

    def position_of(self, index: int) -> Position:
        """Where the character `index` of the text stands; its start if the text has escapes or several lines."""
        if self.lead is None:
            return self.at
        return Position(self.at.line, self.at.column + self.lead + index)


@dataclass(frozen=True, slots=True)
class Entry:
    """A key and its value."""

    key: str
    key_at: Position
    value: Value


@dataclass(frozen=True, slots=True)
class Mapping:
    """Keys in the order of the file, each once."""

    at: Position
    entries: tuple[Entry, ...]

    def get(self, key: str) -> Entry | None:
        """The entry of `key`."""
        return next((entry for entry in self.entries if entry.key == key), None)


@dataclass(frozen=True, slots=True)
class Sequence:
    """Items in the order of the file."""

    at: Position
    items: tuple[Value, ...]


Value = Scalar | Mapping | Sequence
Path = tuple[str | int, ...]


class _Stop(Exception):
    """The text cannot be read further; the problem is noted."""


def parse(text: str, problems: Problems) -> Value | None:
    """The tree of the one document in `text`; None if it could not be read, with the reason in `problems`."""
    if len(text) > MAX_OCTETS:
        problems.add(START, f"the file is larger than {MAX_OCTETS} characters", "a topology is a small file")
        return None
    try:
        tree = _Builder(problems).build(yaml.parse(text, Loader=_Loader))
    except _Stop:
        return None
    except yaml.YAMLError:
        tree = _read_again(text, problems)
        if problems:
            return None
    if tree is None or (isinstance(tree, Scalar) and tree.value is None):
        problems.add(START, "the file is empty", "a topology begins with 'name:', 'nodes:' and 'links:'")
        return None
    return tree


def _read_again(text: str, problems: Problems) -> Value | None:
    """Read the text with the parser written in Python, whose words are clearer and the same on every machine.

    It stops at the same limits. Whatever it cannot read is noted; a text that it can read is a good one.
    """
    try:
        return _Builder(problems).build(yaml.parse(text, Loader=yaml.SafeLoader))
    except _Stop:
        pass
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        at = Position(mark.line + 1, mark.column + 1) if mark is not None else START
        context = f", {error.context}" if error.context else ""
        problems.add(at, f"not YAML: {error.problem}{context}", _syntax_hint(text, at))
    except yaml.YAMLError as error:
        position = getattr(error, "position", 0)
        before = text[:position] if isinstance(position, int) else ""
        at = Position(before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1)
        problems.add(at, f"a character that YAML does not allow: {text[len(before) : len(before) + 1]!r}")
    return None


def _syntax_hint(text: str, at: Position) -> str:
    lines = text.split("\n")
    line = lines[at.line - 1] if at.line <= len(lines) else ""
    if "\t" in line[: at.column]:
        return "indent with spaces: YAML does not take tabs"
    return "check brackets, quotes and indentation here and on the line above"


class _Builder:
    """Events to a tree, with a stack of its own instead of recursion."""

    def __init__(self, problems: Problems) -> None:
        self._problems = problems
        self._count = 0
        self._documents = 0

    def build(self, events: Iterator[Any]) -> Value | None:
        """The tree of the only document. Raises _Stop, or YAMLError from the parser."""
        open_collections: list[tuple[Any, list[Any]]] = []
        root: Value | None = None
        for event in events:
            self._inspect(event, len(open_collections))
            made: Value
            if isinstance(event, (yaml.MappingStartEvent, yaml.SequenceStartEvent)):
                open_collections.append((event, []))
                continue
            if isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
                start, children = open_collections.pop()
                if isinstance(start, yaml.MappingStartEvent):
                    made = self._mapping(start, children)
                else:
                    made = Sequence(_position(start.start_mark), tuple(children))
            elif isinstance(event, yaml.ScalarEvent):
                made = _scalar(event)
            else:
                continue
            if open_collections:
                open_collections[-1][1].append(made)
            else:
                root = made
        return root

    def _inspect(self, event: Any, depth: int) -> None:
        at = _position(event.start_mark)
        if isinstance(event, yaml.DocumentStartEvent):
            self._documents += 1
            if self._documents > 1:
                self._stop(at, "a second YAML document begins", "one file holds one topology")
        if not isinstance(event, yaml.NodeEvent):
            return
        self._count += 1
        if self._count > MAX_VALUES:
            self._stop(at, f"more than {MAX_VALUES} values", "a topology is a small file")
        if depth >= MAX_DEPTH:
            self._stop(at, f"nested deeper than {MAX_DEPTH} levels", "a topology is a few levels deep")
        if isinstance(event, yaml.AliasEvent):
            self._stop(at, f"'*{event.anchor}' is a YAML alias", "topologies have none: write the value out")
        if event.anchor is not None:
            self._stop(at, f"'&{event.anchor}' is a YAML anchor", "topologies have none: write the value out")
        tag = getattr(event, "tag", None)
        if tag is not None and tag != "!":
            shown = tag.replace("tag:yaml.org,2002:", "!!")
            self._stop(at, f"{shown!r} is a YAML tag", "topologies have none: remove it")

    def _stop(self, at: Position, what: str, hint: str) -> None:
        self._problems.add(at, what, hint)
        raise _Stop

    def _mapping(self, start: Any, children: list[Value]) -> Mapping:
        entries: dict[str, Entry] = {}
        for key, value in zip(children[::2], children[1::2], strict=True):
            if not isinstance(key, Scalar):
                self._problems.add(key.at, "a key is a single word", "check brackets, braces and indentation")
                continue
            if (first := entries.get(key.text)) is not None:
                line = first.key_at.line
                self._problems.add(
                    key.at, f"{key.text!r} is here a second time", f"the first is on line {line}: keep one of them"
                )
                continue
            entries[key.text] = Entry(key.text, key.at, value)
        return Mapping(_position(start.start_mark), tuple(entries.values()))


def _position(mark: Any) -> Position:
    return Position(mark.line + 1, mark.column + 1)


def _scalar(event: Any) -> Scalar:
    text = event.value
    plain = event.style in (None, "")
    one_line = event.start_mark.line == event.end_mark.line
    width = event.end_mark.column - event.start_mark.column
    quotes = 0 if plain else 2
    lead = quotes // 2 if one_line and width == len(text) + quotes else None
    return Scalar(_position(event.start_mark), _resolve(text) if plain else text, text, lead)


def _resolve(text: str) -> str | int | float | bool | None:
    """The value of a plain scalar after the core schema of YAML 1.2, section 10.3.2."""
    if text in ("", "~", "null", "Null", "NULL"):
        return None
    if text in ("true", "True", "TRUE"):
        return True
    if text in ("false", "False", "FALSE"):
        return False
    if len(text) <= _LONGEST_NUMBER:
        if _INTEGER.fullmatch(text):
            return int(text, 0) if text[:2] in ("0o", "0x") else int(text)
        if _FLOAT.fullmatch(text):
            return float(text)
    return text


def plain(value: Value) -> Any:
    """The tree as dictionaries, lists and single values."""
    if isinstance(value, Mapping):
        return {entry.key: plain(entry.value) for entry in value.entries}
    if isinstance(value, Sequence):
        return [plain(item) for item in value.items]
    return value.value


def find(root: Value, path: Path) -> tuple[Value, Position, Path]:
    """As far down `path` as the tree goes: the value, the position of its key (its own in a list), the part walked.

    A part of the path that the tree does not have is skipped, so that a path may carry words of its maker.
    """
    value, key_at, walked = root, root.at, ()  # type: Value, Position, Path
    for part in path:
        if isinstance(value, Mapping) and isinstance(part, str) and (entry := value.get(part)) is not None:
            value, key_at, walked = entry.value, entry.key_at, (*walked, part)
        elif isinstance(value, Sequence) and isinstance(part, int) and part < len(value.items):
            value, walked = value.items[part], (*walked, part)
            key_at = value.at
    return value, key_at, walked


def without(root: Value, path: Path) -> Value:
    """The tree without what `path` names; positions stay."""
    head, rest = path[0], path[1:]
    if isinstance(root, Mapping):
        entries = []
        for entry in root.entries:
            if entry.key != head:
                entries.append(entry)
            elif rest:
                entries.append(Entry(entry.key, entry.key_at, without(entry.value, rest)))
        return Mapping(root.at, tuple(entries))
    if isinstance(root, Sequence):
        items: list[Value] = []
        for index, item in enumerate(root.items):
            if index != head:
                items.append(item)
            elif rest:
                items.append(without(item, rest))
        return Sequence(root.at, tuple(items))
    return root
