"""`labctl impair`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from labctl.cli.options import chosen_lab, complete_links, complete_nodes, json_option, lab_option
from labctl.cli.status import ExitStatus

if TYPE_CHECKING:
    from rich.table import Table

    from labctl.lab.impairments import ImpairedLink


@click.command("impair")
@click.argument("link", required=False, shell_complete=complete_links)
@click.option("--delay", metavar="TIME", help="How much longer frames take: '20 ms'.")
@click.option("--jitter", metavar="TIME", help="By how much the delay varies, up and down.")
@click.option("--loss", metavar="SHARE", help="Share of frames lost: '0.5 %'.")
@click.option("--burst", type=click.FloatRange(1, 1000), default=1.0, help="Mean number of frames lost in a row.")
@click.option("--duplicate", metavar="SHARE", help="Share of frames that come twice.")
@click.option("--reorder", metavar="SHARE", help="Share of frames that the next one overtakes.")
@click.option("--corrupt", metavar="SHARE", help="Share of frames with one bit turned.")
@click.option("--rate", metavar="RATE", help="Bits a second: '10 Mbit/s'.")
@click.option("--queue", type=click.IntRange(1, 100_000), default=1000, help="Frames that may wait for the rate.")
@click.option("--from", "sender", metavar="NODE", shell_complete=complete_nodes, help="Only frames that NODE sends.")
@click.option("--only", metavar="FILTER", help="Only what this capture filter takes: 'udp port 848'.")
@click.option("--packets", metavar="N", help="Of those only some, counted from 1: '3', '1-5, 8'.")
@click.option("--seed", type=click.IntRange(min=0), default=0, help="Another number is another course of chance.")
@click.option("--add", is_flag=True, help="Keep the link's other rules, behind this one.")
@click.option("--clear", is_flag=True, help="A bare wire again; without LINK, every link.")
@lab_option
@json_option
def command(link: str | None, *, add: bool, clear: bool, lab: str | None, as_json: bool, **rule: Any) -> ExitStatus:
    """What a link does to packets, from now on. Without options: what links do, and to how many packets.

    A link is named as 'labctl plan' does, or by its two nodes: 'pe1--p1'. Times are real, not the lab clock's.

    \b
    labctl impair pe1--p1 --delay '20 ms' --jitter '5 ms' --loss '0.5 %'
    labctl impair pe2--ce2 --from pe2 --only 'udp port 848' --packets 3 --loss '100 %'
    labctl impair pe1--p1 --clear
    """
    from labctl.cli.terminal import console, write_json, write_line
    from labctl.configuration import to_json
    from labctl.impairment.reading import RuleWords
    from labctl.lab.impairments import clear as clear_links
    from labctl.lab.impairments import impair, impaired_links
    from labctl.lab.loop import run

    words = RuleWords(**rule)
    directory = chosen_lab(lab)
    if clear:
        cleared = run(clear_links(directory, link))
        if as_json:
            write_json(cleared)
        else:
            for name in cleared:
                write_line(f"{name}: a bare wire again")
            if not cleared:
                write_line(f"{link or 'No link'} was {'not ' if link else ''}impaired: nothing to do.")
        return ExitStatus.OK
    if words.says_nothing:
        if words != RuleWords() or add:
            raise click.UsageError("say what the link does: --delay, --loss, --reorder, ...")
        found = [item for item in run(impaired_links(directory)) if link is None or _is_meant(directory, link, item)]
        if as_json:
            write_json(to_json(tuple(found)))
        elif found:
            console().print(_table(found))
        else:
            write_line("No link is impaired." if link is None else f"{link} is not impaired.")
        return ExitStatus.OK
    if link is None:
        raise click.UsageError("say which link, for example pe1--p1")
    done = run(impair(directory, link, words, add=add))
    if as_json:
        write_json(to_json(done))
    else:
        for described in done.rules:
            write_line(f"{done.name}: {described}")
    return ExitStatus.OK


def _is_meant(directory: Any, word: str, item: ImpairedLink) -> bool:
    from labctl.lab.links import link_named
    from labctl.lab.standing import standing_plan

    return link_named(standing_plan(directory), word).name == item.name


def _table(links: list[ImpairedLink]) -> Table:
    from labctl.cli.rendering import plain_table

    table = plain_table("LINK", "FROM", "PASSED", "WHAT IT DOES", "TO FRAMES")
    for item in links:
        name = item.name
        for sender, counts in item.senders.items():
            passed = str(counts["passed"])
            shown = [rule for rule in item.rules if not rule.partition("'s: ")[1] or rule.startswith(f"{sender}'s: ")]
            for rule, did in zip(shown, counts["rules"], strict=True):
                effects = ", ".join(f"{count} {word}" for word, count in did.items() if word != "taken")
                table.add_row(name, sender, passed, rule.removeprefix(f"{sender}'s: "), effects or str(did["taken"]))
                name = passed = ""
            if not shown:
                table.add_row(name, sender, passed, "untouched", "")
                name = ""
    return table
