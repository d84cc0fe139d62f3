"""`labctl events`."""

from __future__ import annotations

import click

from labctl.cli.options import chosen_lab, json_option, lab_option
from labctl.cli.status import ExitStatus


@click.command("events")
@click.option("-f", "--follow", is_flag=True, help="Go on as events come, until Ctrl-C.")
@click.option("--since", type=click.IntRange(min=0), default=0, metavar="SEQ", help="Only events numbered above SEQ.")
@lab_option
@json_option
def command(follow: bool, since: int, lab: str | None, as_json: bool) -> ExitStatus:
    """Show state changes and log messages of all nodes since 'up'. With --json, one object a line (NDJSON)."""
    from labctl.cli.rendering import event_line
    from labctl.cli.terminal import write_json_line, write_line
    from labctl.lab.loop import run
    from labctl.lab.stream import events

    take = write_json_line if as_json else lambda item: write_line(event_line(item))
    run(events(chosen_lab(lab), take, follow=follow, since=since))
    return ExitStatus.OK
