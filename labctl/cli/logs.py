"""`labctl logs`."""

from __future__ import annotations

import click

from labctl.cli.options import chosen_lab, complete_nodes, json_option, lab_option
from labctl.cli.status import ExitStatus


@click.command("logs")
@click.argument("nodes", nargs=-1, metavar="[NODE]...", shell_complete=complete_nodes)
@click.option("-f", "--follow", is_flag=True, help="Go on as lines come, until Ctrl-C.")
@click.option("-n", "--lines", type=click.IntRange(min=0), metavar="N", help="Only the last N lines of each node.")
@lab_option
@json_option
def command(nodes: tuple[str, ...], follow: bool, lines: int | None, lab: str | None, as_json: bool) -> ExitStatus:
    """Show what NODEs log, in the words of IOS; without NODE, all of them. With --json, one object a line."""
    from labctl.cli.rendering import log_line
    from labctl.cli.terminal import write_json_line, write_line
    from labctl.lab.loop import run
    from labctl.lab.stream import logs

    take = write_json_line if as_json else lambda item: write_line(log_line(item))
    run(logs(chosen_lab(lab), nodes, take, follow=follow, lines=lines))
    return ExitStatus.OK
