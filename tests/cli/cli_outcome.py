"""What one command line came to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Outcome:
    """One command's end."""

    status: int
    stdout: str
    stderr: str


Labctl = Callable[..., Outcome]
