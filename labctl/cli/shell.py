"""`labctl shell`."""

from __future__ import annotations

import click

from labctl.cli.options import chosen_lab, complete_nodes, lab_option


@click.command("shell")
@click.argument("node", shell_complete=complete_nodes)
@lab_option
def command(node: str, lab: str | None) -> int:
    """Open a shell on NODE, with its own interfaces, routes and files under /run; exit as the shell did."""
    from labctl.lab.loop import run
    from labctl.lab.terminal import SHELL, run_on_terminal

    return run(run_on_terminal(chosen_lab(lab), node, SHELL))
