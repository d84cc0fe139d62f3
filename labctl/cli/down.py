"""`labctl down`."""

from __future__ import annotations

import click

from labctl.cli.options import complete_labs, json_option
from labctl.cli.status import ExitStatus


@click.command("down")
@click.argument("names", nargs=-1, metavar="[LAB]...", shell_complete=complete_labs)
@click.option("--lab", "lab", metavar="LAB", shell_complete=complete_labs, help="The same as naming it.")
@click.option("--all", "everything", is_flag=True, help="Every lab of yours.")
@json_option
def command(names: tuple[str, ...], lab: str | None, everything: bool, as_json: bool) -> ExitStatus:
    """Take labs down: every process, link, container and file of theirs goes.

    LAB is a lab's name or its topology file; without it, the lab that is up. It is fine if there is none, and what
    a killed 'up' or a dead supervisor left goes as well.
    """
    from labctl.cli.rendering import down_reports
    from labctl.cli.terminal import console, write_json
    from labctl.configuration import to_json
    from labctl.lab.down import labs_to_take_down, take_down
    from labctl.lab.loop import run

    directories = labs_to_take_down((*names, *([lab] if lab else ())), everything)
    reports = [run(take_down(directory)) for directory in directories]
    if as_json:
        write_json({"labs": to_json(tuple(reports))})
    else:
        down_reports(reports, console())
    return ExitStatus.OK
