"""What labctl says to people: consoles that honour NO_COLOR, pipes and dumb terminals; errors on stderr.

Rich is imported when a table or a progress display is wanted, not before.
"""

from __future__ import annotations

import json
import re
import sys
from typing import IO, TYPE_CHECKING, Any, TextIO, cast

if TYPE_CHECKING:
    from rich.console import Console


def complain(what: str, hint: str = "") -> None:
    """`labctl: what. Hint.` on stderr. Lines that already say file:line:column stand for themselves."""
    text = what if _is_located(what) else f"labctl: {_sentence(what)}"
    if hint:
        text = f"{text} {_sentence(hint[0].upper() + hint[1:])}"
    try:
        sys.stderr.write(text + "\n")
        sys.stderr.flush()
    except BrokenPipeError:
        return  # nobody is left to tell


def console(*, stderr: bool = False) -> Console:
    """A rich console on stdout or stderr. Piped, a table is not folded at 80 columns, nor padded at its right."""
    from rich.console import Console

    made = Console(stderr=stderr, highlight=False, soft_wrap=False, emoji=False, markup=False)
    if made.is_terminal:
        return made
    stream = cast(IO[str], _Unpadded(sys.stderr if stderr else sys.stdout))  # all that rich asks of a stream
    return Console(file=stream, highlight=False, emoji=False, markup=False, width=200)


class _Unpadded:
    """A text stream that drops the blanks before each line's end."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        self._stream.write(re.sub(r"[ \t]+(?=\n)", "", text))
        return len(text)

    def flush(self) -> None:
        self._stream.flush()

    def isatty(self) -> bool:
        return False


def write_json(value: Any) -> None:
    """One JSON document on stdout."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_json_line(value: Any) -> None:
    """One line of NDJSON on stdout, at once, for a reader that follows."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def write_line(text: str) -> None:
    """One line on stdout, at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def remark(text: str) -> None:
    """A word to the user beside the output: on stderr."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def _sentence(text: str) -> str:
    return text if text.endswith((".", "?", "!", ":")) else text + "."


def _is_located(text: str) -> bool:
    first = text.split("\n", 1)[0].split(": ", 1)[0]
    parts = first.rsplit(":", 2)
    return len(parts) == 3 and parts[1].isdigit() and parts[2].isdigit()
