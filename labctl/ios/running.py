"""A configuration as statements: what was said, in the sections of modes; read from lines and written as lines."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from labctl.ios.grammar.command import Command
from labctl.ios.grammar.language import GLOBAL, Language, Line
from labctl.ios.grammar.reader import InvalidInput, LineError

# Lists number their entries by this, unless they are told a number.
STEP = 10


class NotSupported(LineError):
    """A command that IOS has, and labctl understands but does not do."""

    def __init__(self, line: str) -> None:
        super().__init__(f"% '{line}' is not supported by labctl")


@dataclass(slots=True)
class Statement:
    """A command that was said, and what was said in the mode that it opens. `negated`: what is off, and shown so."""

    command: Command
    values: dict[str, Any]
    section: Section | None = None
    negated: bool = False

    @property
    def text(self) -> str:
        """Its line."""
        return f"no {self.command.off}" if self.negated else self.command.spelled(self.values)


@dataclass(slots=True)
class Section:
    """The statements of one mode, in the order in which a configuration shows them."""

    mode: str
    statements: list[Statement] = field(default_factory=list)
    _known: dict[tuple[Any, ...], Statement] = field(default_factory=dict, repr=False, compare=False)

    def add(self, said: Statement) -> None:
        """One more, at the end."""
        self.statements.append(said)
        self._known[_key(said.command, said.values)] = said

    def remove(self, said: Statement) -> None:
        """One less."""
        self.statements.remove(said)
        self._known.pop(_key(said.command, said.values), None)

    def all(self, command: Command) -> list[Statement]:
        """Every statement of a command."""
        return [item for item in self.statements if item.command is command]

    def one(self, command: Command) -> dict[str, Any] | None:
        """The values of a command that is said once at most; None where it was not, or was taken back."""
        found = self.all(command)
        return found[0].values if found and not found[0].negated else None

    def section(self, command: Command, **values: Any) -> Section | None:
        """What was said in the mode of the statement with these values as its key."""
        found = self.find(command, values)
        return None if found is None else found.section

    def find(self, command: Command, values: Mapping[str, Any]) -> Statement | None:
        """The statement that another with these values would take the place of."""
        return self._known.get(_key(command, values))


def _key(command: Command, values: Mapping[str, Any]) -> tuple[Any, ...]:
    return (command, *(values.get(name) for name in command.key))


class Running:
    """A configuration that lines change one by one, as in `configure terminal`.

    `context` is where the next line is read: the sections from the outermost to that of the mode.
    """

    def __init__(self, language: Language) -> None:
        self._language = language
        self.root = Section(GLOBAL)
        self.context = [self.root]

    @property
    def mode(self) -> str:
        """The name of the mode that the next line is read in."""
        return self.context[-1].mode

    @property
    def prompt(self) -> str:
        """What stands in the prompt's parentheses."""
        return self._language.modes[self.mode].prompt

    def leave(self) -> bool:
        """`exit`: the mode around this one. False in the outermost."""
        if len(self.context) == 1:
            return False
        self.context.pop()
        return True

    def home(self) -> None:
        """The outermost mode."""
        del self.context[1:]

    def enter(self, line: str) -> Statement | None:
        """A line. Returns what it said, None for one that took back or said nothing. Raises LineError."""
        stripped = line.strip()
        if not stripped or stripped.startswith("!"):
            return None
        read = self._language.read([section.mode for section in reversed(self.context)], line)
        if read.match.command.unsupported:
            raise NotSupported(read.match.command.spelled(read.match.values))
        depth = next(number for number in reversed(range(len(self.context))) if self.context[number].mode == read.mode)
        context = self.context[: depth + 1]
        if read.negated:
            _take_back(context[-1], read)
            self.context = context
            return None
        said = self._say(context[-1], read)
        self.context = context if said.section is None else [*context, said.section]
        return said

    def load(self, text: str) -> None:
        """Lines of a file, from the outermost mode on. Raises LoadError at the first that is none, undoing nothing."""
        self.home()
        for number, line in enumerate(text.splitlines(), start=1):
            word = line.strip().lower()
            if word == "exit":
                self.leave()
                continue
            if word == "end":
                self.home()
                continue
            if line[:1] not in (" ", "!", "") and len(self.context) > 1:
                self.home()  # in a file, a line at the left edge belongs to the outermost mode
            try:
                self.enter(line)
            except LineError as error:
                raise LoadError(number, line, error) from None
        self.home()

    def lines(self, *, defaults: bool = False) -> list[str]:
        """The configuration as `show running-config` has it; with `defaults`, what nobody would have to say as well."""
        return list(_separated(_lines(self.root, self._language, 0, defaults)))

    def _say(self, section: Section, read: Line) -> Statement:
        command, values = read.match.command, read.match.values
        known = section.find(command, values)
        if command.numbered:
            return _numbered(section, command, values, known)
        if known is not None:
            known.values, known.negated = values, False
            return known
        said = Statement(command, values, None if command.mode is None else Section(command.mode))
        section.add(said)
        return said


class LoadError(LineError):
    """A line of a file that is no command. `number` counts from 1."""

    def __init__(self, number: int, line: str, error: LineError) -> None:
        self.number, self.line, self.error = number, line, error
        marked = error.marked(0) if isinstance(error, InvalidInput) else str(error)
        super().__init__(f"line {number}: {line}\n{' ' * len(f'line {number}: ')}{marked}")


def _numbered(section: Section, command: Command, values: dict[str, Any], known: Statement | None) -> Statement:
    """An entry of a list that is ordered by its numbers."""
    if known is not None:
        return known  # said before: it stays where it is
    last = section.statements[-1].values["sequence"] if section.statements else 0  # a list holds nothing else
    sequence = values.get("sequence")
    said = Statement(command, {**values, "sequence": STEP * (last // STEP + 1) if sequence is None else sequence})
    if sequence is not None and sequence <= last:
        _remove_number(section, sequence)
        section.add(said)
        section.statements.sort(key=lambda item: int(item.values["sequence"]))
    else:
        section.add(said)
    return said


def _remove_number(section: Section, sequence: int) -> None:
    for item in section.statements:
        if item.values.get("sequence") == sequence:
            section.remove(item)
            return


def _take_back(section: Section, read: Line) -> None:
    command, values = read.match.command, read.match.values
    if command.numbered and set(values) == {"sequence"}:
        _remove_number(section, values["sequence"])
        return
    known = section.find(command, values)
    if command.off is not None:
        if known is None:
            section.add(Statement(command, {}, negated=True))
        else:
            known.values, known.negated = {}, True
    elif known is not None:
        section.remove(known)


def _separated(lines: Iterable[str]) -> Iterator[str]:
    """With a `!` before and after what opens a mode."""
    block = False
    for line in lines:
        inner = line.startswith(" ")
        if block and not inner:
            yield "!"
        block = inner
        yield line


def _lines(section: Section, language: Language, depth: int, defaults: bool) -> Iterator[str]:
    indent = " " * depth
    for command in language.modes[section.mode].commands:
        said: Iterable[Statement] = section.all(command)
        if command.sort:
            said = sorted(said, key=lambda item: [item.values.get(name) for name in command.key])
        for item in said:
            if not defaults and command.default is not None and not item.negated and item.values == command.default:
                continue
            yield indent + item.text
            if item.section is not None:
                yield from _lines(item.section, language, depth + 1, defaults)
        if defaults and command.default is not None and not section.all(command):
            yield indent + command.spelled(command.default)
