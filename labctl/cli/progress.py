"""Draws what `up` does: one line a node with its state while it runs, then a table of the time each phase took.

On a terminal the lines are drawn in place; elsewhere (a pipe, a CI log, TERM=dumb) each change is a plain line.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from types import TracebackType
from typing import TYPE_CHECKING

from labctl.cli.terminal import console
from labctl.lab.progress import NodeChanged, Note, PhaseBegan, PhaseEnded, ProgressEvent

if TYPE_CHECKING:
    from rich.live import Live
    from rich.table import Table
    from rich.text import Text

PHASES = {
    "keys": "making keys and certificates",
    "image": "building the node image",
    "start": "starting the lab",
    "create": "creating nodes",
    "build": "wiring and booting nodes",
    "ready": "waiting for readiness",
    "remove": "removing what changed",
}

STYLES = {"ready": "green", "failed": "bold red", "booting": "yellow", "wired": "cyan", "created": "cyan"}

# Lines the live display leaves to what is around it.
MARGIN = 4


class PlainProgress:
    """A line a change, on stderr: stdout is for results."""

    def __enter__(self) -> PlainProgress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def __call__(self, event: ProgressEvent) -> None:
        """Tell one event."""
        match event:
            case NodeChanged(node, state, reason, elapsed):
                # Only what a reader of a log wants: the end of each node's way.
                if state in ("ready", "failed"):
                    said = f"{node}: {state}" + (f": {reason}" if reason else "")
                    sys.stderr.write(f"{said} ({elapsed:.2f} s)\n")
            case PhaseBegan(name):
                sys.stderr.write(f"{PHASES.get(name, name)}\n")
            case PhaseEnded():
                return
            case Note(text):
                sys.stderr.write(text + "\n")
        sys.stderr.flush()


class LiveProgress:
    """The same, drawn in place on a terminal."""

    def __init__(self, nodes: Iterable[str]) -> None:
        self._states: dict[str, NodeChanged] = {name: NodeChanged(name, "", "", 0.0) for name in nodes}
        self._phase = ""
        self._console = console(stderr=True)
        self._live: Live | None = None

    def __enter__(self) -> LiveProgress:
        from rich.live import Live

        self._live = Live(console=self._console, get_renderable=self._table, refresh_per_second=12, transient=True)
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def __call__(self, event: ProgressEvent) -> None:
        """Take one event into the picture."""
        match event:
            case NodeChanged(node):
                self._states[node] = event
            case PhaseBegan(name):
                self._phase = PHASES.get(name, name)
            case PhaseEnded():
                self._phase = ""
            case Note(text):
                self._console.print(text)

    def _table(self) -> Table:
        from rich.table import Table

        table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
        room = max(1, self._console.height - MARGIN)
        # A lab larger than the screen shows the nodes that are not ready: those are what one waits for.
        shown = list(self._states.values())
        if len(shown) > room:
            shown = [item for item in shown if item.state != "ready"][:room]
        for item in shown:
            style = STYLES.get(item.state, "dim")
            took = f"{item.elapsed:.2f} s" if item.elapsed else ""
            table.add_row(item.node, _text(item.state or "waiting", style), took, _text(item.reason, "dim"))
        ready = sum(item.state == "ready" for item in self._states.values())
        table.add_row(_text(f"{ready}/{len(self._states)}", "bold"), _text(self._phase, "dim"), "", "")
        return table


def progress_display(nodes: Iterable[str]) -> PlainProgress | LiveProgress:
    """What suits where stderr goes."""
    return LiveProgress(nodes) if console(stderr=True).is_terminal and sys.stderr.isatty() else PlainProgress()


def _text(words: str, style: str) -> Text:
    from rich.text import Text

    return Text(words, style=style, overflow="ellipsis", no_wrap=True)
