"""The notation that commands are declared in, and its tree.

    rekey retransmit {interval} number {count}      keywords, and arguments by name
    crypto isakmp keepalive {interval} [{retry}] [periodic]      what may be left out
    (any | host {source} | {source} {wildcard})     one of these

A keyword alone in brackets or in an alternative is kept as a value: its presence is what it says. It is kept under its
own name, or as `any:source-any` under another, or not at all as `128:_`, where it says what would hold without it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_TOKENS = re.compile(r"\{[a-z0-9_-]+\}|[\[\]()|]|[^\s\[\](){}|]+")


# The name of values that are not kept.
FORGOTTEN = "_"


@dataclass(frozen=True, slots=True)
class Keyword:
    """A word as it stands; `kept` is the name of the value that says it was there, empty for none."""

    text: str
    kept: str = ""


@dataclass(frozen=True, slots=True)
class Slot:
    """Where an argument goes."""

    name: str


@dataclass(frozen=True, slots=True)
class Sequence:
    """One after the other."""

    items: tuple[Pattern, ...]


@dataclass(frozen=True, slots=True)
class Optional:
    """May be left out."""

    item: Pattern


@dataclass(frozen=True, slots=True)
class Choice:
    """One of these."""

    branches: tuple[Pattern, ...]


Pattern = Keyword | Slot | Sequence | Optional | Choice


def parse_pattern(text: str) -> Sequence:
    """The tree of a declaration. Raises ValueError: a declaration is code."""
    tokens = _TOKENS.findall(text)
    if "".join(tokens) != re.sub(r"\s", "", text):
        raise ValueError(f"not a pattern: {text!r}")
    rest = iter([*tokens, ""])
    found, end = _sequence(rest, kept=False)
    if end:
        raise ValueError(f"{end!r} closes nothing: {text!r}")
    return found


def _sequence(tokens: Iterator[str], *, kept: bool) -> tuple[Sequence, str]:
    """Items up to what ends them, and that."""
    items: list[Pattern] = []
    for token in tokens:
        if token in ("", ")", "]", "|"):
            return _keep(Sequence(tuple(items)), kept), token
        if token == "[":
            items.append(Optional(_alternatives(tokens, "]")))
        elif token == "(":
            items.append(_alternatives(tokens, ")"))
        elif token.startswith("{"):
            items.append(Slot(token[1:-1]))
        else:
            text, _, name = token.partition(":")
            items.append(Keyword(text, name))
    raise AssertionError("the last token is empty")


def _alternatives(tokens: Iterator[str], closing: str) -> Pattern:
    branches: list[Pattern] = []
    while True:
        branch, end = _sequence(tokens, kept=True)
        branches.append(branch)
        if end == closing:
            return branches[0] if len(branches) == 1 else Choice(tuple(branches))
        if end != "|":
            raise ValueError(f"{closing!r} is missing")


def _keep(sequence: Sequence, kept: bool) -> Sequence:
    """Without an argument to tell by, the last keyword of a branch is what says that it was taken."""
    if not kept or any(not isinstance(item, Keyword) for item in sequence.items) or not sequence.items:
        return sequence
    last = sequence.items[-1]
    assert isinstance(last, Keyword)
    return Sequence((*sequence.items[:-1], Keyword(last.text, last.kept or last.text)))


def words_of(pattern: Pattern) -> Iterator[Keyword | Slot]:
    """Every word of a pattern, in order."""
    if isinstance(pattern, (Keyword, Slot)):
        yield pattern
    elif isinstance(pattern, Optional):
        yield from words_of(pattern.item)
    else:
        for item in pattern.items if isinstance(pattern, Sequence) else pattern.branches:
            yield from words_of(item)


def slots_of(pattern: Pattern) -> Iterator[str]:
    """Names of the values that a pattern gives, in order; a name may come twice."""
    for word in words_of(pattern):
        name = word.name if isinstance(word, Slot) else word.kept
        if name:
            yield name
