"""`labctl plan`."""

from __future__ import annotations

from pathlib import Path

import click

from labctl.cli.options import complete_topologies, json_option
from labctl.cli.status import ExitStatus


@click.command("plan")
@click.argument("topology", required=False, metavar="[FILE]", shell_complete=complete_topologies)
@json_option
def command(topology: str | None, as_json: bool) -> ExitStatus:
    """Show what 'up' would make: nodes, addresses, links, groups and checks. Touches nothing."""
    from labctl.cli.plan_tables import show_plan
    from labctl.cli.terminal import console, write_json
    from labctl.lab.find import topology_file
    from labctl.lab.preview import preview

    planned = preview(topology_file(topology, Path.cwd()))
    if as_json:
        write_json(planned.as_json())
    else:
        show_plan(planned.plan, console())
    return ExitStatus.OK
