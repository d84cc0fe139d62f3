"""`labctl check`."""

from __future__ import annotations

from pathlib import Path

import click

from labctl.cli.options import complete_topologies, json_option
from labctl.cli.status import ExitStatus


@click.command("check")
@click.argument("topology", required=False, metavar="[FILE]", shell_complete=complete_topologies)
@json_option
def command(topology: str | None, as_json: bool) -> ExitStatus:
    """Say everything that is wrong with a topology, each as file:line:column, what, and a hint. Touches nothing."""
    from labctl.cli.terminal import write_json, write_line
    from labctl.configuration import to_json
    from labctl.lab.find import topology_file
    from labctl.lab.preview import preview
    from labctl.topology import TopologyErrors

    path = topology_file(topology, Path.cwd())
    try:
        found = preview(path)
    except TopologyErrors as wrong:
        if not as_json:
            raise
        write_json({"file": str(path), "errors": to_json(wrong.errors)})
        return ExitStatus.INPUT
    if as_json:
        write_json({"file": str(path), "errors": []})
    else:
        write_line(f"{path}: fine. {found.summary}.")
    return ExitStatus.OK
