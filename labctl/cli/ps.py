"""`labctl ps`."""

from __future__ import annotations

import click

from labctl.cli.options import chosen_lab, json_option, lab_option
from labctl.cli.status import ExitStatus


@click.command("ps")
@lab_option
@json_option
def command(lab: str | None, as_json: bool) -> ExitStatus:
    """Show the labs, and of each its nodes, groups, readiness, and why a node is not ready."""
    from labctl.cli.rendering import lab_statuses
    from labctl.cli.terminal import console, write_json
    from labctl.configuration import to_json
    from labctl.lab.directory import labs
    from labctl.lab.loop import run
    from labctl.lab.ps import lab_status

    directories = [chosen_lab(lab)] if lab is not None else list(labs())
    statuses = [run(lab_status(directory)) for directory in directories]
    if as_json:
        write_json({"labs": to_json(tuple(statuses))})
    else:
        lab_statuses(statuses, console())
    return ExitStatus.OK
