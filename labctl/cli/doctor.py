"""`labctl doctor`."""

from __future__ import annotations

import click

from labctl.cli.options import json_option
from labctl.cli.status import ExitStatus


@click.command("doctor")
@json_option
def command(as_json: bool) -> ExitStatus:
    """Say what this machine can do, what is missing, and how to get it. Touches nothing."""
    from labctl.cli.rendering import diagnosis_table
    from labctl.cli.terminal import console, write_json
    from labctl.configuration import to_json
    from labctl.lab.doctor import diagnose
    from labctl.lab.loop import run

    found = run(diagnose())
    if as_json:
        write_json({**to_json(found), "can_run_labs": found.can_run_labs})
    else:
        diagnosis_table(found, console())
    return ExitStatus.OK if found.can_run_labs else ExitStatus.ENVIRONMENT
