"""`labctl isakmp`."""

from __future__ import annotations

from typing import Any

import click

from labctl.cli.options import chosen_lab, complete_nodes, json_option, lab_option
from labctl.cli.status import ExitStatus


@click.group("isakmp")
def command() -> None:
    """Phase 1 (IKE) of key servers and group members."""


@command.command("show")
@click.argument("node", shell_complete=complete_nodes)
@lab_option
@json_option
def show(node: str, lab: str | None, as_json: bool) -> ExitStatus:
    """Phase 1 of NODE: its SAs, exchanges under way, and counters ('show crypto isakmp sa').

    LEFT is what remains of an SA's life, in lab seconds. What ends is not made anew before it is needed: data and
    rekeys go on without it.
    """
    from labctl.cli.rendering import plain_table
    from labctl.cli.terminal import console, write_json
    from labctl.lab.isakmp import isakmp_of
    from labctl.lab.loop import run

    found = run(isakmp_of(chosen_lab(lab), node))
    if as_json:
        write_json(found)
        return ExitStatus.OK
    screen = console()
    if found["associations"]:
        table = plain_table("PEER", "LOCAL", "ROLE", "STATE", "LEFT", "AUTH", "CIPHER", "HASH", "DH", "IDENTITY")
        for item in found["associations"]:
            table.add_row(*_row(item))
        screen.print(table)
    else:
        screen.print(f"{node} has no phase-1 SA")
    counters = plain_table("COUNTER", "COUNT")
    for name, count in found["counters"].items():
        counters.add_row(name.replace("_", " "), str(count))
    screen.print()
    screen.print(counters)
    return ExitStatus.OK


def _row(item: dict[str, Any]) -> list[str]:
    """The cells of an SA or of an exchange under way."""
    return [
        f"{item['peer']}:{item['port']}",
        item["local"],
        "initiator" if item["initiator"] else "responder",
        item["state"],
        "-" if item["left"] is None else f"{item['left']:.0f} s",
        item["authentication"] or "-",
        item["encryption"] or "-",
        item["hash"] or "-",
        "-" if item["group"] is None else str(item["group"]),
        item["identity"] or "-",
    ]
