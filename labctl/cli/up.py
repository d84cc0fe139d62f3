"""`labctl up`."""

from __future__ import annotations

from pathlib import Path

import click
from click.shell_completion import CompletionItem

from labctl.cli.options import complete_nodes, complete_topologies, json_option, lab_option
from labctl.cli.status import ExitStatus


def _complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    # The first word may be a topology; every word may be a node of the lab that is up.
    topologies = [] if ctx.params.get("words") else complete_topologies(ctx, param, incomplete)
    return [*complete_nodes(ctx, param, incomplete), *topologies]


@click.command("up")
@click.argument("words", nargs=-1, metavar="[TOPOLOGY] [NODE]...", shell_complete=_complete)
@click.option("--runtime", type=click.Choice(["auto", "docker", "namespaces"]), help="What makes the nodes.")
@click.option("--apply", is_flag=True, help="Carry a changed topology out on the lab that is up.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="How long nodes may take to get ready (default 60).",
)
@click.option("--keylog", is_flag=True, help="Keep keys for Wireshark in the lab's directory, mode 0600.")
@click.option("--no-rollback", is_flag=True, help="If 'up' fails, leave what it made, to look at.")
@lab_option
@json_option
def command(
    words: tuple[str, ...],
    runtime: str | None,
    apply: bool,
    timeout: float | None,
    keylog: bool,
    no_rollback: bool,
    lab: str | None,
    as_json: bool,
) -> ExitStatus:
    """Start the lab of TOPOLOGY, or bring the one that is up to what its topology says.

    TOPOLOGY is a file or the name of a shipped topology; without it, topology.yml or the only *.yml of this folder
    (or, with --lab, the topology of that lab). With NODEs, only these are started.
    """
    from labctl.cli.progress import progress_display
    from labctl.cli.rendering import up_report
    from labctl.cli.terminal import console, write_json
    from labctl.configuration import to_json
    from labctl.lab.directory import LabDirectory
    from labctl.lab.find import split_up_words
    from labctl.lab.loop import run
    from labctl.lab.up import DEFAULT_TIMEOUT, UpRequest, bring_up
    from labctl.topology import load
    from labctl.topology.planner import plan

    path, nodes = split_up_words(words, lab, Path.cwd())
    topology = load(path)
    directory = LabDirectory(topology.name)
    request = UpRequest(
        topology=path,
        text=path.read_text(),
        nodes=nodes,
        runtime=runtime,
        apply=apply,
        timeout=DEFAULT_TIMEOUT if timeout is None else timeout,
        keylog=keylog,
        rollback=not no_rollback,
    )
    with progress_display(nodes or topology.node_names) as progress:
        report = run(
            bring_up(
                directory,
                lambda secret, credentials: plan(topology, secret=secret, credentials=credentials),
                request,
                progress,
            )
        )
    if as_json:
        write_json(to_json(report))
    else:
        up_report(report, console())
    return ExitStatus.OK
