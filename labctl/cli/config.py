"""`labctl config`."""

from __future__ import annotations

from pathlib import Path

import click

from labctl.cli.options import chosen_lab, complete_nodes, complete_topologies, lab_option
from labctl.cli.status import ExitStatus


@click.command("config")
@click.argument("node", shell_complete=complete_nodes)
@click.argument("topology", required=False, metavar="[TOPOLOGY]", shell_complete=complete_topologies)
@click.option("--all", "defaults", is_flag=True, help="Show defaults as well.")
@lab_option
def command(node: str, topology: str | None, defaults: bool, lab: str | None) -> ExitStatus:
    """Show the configuration of NODE as IOS text, as 'show running-config' would.

    Of the lab that is up, with its keys; of a TOPOLOGY that is named, without a lab.
    """
    from labctl.lab.find import topology_file
    from labctl.lab.ios_text import planned_config, running_config

    if topology is None:
        text = running_config(chosen_lab(lab), node, defaults=defaults)
    else:
        text = planned_config(topology_file(topology, Path.cwd()), node, defaults=defaults)
    click.echo(text, nl=False)
    return ExitStatus.OK
