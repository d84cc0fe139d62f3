"""A line of IOS-like words, read one word at a time, each with the column it stands at.

Shared by access lists and transform sets; topology YAML and the IOS language both end in these words.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import NoReturn


class WordError(ValueError):
    """A word does not fit. `column` counts from 0 in the line; `hint` may be empty."""

    def __init__(self, problem: str, hint: str = "", column: int = 0) -> None:
        super().__init__(problem)
        self.problem = problem
        self.hint = hint
        self.column = column


class Words:
    """The words of one line, in order."""

    def __init__(self, line: str) -> None:
        self.line = line
        self._words = [(match.group(), match.start()) for match in re.finditer(r"\S+", line)]
        self._next = 0

    @property
    def at_end(self) -> bool:
        """True when every word was taken."""
        return self._next >= len(self._words)

    @property
    def column(self) -> int:
        """Where the next word stands, or the end of the line."""
        return len(self.line.rstrip()) if self.at_end else self._words[self._next][1]

    def peek(self) -> str:
        """The next word, in lower case, or an empty string at the end."""
        return "" if self.at_end else self._words[self._next][0].lower()

    def take(self, what: str, hint: str = "") -> str:
        """The next word as it was written. Raises WordError if there is none; `what` names what is missing."""
        if self.at_end:
            raise WordError(f"{self.line.strip()!r} ends where {what} should follow", hint, self.column)
        word = self._words[self._next][0]
        self._next += 1
        return word

    def fail(self, problem: str, hint: str = "") -> NoReturn:
        """Raise WordError at the word that was taken last."""
        column = self._words[self._next - 1][1] if self._next else 0
        raise WordError(problem, hint, column)

    def finish(self, hint: str = "") -> None:
        """Raises WordError if words are left."""
        if not self.at_end:
            word, column = self._words[self._next]
            raise WordError(f"{word!r} is one word too many", hint, column)


def did_you_mean(word: str, known: Iterable[str], otherwise: str = "") -> str:
    """`did you mean 'x'?`, or `one of: a, b, c, otherwise` where nothing is close."""
    choices = list(known)
    lowered = [choice.lower() for choice in choices]
    # A number that is off by a digit is a different number, not a slip of the finger.
    close = [] if word.isdigit() else difflib.get_close_matches(word.lower(), lowered, n=1, cutoff=0.6)
    if close:
        return f"did you mean {next(choice for choice in choices if choice.lower() == close[0])!r}?"
    choices += [otherwise] if otherwise else []
    return f"one of: {', '.join(choices)}" if choices else ""
