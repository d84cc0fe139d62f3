"""`down`: ends a lab and everything of it. Idempotent; finds leftovers by journal and label, never by pattern."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from labctl.lab.directory import LabDirectory, labs
from labctl.lab.errors import LabError, NoSuchLab, NothingUp
from labctl.lab.find import SUFFIXES, find_lab, state_of
from labctl.lab.lock import LabLock
from labctl.lab.runtimes import runtime_named, usable
from labctl.runtime.protocol import Leftover


@dataclass(frozen=True, slots=True)
class DownReport:
    """What there was: `had_state` if the lab had a directory, and everything that a runtime removed."""

    lab: str
    had_state: bool
    removed: tuple[Leftover, ...]

    @property
    def was_there(self) -> bool:
        """False if there was nothing to take down."""
        return self.had_state or bool(self.removed)


async def take_down(directory: LabDirectory) -> DownReport:
    """End the lab. Raises LabBusy, RuntimeFailure, or LabError if something would not go."""
    with LabLock(directory.lock, "down"):
        return await destroy(directory)


async def destroy(directory: LabDirectory) -> DownReport:
    """The same, for who holds the lab's lock already. State goes last: until then `down` can be tried again."""
    had_state = directory.exists
    state = state_of(directory)
    # Without a journal that names the runtime, whichever runtime answers is asked for what carries the lab's label.
    runtimes = [runtime_named(state.runtime)] if state.runtime else await usable()
    removed: list[Leftover] = []
    for runtime in runtimes:
        removed += await runtime.destroy(directory, state.making)
        if still := await runtime.leftovers(directory, state.making):
            what = ", ".join(f"{item.kind} {item.identity}" for item in still)
            raise LabError(f"lab {directory.name} is not gone: {what}", "'labctl down' again, or see 'labctl doctor'")
    directory.remove()
    return DownReport(directory.name, had_state, tuple(removed))


def labs_to_take_down(words: Sequence[str], everything: bool) -> list[LabDirectory]:
    """What `down` means: every lab, the named ones (with state or without), or the one that is there."""
    if everything:
        return list(labs())
    if not words:
        try:
            return [find_lab(None, Path.cwd())]
        except NothingUp:
            return []
    return [_named(word) for word in words]


def _named(word: str) -> LabDirectory:
    try:
        return find_lab(word, Path.cwd())
    except NoSuchLab:
        # A name without state: what carries the lab's label goes. A file without a lab: nothing is there.
        name = Path(word).stem if word.endswith(SUFFIXES) else word
        return LabDirectory(name)
