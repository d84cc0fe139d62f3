"""Modes and their commands, gathered from trees: adding a tree of commands is adding one to a list."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from labctl.ios.grammar.command import Command
from labctl.ios.grammar.graph import Node, graph_of
from labctl.ios.grammar.reader import IncompleteCommand, LineError, Match, Suggestion, read_line, suggest

# Where configuration begins.
GLOBAL = "config"

_TAKES_BACK = re.compile(r"\s*(?:no|default)(\s+|$)", re.IGNORECASE)
# IOS takes a blank between an interface's kind and its number.
_INTERFACE = re.compile(r"(\bint\w*\s+[A-Za-z]+)\s+(?=\d)", re.IGNORECASE)


@dataclass(frozen=True, eq=False)
class Mode:
    """A mode: `prompt` is what stands in parentheses, `(config-isakmp)`."""

    name: str
    prompt: str
    commands: tuple[Command, ...]

    @cached_property
    def start(self) -> Node:
        """Where its lines begin."""
        return graph_of(self.commands)

    @cached_property
    def negated(self) -> Node:
        """Where what follows `no` begins."""
        return graph_of(self.commands, negated=True)


@dataclass(frozen=True, slots=True)
class Tree:
    """Commands that belong together: by the mode that they stand in, and what the prompts of new modes say."""

    commands: Mapping[str, tuple[Command, ...]]
    prompts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Line:
    """A line that was understood. `negated` lines take back; `default` ones, too, and say that nothing was said."""

    mode: str
    match: Match
    negated: bool = False


class Language:
    """All modes. The order of trees, and of commands in them, is that of a configuration that is shown."""

    def __init__(self, trees: Iterable[Tree]) -> None:
        commands: dict[str, list[Command]] = {GLOBAL: []}
        prompts = {GLOBAL: "config"}
        for tree in trees:
            prompts.update(tree.prompts)
            for mode, items in tree.commands.items():
                commands.setdefault(mode, []).extend(items)
        self.modes = {name: Mode(name, prompts[name], tuple(items)) for name, items in commands.items()}
        missing = {item.mode for mode in self.modes.values() for item in mode.commands} - {None} - set(self.modes)
        if missing:
            raise ValueError(f"no tree has the modes {missing}")

    def read(self, modes: Iterable[str], line: str) -> Line:
        """The command of a line in the first of these modes that knows it: a mode's own, then the one around it.

        Raises LineError: that of the mode which understood most.
        """
        text = _INTERFACE.sub(r"\1", line) if "int" in line.lower() else line
        errors: list[LineError] = []
        for mode in modes:
            try:
                return self._read(mode, text)
            except LineError as error:
                errors.append(error)
        raise max(errors, key=_understood)

    def _read(self, mode: str, line: str) -> Line:
        found = self.modes[mode]
        if (taken := _TAKES_BACK.match(line)) is not None:
            # Blanks in place of the word: a caret stands where it would in the line.
            return Line(mode, read_line(found.negated, " " * taken.end() + line[taken.end() :]), negated=True)
        return Line(mode, read_line(found.start, line))

    def suggest(self, mode: str, line: str) -> list[Suggestion]:
        """What `?` shows behind a line. Raises LineError."""
        found = self.modes[mode]
        if (taken := _TAKES_BACK.match(line)) is not None and taken.group(1):
            return suggest(found.negated, " " * taken.end() + line[taken.end() :])
        offered = suggest(found.start, line)
        if " " not in line.strip() and not line[-1:].isspace():
            words = (("default", "Set a command to its defaults"), ("no", "Negate a command or set its defaults"))
            offered += [Suggestion(word, help_, word) for word, help_ in words if word.startswith(line.strip().lower())]
        return sorted(offered, key=lambda item: (item.shown == "<cr>", item.shown.lower()))


def _understood(error: LineError) -> float:
    """How far a reading came before it failed."""
    column: int | None = getattr(error, "column", None)
    if column is not None:
        return column
    return float("inf") if isinstance(error, IncompleteCommand) else 1e9
