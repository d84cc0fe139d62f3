"""`labctl simulate`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from labctl.cli.options import complete_topologies, json_option
from labctl.cli.status import ExitStatus

if TYPE_CHECKING:
    from labctl.simulation.run import Result
    from labctl.simulation.scenario import Scenario
    from labctl.simulation.sweep import SweepResult

# Lines of the timeline that are shown; --lines asks for more.
LINES = 200


@click.command("simulate")
@click.argument("scenario", shell_complete=complete_topologies)
@click.option("--seed", type=click.IntRange(min=0), default=1, show_default=True, help="What chance decides.")
@click.option("--hours", type=click.FloatRange(min=0, min_open=True), default=720.0, show_default=True)
@click.option("--members", type=click.IntRange(min=1), help="So many members instead of the topology's.")
@click.option("--key-servers", type=click.IntRange(1, 8), help="So many key servers; they share no keys yet.")
@click.option("--group", metavar="NAME", help="Which group of the topology.")
@click.option("--transport", type=click.Choice(["unicast", "multicast", "none"]), help="How rekeys travel.")
@click.option("--tek", type=click.IntRange(120, 2592000), metavar="SECONDS", help="Life of a traffic key.")
@click.option("--kek", type=click.IntRange(300, 2592000), metavar="SECONDS", help="Life of a key encryption key.")
@click.option("--delay", default="20ms", show_default=True, metavar="TIME", help="Of every datagram, one way.")
@click.option("--jitter", default="5ms", show_default=True, metavar="TIME", help="At most so much more.")
@click.option("--loss", default="0%", show_default=True, metavar="SHARE", help="Datagrams that do not arrive.")
@click.option("--duplication", default="0%", show_default=True, metavar="SHARE", help="Datagrams that arrive twice.")
@click.option("--reordering", default="0%", show_default=True, metavar="SHARE", help="Datagrams that others overtake.")
@click.option(
    "--faults",
    type=click.Choice(["none", "some", "many"]),
    default="none",
    show_default=True,
    help="Partitions, crashes, orders and replays by chance.",
)
@click.option("--at", "orders", multiple=True, metavar="ORDER", help="'2h cut m2 30m': at a time. May be repeated.")
@click.option("--seeds", type=click.IntRange(min=1), help="So many seeds, from --seed on.")
@click.option(
    "--record",
    type=click.Path(dir_okay=False),
    help="Of --seeds: go on from what it holds.",
)
@click.option("--jobs", type=click.IntRange(min=1), help="Processes for --seeds; one a core by default.")
@click.option("--lines", type=click.IntRange(min=0), default=LINES, show_default=True, help="Of the timeline.")
@click.option("--routine", is_flag=True, help="Show what every party says at every rekey, too.")
@json_option
def command(scenario: str, seed: int, hours: float, seeds: int | None, as_json: bool, **words: Any) -> ExitStatus:
    """Let a group live for a month in seconds, and say whether everything held.

    SCENARIO is a topology (a file, or one that ships), whose group, key lives and transport are taken; or 'chaos',
    another design and network for each seed. Members are m1, m2, ...; key servers ks1, ...
    """
    from labctl.cli.terminal import console, write_json
    from labctl.lab.errors import BadRequest
    from labctl.lab.scenarios import CHAOS
    from labctl.simulation.designs import design
    from labctl.simulation.run import simulate

    chosen = None if scenario == CHAOS else _scenario(scenario, hours, words)
    if seeds is not None:
        total = _sweep(chosen, range(seed, seed + seeds), hours, scenario, words)
        if as_json:
            write_json(_sweep_json(total))
        else:
            _show_sweep(total, scenario, hours, console())
        return ExitStatus.CHECK_FAILED if total.failed else ExitStatus.OK
    if words["record"] is not None:
        raise BadRequest("--record is for sweeps", "say how many seeds: --seeds 1000")
    chosen = chosen or design(seed, duration=hours * 3600)
    result = simulate(chosen, seed, lines=words["lines"], routine=words["routine"])
    if as_json:
        write_json(_json(result))
    else:
        _show(result, chosen, console())
    return ExitStatus.CHECK_FAILED if result.violations else ExitStatus.OK


def _scenario(word: str, hours: float, words: dict[str, Any]) -> Scenario:
    from labctl.lab.scenarios import FAULTS, Changes, duration, scenario_of, share
    from labctl.simulation.scenario import NetworkConditions

    network = NetworkConditions(
        delay=duration(words["delay"]),
        jitter=duration(words["jitter"]),
        loss=share(words["loss"]),
        duplication=share(words["duplication"]),
        reordering=share(words["reordering"]),
    )
    changes = Changes(**{key: words[key] for key in ("members", "key_servers", "tek", "kek", "transport", "group")})
    return scenario_of(
        word,
        changes,
        seconds=hours * 3600,
        network=network,
        faults=FAULTS[words["faults"]],
        orders=words["orders"],
    )


def _sweep(chosen: Scenario | None, seeds: range, hours: float, name: str, words: dict[str, Any]) -> SweepResult:
    import sys
    from pathlib import Path

    from labctl.lab.sweep_record import SweepRecord
    from labctl.simulation.sweep import SweepResult, sweep

    total = SweepResult()
    record = None if words["record"] is None else SweepRecord(Path(words["record"]), name, hours)
    done = [] if record is None else [result for result in record.results() if result.seed in seeds]
    known = {result.seed for result in done}
    for result in done:
        total.add(result)
    results = sweep(
        [seed for seed in seeds if seed not in known], scenario=chosen, duration=hours * 3600, jobs=words["jobs"]
    )
    for result in results if record is None else record.add(results):
        total.add(result)
        if sys.stderr.isatty():
            line = f"\r{total.runs} of {len(seeds)} seeds, {len(total.failed)} failed"
            print(line, end="", file=sys.stderr, flush=True)
    if sys.stderr.isatty():
        print(file=sys.stderr)
    total.failed.sort(key=lambda item: item.seed)
    return total


def _show(result: Result, scenario: Scenario, screen: Any) -> None:
    from labctl.cli.rendering import plain_table
    from labctl.simulation.invariants import Invariant

    group = scenario.group
    transport = "unicast" if group.rekey.transport.value == "unicast" else f"multicast {group.rekey.address}"
    screen.print(
        f"{scenario.name}: {scenario.members} members, {scenario.key_servers} key servers, "
        f"{scenario.duration / 3600:g} hours, seed {result.seed}",
        highlight=False,
    )
    sent = "no rekeys" if group.rekey.address is None and transport != "unicast" else f"rekeys {transport}"
    sent += ", key tree" if group.rekey.key_tree else ""
    lives = " and ".join(dict.fromkeys(f"{sa.tek_lifetime} s" for sa in group.sas))
    transforms = " and ".join(dict.fromkeys(str(sa.transform) for sa in group.sas))
    screen.print(f"TEK {lives}, KEK {group.rekey.lifetime} s, {transforms}, {sent}\n", highlight=False)
    for line in result.lines:
        screen.print(str(line), highlight=False, markup=False, soft_wrap=True)
    if result.left_out:
        screen.print(f"... and {result.left_out} more lines (--lines)", highlight=False)
    if result.lines:
        screen.print()
    counts, network = result.counts, result.network
    table = plain_table("WHAT", "HOW MUCH")
    table.columns[1].justify = "right"
    for what, value in (
        ("registered at the end", f"{result.registered} of {result.members}"),
        ("registrations", counts.registrations),
        ("members that registered again", len(counts.again)),
        ("rekeys sent", result.rekeys_sent),
        ("rekeys taken by members", counts.rekeys_taken),
        ("times a member lost its keys", counts.keys_lost),
        ("seconds without keys, all members", f"{counts.seconds_without_keys:.0f}"),
        ("crashes", counts.restarts),
        ("datagrams", network.sent),
        ("datagrams lost, cut off, doubled", f"{network.lost}, {network.cut}, {network.duplicated}"),
    ):
        table.add_row(what, str(value))
    screen.print(table)
    screen.print()
    table = plain_table("INVARIANT", "LOOKED AT", "BROKEN")
    for item in Invariant:
        broken = sum(violation.invariant is item for violation in result.violations)
        table.add_row(item.value, str(result.checks[item]), str(broken or "-"))
    screen.print(table)
    _show_violations(result, screen)


def _show_violations(result: Result, screen: Any) -> None:
    from labctl.simulation.timeline import stamp

    if not result.violations:
        screen.print("\nEverything held.")
        return
    screen.print(f"\n{len(result.violations)} times something did not hold:")
    for violation in result.violations[:20]:
        screen.print(f"{stamp(violation.at)}  {violation.what}", highlight=False, markup=False)


def _show_sweep(total: SweepResult, scenario: str, hours: float, screen: Any) -> None:
    years = total.seconds / (365 * 86400)
    screen.print(
        f"{scenario}: {total.runs} seeds, {years:.1f} years, {total.registrations} registrations, "
        f"{total.rekeys} rekeys, {total.datagrams} datagrams, {sum(total.checks.values())} looks.",
        highlight=False,
    )
    if not total.failed:
        screen.print("Everything held.")
        return
    screen.print(f"{len(total.failed)} seeds failed:")
    for item in total.failed[:20]:
        first = item.violations[0]
        screen.print(f"  seed {item.seed}: {first.invariant.value}: {first.what}", highlight=False, markup=False)
    word = total.failed[0].seed
    screen.print(f"'labctl simulate {scenario} --seed {word} --hours {hours:g} --routine' shows the first one again.")


def _violations(items: Any) -> list[dict[str, Any]]:
    return [{"invariant": item.invariant.name.lower(), "at": item.at, "what": item.what} for item in items]


def _json(result: Result) -> dict[str, Any]:
    from dataclasses import asdict

    counts = asdict(result.counts)
    counts["again"] = sorted(counts["again"])
    return {
        "seed": result.seed,
        "seconds": result.seconds,
        "members": result.members,
        "registered": result.registered,
        "rekeys_sent": result.rekeys_sent,
        "counts": counts,
        "network": asdict(result.network),
        "messages": dict(sorted(result.messages.items())),
        "checks": {item.name.lower(): number for item, number in result.checks.items()},
        "violations": _violations(result.violations),
        "timeline": [{"at": line.at, "party": line.party, "text": line.text} for line in result.lines],
        "left_out": result.left_out,
    }


def _sweep_json(total: SweepResult) -> dict[str, Any]:
    return {
        "runs": total.runs,
        "seconds": total.seconds,
        "registrations": total.registrations,
        "rekeys": total.rekeys,
        "datagrams": total.datagrams,
        "checks": {item.name.lower(): number for item, number in total.checks.items()},
        "failed": [{"seed": item.seed, "violations": _violations(item.violations)} for item in total.failed],
    }
