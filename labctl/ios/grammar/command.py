"""A command as it is declared, and a line that says it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from labctl.ios.grammar.arguments import Argument
from labctl.ios.grammar.pattern import (
    Choice,
    Keyword,
    Optional,
    Pattern,
    Sequence,
    Slot,
    parse_pattern,
    slots_of,
    words_of,
)


@dataclass(frozen=True, eq=False)
class Command:
    """One command of a mode.

    `pattern` is labctl.ios.grammar.pattern's notation, `arguments` says what its slots take. `key` names the values
    that tell two statements of the command apart: a second one with the same key takes the first one's place. `mode`
    is the mode that it opens. `helps` are the words beside keywords in `?`. `default` are values that IOS does not
    show because nothing else was said; `negated` is the pattern behind `no`, by default this one with everything behind
    the key left to choice. `off` is what stands behind the `no` that is shown for what is on unless it is taken back.
    `numbered` statements are a list, ordered by their value `sequence`, which is not shown; `sort` ones are shown in
    the order of their keys. `unsupported` commands are understood, and refused.
    """

    pattern: str
    arguments: Mapping[str, Argument] = field(default_factory=dict)
    key: tuple[str, ...] = ()
    mode: str | None = None
    helps: Mapping[str, str] = field(default_factory=dict)
    default: Mapping[str, Any] | None = None
    negated: str | None = None
    off: str | None = None
    numbered: bool = False
    sort: bool = False
    unsupported: bool = False
    tree: Sequence = field(init=False, repr=False)
    negation: Sequence = field(init=False, repr=False)

    def __post_init__(self) -> None:
        tree = parse_pattern(self.pattern)
        missing = {word.name for word in words_of(tree) if isinstance(word, Slot)} - set(self.arguments)
        if missing or not set(self.key) <= set(slots_of(tree)):
            raise ValueError(f"{self.pattern!r} does not say what {missing or self.key} are")
        object.__setattr__(self, "tree", tree)
        negation = _negation(tree, self.key) if self.negated is None else parse_pattern(self.negated)
        object.__setattr__(self, "negation", negation)

    def spelled(self, values: Mapping[str, Any]) -> str:
        """The line, whole and in IOS's spelling, that gives these values again."""
        if self.numbered:
            values = {name: value for name, value in values.items() if name != "sequence"}
        return " ".join(self._words(self.tree, values))

    def _words(self, pattern: Pattern, values: Mapping[str, Any]) -> list[str]:
        if isinstance(pattern, Keyword):
            return [pattern.text]
        if isinstance(pattern, Slot):
            return [self.arguments[pattern.name].write(values[pattern.name])]
        if isinstance(pattern, Sequence):
            return [word for item in pattern.items for word in self._words(item, values)]
        branches = (pattern.item,) if isinstance(pattern, Optional) else pattern.branches
        said = [branch for branch in branches if _said(branch, values)]
        # `{a} {b}` says more than `{a}`: of the branches whose values are there, the one that says most of them.
        return (
            self._words(max(said, key=lambda branch: len(set(slots_of(branch)) & set(values))), values) if said else []
        )


def _said(pattern: Pattern, values: Mapping[str, Any]) -> bool:
    """The values are such that this branch was taken: all that it must give are there."""
    needed = set(_needed(pattern))
    if not needed:
        return any(name in values for name in slots_of(pattern))
    return all(name in values for name in needed)


def _needed(pattern: Pattern) -> list[str]:
    if isinstance(pattern, Sequence):
        return [name for item in pattern.items for name in _needed(item)]
    if isinstance(pattern, Choice):
        return []
    return [] if isinstance(pattern, Optional) else list(slots_of(pattern))


def _negation(tree: Sequence, key: tuple[str, ...]) -> Sequence:
    """Everything up to the last part that has a key stays, or up to the first value; the rest may be left out."""
    parts = tree.items
    last = max((number for number, part in enumerate(parts) if set(slots_of(part)) & set(key)), default=None)
    if last is None:
        last = next((number for number, part in enumerate(parts) if not isinstance(part, Keyword)), len(parts)) - 1
    rest = parts[last + 1 :]
    if not rest:
        return tree
    return Sequence((*parts[: last + 1], _as_far_as_said(rest)))


def _as_far_as_said(parts: tuple[Pattern, ...]) -> Optional:
    """These parts, or the first few of them, or none."""
    head, rest = parts[0], parts[1:]
    inner = head.item if isinstance(head, Optional) else head
    if not rest:
        return Optional(inner)
    if isinstance(head, Optional):
        return Optional(Choice((Sequence((inner, _as_far_as_said(rest))), _as_far_as_said(rest).item)))
    return Optional(Sequence((inner, _as_far_as_said(rest))))
