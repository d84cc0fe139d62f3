"""A line of a mode: which command it is, with which values; or where it goes wrong, in IOS's words.

Keywords may be shortened as long as one is meant. A whole keyword is that; where a shortened one may be an argument as
well, what follows decides, and the keyword comes first.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from labctl.ios.grammar.arguments import Refused
from labctl.ios.grammar.command import Command
from labctl.ios.grammar.graph import Edge, Node
from labctl.ios.grammar.pattern import FORGOTTEN

_WORDS = re.compile(r"\S+")

# What a path through the graph has gathered: (name, value, all before it).
_Values = tuple[str, Any, "_Values"] | None


class LineError(ValueError):
    """A line that is no command. `str()` is what IOS answers."""


class IncompleteCommand(LineError):
    """More words must follow."""

    def __init__(self) -> None:
        super().__init__("% Incomplete command.")


class AmbiguousCommand(LineError):
    """A shortened keyword that may be several. `line` is shown up to there."""

    def __init__(self, line: str) -> None:
        super().__init__(f'% Ambiguous command:  "{line}"')


class InvalidInput(LineError):
    """A word that cannot stand where it does. `column` counts from 0 in the line."""

    def __init__(self, column: int) -> None:
        super().__init__("% Invalid input detected at '^' marker.")
        self.column = column

    def marked(self, indent: int) -> str:
        """The caret under the character, of a line that was typed `indent` columns from the left, and the words."""
        return f"{' ' * (indent + self.column)}^\n{self}"


@dataclass(frozen=True, slots=True)
class Match:
    """A command and its values."""

    command: Command
    values: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Suggestion:
    """What may stand next: a keyword or a metavariable. `word` is empty where nothing can be completed."""

    shown: str
    help: str
    word: str = ""


# What `?` shows for a line that is a command already.
END = Suggestion("<cr>", "")


def read_line(start: Node, line: str) -> Match:
    """The command of a line. Raises LineError."""
    paths: list[tuple[Node, _Values]] = [(start, None)]
    for found in _WORDS.finditer(line):
        taken = _step(paths, line, found.group(), found.start())
        if taken is None:
            paths = _rest(paths, line[found.start() :])
            break
        paths = taken
    for node, values in paths:
        if node.ends is not None:
            return Match(node.ends, _as_dict(values))
    raise IncompleteCommand


def suggest(start: Node, line: str) -> list[Suggestion]:
    """What `?` shows behind `line`: what the word that it ends with may become, or what may follow its last blank.

    Raises LineError where the words before are none.
    """
    paths: list[tuple[Node, _Values]] = [(start, None)]
    words = list(_WORDS.finditer(line))
    prefix = words.pop().group() if words and not line[-1:].isspace() else ""
    for found in words:
        taken = _step(paths, line, found.group(), found.start())
        if taken is None:
            return [END]  # a line of text takes everything
        paths = taken
    return sorted(_suggestions(paths, prefix.lower()), key=lambda item: (item is END, item.shown.lower()))


def _suggestions(paths: list[tuple[Node, _Values]], prefix: str) -> Iterable[Suggestion]:
    shown: dict[str, Suggestion] = {}
    for node, _ in paths:
        for edge in node.edges:
            if edge.argument is None:
                if edge.keyword.startswith(prefix):
                    known = shown.get(edge.keyword)
                    if known is None or not known.help:
                        shown[edge.keyword] = Suggestion(edge.keyword, edge.help, edge.keyword)
            elif not prefix:
                shown.setdefault(edge.argument.metavar, Suggestion(edge.argument.metavar, edge.help))
    if not prefix and any(node.ends is not None for node, _ in paths):
        shown["<cr>"] = END
    return shown.values()


def _step(paths: list[tuple[Node, _Values]], line: str, word: str, column: int) -> list[tuple[Node, _Values]] | None:
    """The paths behind a word; None where one takes the rest of the line."""
    lowered = word.lower()
    named = [(edge, values) for node, values in paths for edge in node.edges if edge.keyword.startswith(lowered)]
    whole = [item for item in named if item[0].keyword == lowered]
    several = not whole and len({edge.keyword for edge, _ in named}) > 1
    found = [
        (edge.to, (edge.name, True, values) if edge.name else values)
        for edge, values in (() if several else whole or named)
    ]
    if whole:
        return found
    for node, values in paths:
        for edge in node.edges:
            if edge.argument is not None:
                if edge.argument.rest and not found:
                    return None
                try:
                    found.append((edge.to, (edge.name, edge.argument.read(word), values)))
                except Refused:
                    continue
    if several and not found:
        raise AmbiguousCommand(line[: column + len(word)])
    if not found:
        raise InvalidInput(column + _good(paths, lowered))
    return found


def _rest(paths: list[tuple[Node, _Values]], text: str) -> list[tuple[Node, _Values]]:
    for node, values in paths:
        for edge in node.edges:
            if edge.argument is not None and edge.argument.rest:
                return [(edge.to, (edge.name, edge.argument.read(text), values))]
    raise AssertionError("_step found one")


def _good(paths: list[tuple[Node, _Values]], word: str) -> int:
    """How many characters of a word are those of a keyword that may stand there."""
    edges: list[Edge] = [edge for node, _ in paths for edge in node.edges if edge.argument is None]
    return max((_shared(edge.keyword, word) for edge in edges), default=0)


def _shared(one: str, other: str) -> int:
    """How many characters two words begin with alike."""
    pairs = zip(one, other, strict=False)
    return next((number for number, (mine, its) in enumerate(pairs) if mine != its), min(len(one), len(other)))


def _as_dict(values: _Values) -> dict[str, Any]:
    found: list[tuple[str, Any]] = []
    while values is not None:
        name, value, values = values
        if name != FORGOTTEN:
            found.append((name, value))
    return dict(reversed(found))
