"""`labctl counters`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from labctl.cli.options import chosen_lab, complete_nodes, json_option, lab_option
from labctl.cli.status import ExitStatus

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table


@click.command("counters")
@click.argument("node", shell_complete=complete_nodes)
@click.option(
    "-w",
    "--watch",
    is_flag=False,
    flag_value=1.0,
    default=None,
    type=click.FloatRange(min=0.1),
    metavar="[SECONDS]",
    help="Again every second, or so many, with what has come since; until Ctrl-C.",
)
@lab_option
@json_option
def command(node: str, watch: float | None, lab: str | None, as_json: bool) -> ExitStatus:
    """What NODE has counted: its interfaces, and of a group member its SAs, policy entries and drops by reason."""
    from labctl.cli.terminal import console, write_json, write_json_line
    from labctl.lab.counters import counters_of
    from labctl.lab.loop import run

    directory = chosen_lab(lab)
    found = run(counters_of(directory, node))
    if watch is None:
        if as_json:
            write_json(found)
        else:
            screen = console()
            for block in blocks(found, None):
                screen.print(block)
        return ExitStatus.OK
    screen = console()
    before: dict[str, Any] | None = None
    while True:
        if as_json:
            write_json_line(found)
        else:
            screen.clear()  # nothing where there is no terminal
            for block in blocks(found, before):
                screen.print(block)
        time.sleep(watch)
        before, found = found, run(counters_of(directory, node))


def blocks(found: dict[str, Any], before: dict[str, Any] | None) -> list[RenderableType]:
    """The tables of a node's counters; with those of before, each number with what has come since."""
    out: list[RenderableType] = [_interfaces(found["interfaces"], (before or {}).get("interfaces", {}), before is None)]
    for name, crypto in found["crypto"].items():
        old = (before or {}).get("crypto", {}).get(name, {})
        out += ["", *_crypto(name, crypto, old, before is None)]
    return out


def _number(value: int, old: Any, first: bool) -> str:
    grown = value - int(old or 0)
    return f"{value} (+{grown})" if not first and grown else str(value)


def _interfaces(found: dict[str, Any], before: dict[str, Any], first: bool) -> Table:
    from labctl.cli.rendering import plain_table

    table = plain_table("INTERFACE", "FRAMES IN", "OUT", "OCTETS IN", "OUT", "DROPPED IN", "OUT", "ERRORS")
    for name, counts in found.items():
        old = before.get(name, {})

        def cell(key: str, counts: dict[str, int] = counts, old: dict[str, int] = old) -> str:
            return _number(counts[key], old.get(key), first)

        columns = ("rx_packets", "tx_packets", "rx_bytes", "tx_bytes", "rx_dropped", "tx_dropped")
        table.add_row(name, *(cell(key) for key in columns), str(counts["rx_errors"] + counts["tx_errors"]))
    return table


def _crypto(name: str, found: dict[str, Any], old: dict[str, Any], first: bool) -> list[RenderableType]:
    from labctl.cli.rendering import plain_table
    from labctl.lab.counters import FITTING, MEANINGS

    frames = ", ".join(
        f"{_number(count, old.get('frames', {}).get(way), first)} {way}" for way, count in found["frames"].items()
    )
    head = f"crypto map on {name}: {frames or 'no frame yet'}"
    if found.get("closed"):
        head += f"; fails close for {', '.join(found['closed'])}"
    out: list[RenderableType] = [head]
    associations = plain_table(
        "SPI", "ENCRYPTED", "DECRYPTED", "OCTETS ENCRYPTED", "OCTETS DECRYPTED", "REPLAYED", "PLAIN-TEXT MTU"
    )
    for spi, sa in found["associations"].items():
        was = old.get("associations", {}).get(spi, {})
        keys = ("encrypted", "decrypted", "octets_encrypted", "octets_decrypted", "replayed")
        associations.add_row(
            spi, *(_number(sa[key], was.get(key), first) for key in keys), str(sa.get("plaintext_mtu", ""))
        )
    entries = plain_table("POLICY ENTRY", "HITS")
    hits = {item["entry"]: item["hits"] for item in old.get("entries", [])}
    for item in found["entries"]:
        entries.add_row(item["entry"], _number(item["hits"], hits.get(item["entry"]), first))
    tunnel, tunnel_was = found.get("tunnel", {}), old.get("tunnel", {}).get("counts", {})
    fitting = plain_table("FITTED", "HOW", "")
    for how, count in sorted(tunnel.get("counts", {}).items()):
        fitting.add_row(_number(count, tunnel_was.get(how), first), how, FITTING.get(how, ""))
    paths = plain_table("PATH TO", "MTU")
    for destination, mtu in tunnel.get("paths", {}).items():
        paths.add_row(destination, str(mtu))
    drops = plain_table("DROPPED", "WHY", "")
    for reason, count in sorted(found["drops"].items(), key=lambda drop: -drop[1]):
        drops.add_row(_number(count, old.get("drops", {}).get(reason), first), reason, MEANINGS.get(reason, ""))
    for table in (associations, entries, fitting, paths, drops):
        if table.row_count:
            out += ["", table]
    return out
