"""Where every command line ends: runs the verb, and is the one place where exceptions become exit statuses.

A user sees `labctl: what. hint`; with LABCTL_DEBUG=1 the traceback as well.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence

import click

from labctl.cli import group
from labctl.cli.status import ExitStatus
from labctl.cli.terminal import complain

# What a lab's door answers, by its code; anything else is a node that does badly.
DOOR_STATUSES = {
    "bad-request": ExitStatus.INPUT,
    "unknown-node": ExitStatus.NO_LAB,
    "system": ExitStatus.ENVIRONMENT,
    "not-executable": ExitStatus.NOT_EXECUTABLE,
    "command-not-found": ExitStatus.NOT_FOUND,
}


def run(arguments: Sequence[str]) -> int:
    """Run one command line; returns the exit status and never raises but for a debugger's sake."""
    try:
        result = group.labctl.main(list(arguments), prog_name="labctl", standalone_mode=False)
        sys.stdout.flush()
        return int(result or 0)
    except (BrokenPipeError, group.ReaderLeft):
        return _reader_left()
    except (KeyboardInterrupt, click.exceptions.Abort):
        complain("interrupted")
        return ExitStatus.INTERRUPTED
    except SystemExit as leaving:
        return leaving.code if isinstance(leaving.code, int) else ExitStatus.INTERNAL
    except click.ClickException as error:
        _usage(error)
        return ExitStatus.INPUT
    except Exception as error:
        if os.environ.get("LABCTL_DEBUG"):
            traceback.print_exc()
        what, hint, status = explain(error)
        complain(what, hint)
        return status


def explain(error: Exception) -> tuple[str, str, ExitStatus]:
    """What to say about an exception, and with which status to leave."""
    from labctl.door import DoorClosed, DoorError
    from labctl.lab import errors
    from labctl.runtime import LabNotRunning, RuntimeFailure
    from labctl.topology import TopologyErrors

    statuses: list[tuple[type[errors.LabError], ExitStatus]] = [
        (errors.BadRequest, ExitStatus.INPUT),
        (errors.NoSuchLab, ExitStatus.NO_LAB),
        (errors.LabBusy, ExitStatus.BUSY),
        (errors.NotReady, ExitStatus.NOT_READY),
        (errors.TopologyChanged, ExitStatus.CHANGED),
    ]
    if isinstance(error, TopologyErrors):
        return str(error), "", ExitStatus.INPUT
    if isinstance(error, errors.LabError):
        status = next((status for kind, status in statuses if isinstance(error, kind)), ExitStatus.ENVIRONMENT)
        return error.what, error.hint, status
    if isinstance(error, LabNotRunning):
        return error.message, error.hint or "'labctl down' removes what is left", ExitStatus.NO_LAB
    if isinstance(error, RuntimeFailure):
        return error.message, error.hint, ExitStatus.ENVIRONMENT
    if isinstance(error, DoorClosed):
        return f"the lab went away: {error.message}", "'labctl ps' says what is left", ExitStatus.NO_LAB
    if isinstance(error, DoorError):
        return error.message, error.hint, DOOR_STATUSES.get(error.code, ExitStatus.NOT_READY)
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}", "", ExitStatus.INPUT
    kind = type(error).__name__
    return f"a fault of labctl itself: {kind}: {error}", "LABCTL_DEBUG=1 shows where", ExitStatus.INTERNAL


def _usage(error: click.ClickException) -> None:
    ctx = getattr(error, "ctx", None)
    complain(error.format_message(), f"'{ctx.command_path} --help' tells how" if ctx is not None else "")


def _reader_left() -> int:
    # Python flushes stdout once more at exit, and would complain about the same broken pipe again.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return ExitStatus.BROKEN_PIPE
