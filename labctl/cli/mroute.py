"""`labctl mroute`."""

from __future__ import annotations

import click

from labctl.cli.options import chosen_lab, complete_nodes, json_option, lab_option
from labctl.cli.status import ExitStatus


@click.command("mroute")
@click.argument("node", shell_complete=complete_nodes)
@lab_option
@json_option
def command(node: str, lab: str | None, as_json: bool) -> ExitStatus:
    """Multicast routing of router NODE: its neighbours, who wants which group, and the way flows take.

    LEVEL counts the routers between one and the provider's core; the core itself is 0.
    """
    from labctl.cli.rendering import plain_table
    from labctl.cli.terminal import console, write_json
    from labctl.lab.loop import run
    from labctl.lab.multicast import multicast_of

    found = run(multicast_of(chosen_lab(lab), node))
    if as_json:
        write_json(found)
        return ExitStatus.OK
    screen = console()
    screen.print(f"{node}: level {found['level']}")
    neighbours = plain_table("NEIGHBOUR", "INTERFACE", "LEVEL")
    for item in found["neighbours"]:
        neighbours.add_row(item["address"], item["interface"], str(item["level"]))
    groups = plain_table("GROUP", "WANTED ON")
    for group, interfaces in found["groups"].items():
        groups.add_row(group, ", ".join(interfaces))
    flows = plain_table("SOURCE", "GROUP", "FROM", "TO", "PACKETS")
    for flow in found["flows"]:
        outgoing = ", ".join(flow["outgoing"]) or "-"
        flows.add_row(flow["source"], flow["group"], flow["incoming"] or "-", outgoing, str(flow["packets"]))
    for table in (neighbours, groups, flows):
        if table.row_count:
            screen.print()
            screen.print(table)
    return ExitStatus.OK
