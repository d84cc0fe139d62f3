"""Options and arguments that several verbs share, with their shell completion."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem

from labctl.lab.directory import LabDirectory
from labctl.lab.find import find_lab

F = TypeVar("F", bound=Callable[..., Any])


def complete_labs(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Labs that have state."""
    from labctl.lab.directory import labs

    return [CompletionItem(lab.name) for lab in labs() if lab.name.startswith(incomplete)]


def complete_nodes(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Nodes of the lab that the command line means, as its plan stands; no lab is asked."""
    from labctl.lab.standing import node_kinds

    return [
        CompletionItem(name, help=kind)
        for name, kind in node_kinds(_lab_of(ctx)).items()
        if name.startswith(incomplete) and name not in (ctx.params.get(param.name or "") or ())
    ]


def complete_capture_points(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Interfaces and links of the lab that the command line means."""
    from labctl.lab.standing import capture_points

    return [CompletionItem(point) for point in capture_points(_lab_of(ctx)) if point.startswith(incomplete)]


def complete_links(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Links of the lab that the command line means."""
    from labctl.lab.standing import link_names

    return [CompletionItem(name) for name in link_names(_lab_of(ctx)) if name.startswith(incomplete)]


def complete_checks(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Kinds of checks; their names have spaces, and are not for typing."""
    from labctl.topology.checks import CheckKind

    return [CompletionItem(kind.value) for kind in CheckKind if kind.value.startswith(incomplete)]


def complete_topologies(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Shipped topologies and files."""
    from labctl.lab.find import shipped_topologies

    shipped = [CompletionItem(name, help="shipped") for name in shipped_topologies() if name.startswith(incomplete)]
    return [*shipped, CompletionItem(incomplete, type="file")]


def lab_option(function: F) -> F:
    """`--lab NAME`: which lab, if there is more than one."""
    return click.option(
        "--lab",
        "lab",
        metavar="LAB",
        shell_complete=complete_labs,
        help="Name of the lab, or its topology file; needed only if several are up.",
    )(function)


def json_option(function: F) -> F:
    """`--json`: for programs."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(function)


def chosen_lab(word: str | None) -> LabDirectory:
    """The lab that `--lab`, the folder, or the lack of others names. Raises NoSuchLab."""
    return find_lab(word, Path.cwd())


def _lab_of(ctx: click.Context) -> LabDirectory | None:
    from labctl.lab.errors import LabError

    try:
        return chosen_lab(ctx.params.get("lab"))
    except LabError:
        return None  # nothing to offer; the command itself will say why
