"""`labctl gdoi`."""

from __future__ import annotations

from typing import Any

import click

from labctl.cli.options import chosen_lab, complete_nodes, json_option, lab_option
from labctl.cli.status import ExitStatus


@click.group("gdoi")
def command() -> None:
    """Orders to key servers and group members, as IOS has them.

    Each takes the NODE that shall do it and, where it is in several groups, one with --group.
    """


_group = click.option("--group", metavar="NAME", help="Only this group of the node.")
_node = click.argument("node", shell_complete=complete_nodes)
_member = click.argument("member", shell_complete=complete_nodes)


def _order(action: str, node: str, group: str | None, lab: str | None, **arguments: Any) -> ExitStatus:
    from labctl.cli.terminal import write_line
    from labctl.lab.gdoi import order
    from labctl.lab.loop import run

    for name in run(order(chosen_lab(lab), action, node, group, **arguments)):
        write_line(f"{node}: {action} in group {name}")
    return ExitStatus.OK


@command.command("show")
@_node
@_group
@lab_option
@json_option
def show(node: str, group: str | None, lab: str | None, as_json: bool) -> ExitStatus:
    """The groups of NODE: keys and what is left of their lives, members, rekeys. Times in lab seconds."""
    from labctl.cli.terminal import write_json, write_line
    from labctl.lab.gdoi import standing
    from labctl.lab.loop import run

    groups = run(standing(chosen_lab(lab), node, group))
    if as_json:
        write_json(groups)
        return ExitStatus.OK
    for found in groups:
        write_line(f"{found['name']} ({found['role']}, {found['state']})")
        for key, value in found.items():
            if key not in ("name", "role", "state") and value not in (None, "", [], {}):
                write_line(f"  {key.replace('_', ' '):20} {_shown(value)}")
    if not groups:
        write_line(f"{node} is in no group")
    return ExitStatus.OK


def _shown(value: Any) -> str:
    """One line for a value of a group: lists and mappings without their punctuation."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {_shown(item)}" for key, item in value.items())
    if isinstance(value, list):
        return "; ".join(_shown(item) for item in value)
    return str(value)


@command.command("rekey")
@_node
@click.option("--replace-now", is_flag=True, help="Members drop the old keys at once; a few packets may be lost.")
@_group
@lab_option
def rekey(node: str, replace_now: bool, group: str | None, lab: str | None) -> ExitStatus:
    """Key server NODE sends a rekey now ('crypto gdoi ks rekey')."""
    return _order("rekey", node, group, lab, replace_now=replace_now)


@command.command("clear-members")
@_node
@click.option(
    "--now", "at_once", is_flag=True, help="Members lose their keys at once, and traffic until they are back."
)
@_group
@lab_option
def clear_members(node: str, at_once: bool, group: str | None, lab: str | None) -> ExitStatus:
    """Key server NODE forgets its members, who register again ('clear crypto gdoi ks members')."""
    return _order("clear-members", node, group, lab, now=at_once)


@command.command("evict")
@_node
@_member
@click.option(
    "--now",
    "at_once",
    is_flag=True,
    help="No key of before lives on: packets are lost until members have the new ones.",
)
@_group
@lab_option
def evict(node: str, member: str, at_once: bool, group: str | None, lab: str | None) -> ExitStatus:
    """Key server NODE lets MEMBER in no more, and renews every key it has.

    The others register again for them or, where the group has a key tree, are sent them.
    """
    return _order("evict", node, group, lab, member=member, now=at_once)


@command.command("allow")
@_node
@_member
@_group
@lab_option
def allow(node: str, member: str, group: str | None, lab: str | None) -> ExitStatus:
    """Key server NODE lets an evicted MEMBER in again."""
    return _order("allow", node, group, lab, member=member)


@command.command("receive-only")
@_node
@click.argument("switch", type=click.Choice(["on", "off"]))
@_group
@lab_option
def receive_only(node: str, switch: str, group: str | None, lab: str | None) -> ExitStatus:
    """Key server NODE has members send in clear, and decrypt ('sa receive-only'), from the next rekey on."""
    return _order("receive-only", node, group, lab, on=switch == "on")


@command.command("direction")
@_node
@click.argument("direction", type=click.Choice(["both", "inbound-optional", "inbound-only"]))
@_group
@lab_option
def direction(node: str, direction: str, group: str | None, lab: str | None) -> ExitStatus:
    """Group member NODE turns its SAs for a while ('crypto gdoi gm group G ipsec direction').

    It counts until the member registers again, or its key server turns receive-only on or off.
    """
    return _order("direction", node, group, lab, direction=direction.replace("-", " "))


@command.command("clear")
@_node
@_group
@lab_option
def clear(node: str, group: str | None, lab: str | None) -> ExitStatus:
    """Group member NODE forgets policy and keys, and registers at once ('clear crypto gdoi')."""
    return _order("clear", node, group, lab)


@command.command("reregister")
@_node
@_group
@lab_option
def reregister(node: str, group: str | None, lab: str | None) -> ExitStatus:
    """Group member NODE registers again, and keeps its keys until then ('clear crypto sa')."""
    return _order("reregister", node, group, lab)
