"""What is wrong with a topology, and where: `file:line:column: what. hint`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """A place in a file; both count from 1, columns in characters."""

    line: int
    column: int


START = Position(1, 1)


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong. `line` and `column` are 0 where the file itself could not be read."""

    file: str
    line: int
    column: int
    what: str
    hint: str = ""

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        text = f"{place}: {self.what}"
        if not self.hint:
            return f"{text}."
        return f"{text}. {self.hint}" if self.hint.endswith(("?", ".")) else f"{text}. {self.hint}."


class TopologyErrors(Exception):
    """Everything that is wrong with a topology, in the order of the file. Its text is one line a problem."""

    def __init__(self, errors: Iterable[Problem]) -> None:
        self.errors: tuple[Problem, ...] = tuple(errors)
        super().__init__("\n".join(str(error) for error in self.errors))


class Problems:
    """Collects what is wrong while a file is read, so that the user sees it all at once."""

    def __init__(self, file: str) -> None:
        self.file = file
        self._found: list[Problem] = []

    def __bool__(self) -> bool:
        return bool(self._found)

    def add(self, at: Position, what: str, hint: str = "") -> None:
        """Note a problem. The same words at the same place count once."""
        problem = Problem(self.file, at.line, at.column, what, hint)
        if problem not in self._found:
            self._found.append(problem)

    def raise_any(self) -> None:
        """Raises TopologyErrors if anything was noted."""
        if self._found:
            raise TopologyErrors(sorted(self._found, key=lambda problem: (problem.line, problem.column)))
