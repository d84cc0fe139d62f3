"""`labctl bench`."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import click

from labctl.cli.options import json_option
from labctl.cli.status import ExitStatus

if TYPE_CHECKING:
    from rich.table import Table

    from labctl.measure.isolated import Measured

DEFAULT = "esp-gcm 256"


@click.command("bench")
@click.option(
    "--transform", "transforms", multiple=True, metavar="SET", help=f"Transform set of the members ({DEFAULT})."
)
@click.option("--rounds", type=click.IntRange(1, 20), default=1, help="Measure so many times, show the best.")
@click.option("--seconds", type=click.FloatRange(0.05, 60), help="How long packets of one rate are sent (1).")
@json_option
def command(transforms: tuple[str, ...], rounds: int, seconds: float | None, as_json: bool) -> ExitStatus:
    """Measure what two group members carry on this machine, beside plain forwarding.

    No lab is needed or touched: hosts, members and the wire between them are in namespaces of their own. --transform
    may be said again.

    \b
    labctl bench
    labctl bench --transform 'esp-gcm 128' --transform 'esp-aes 256 esp-sha256-hmac'
    """
    from labctl.cli.terminal import console, remark, write_json
    from labctl.configuration.transform_set import parse_transform_set
    from labctl.configuration.words import WordError
    from labctl.lab.errors import BadRequest, LabError
    from labctl.measure.isolated import QUICK, Unmeasurable, measure_pairs
    from labctl.measure.traffic import tcp_generator

    wanted = list(dict.fromkeys(" ".join(text.split()) for text in transforms or (DEFAULT,)))
    for text in wanted:
        try:
            parse_transform_set(text)
        except WordError as error:
            raise BadRequest(f"--transform {text!r}: {error.problem}", error.hint) from None
    effort = QUICK if seconds is None else replace(QUICK, seconds=seconds, streams=3 * seconds)
    try:
        found = measure_pairs(wanted, remark, rounds=rounds, effort=effort)
    except Unmeasurable as error:
        raise LabError(str(error), error.hint) from None
    if as_json:
        write_json(
            {**_machine(), "rounds": rounds, "tcp_by": tcp_generator(), "pairs": [asdict(item) for item in found]}
        )
    else:
        facts = _machine()
        screen = console()
        screen.print(table(found))
        screen.print(
            f"{facts['cores']} cores, load {facts['load']:.1f}, Linux {facts['kernel']}, Python {facts['python']}; "
            f"TCP by {tcp_generator()}. Hosts share the cores with the members, as in a lab."
        )
    return ExitStatus.OK


def table(found: Sequence[Measured]) -> Table:
    """A column a pair, plain forwarding first; behind what members do, how that compares."""
    from rich.table import Table

    plain, *members = found
    made = Table("", box=None, pad_edge=False, header_style="bold")
    made.add_column("FORWARDING", justify="right")
    for item in members:
        made.add_column(item.transform, justify="right")
        made.add_column("", justify="right", style="dim")
    rows: list[tuple[str, str, str, list[float]]] = [
        *(
            (f"packets of {size:,} octets", "{:,.0f} /s", "share", [item.figures.packets[size] for item in found])
            for size in sorted(plain.figures.packets)
        ),
        ("TCP stream", "{:,.0f} Mbit/s", "share", [item.figures.tcp for item in found]),
        ("round trip", "{:.3f} ms", "added", [item.figures.ping for item in found]),
        *(
            (f"CPU a packet of {size:,}", "{:.1f} us", "", [item.figures.cpu[size] for item in found])
            for size in sorted(plain.figures.cpu)
        ),
    ]
    for name, form, comparison, (base, *values) in rows:
        # Forwarding is the kernel's alone: it has no process whose time could be told.
        cells = ["-" if comparison == "" else form.format(base)]
        for value in values:
            cells += [form.format(value), _compared(comparison, base, value)]
        made.add_row(name, *cells)
    return made


def _compared(how: str, base: float, value: float) -> str:
    if how == "share":
        return f"{value / base:.0%}" if base else ""
    return f"{value - base:+.3f}" if how == "added" else ""


def _machine() -> dict[str, Any]:
    return {
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "kernel": platform.release(),
        "python": platform.python_version(),
    }
