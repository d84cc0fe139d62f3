"""`labctl exec`."""

from __future__ import annotations

import click

from labctl.cli.options import chosen_lab, complete_nodes, lab_option


class CommandAfterDashes(click.Command):
    """Takes what stands after `--` as it is; without `--`, everything after the first word."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Part the command line before click drops the `--`."""
        if "--" in args:
            at = args.index("--")
            ctx.meta["labctl.command"] = tuple(args[at + 1 :])
            return super().parse_args(ctx, args[:at])
        ctx.allow_interspersed_args = False  # `labctl exec h1 ping -c 3 h2`: -c is ping's
        return super().parse_args(ctx, args)


@click.command("exec", cls=CommandAfterDashes)
@click.option("-t", "--tty", is_flag=True, help="On a terminal of the node, for programs that draw.")
@lab_option
@click.argument("nodes", nargs=-1, metavar="NODE... -- COMMAND...", shell_complete=complete_nodes)
@click.pass_context
def command(ctx: click.Context, nodes: tuple[str, ...], tty: bool, lab: str | None) -> int:
    """Run COMMAND on NODEs and exit as it did.

    Without '--' the first word is the node. Standard input goes to the command; on several nodes every line of
    output begins with its node's name, and the exit status is the first that is not 0.
    """
    from labctl.cli.output import outputs_for
    from labctl.lab.execute import run_on_nodes
    from labctl.lab.loop import run
    from labctl.lab.terminal import run_on_terminal

    argv = ctx.meta.get("labctl.command")
    if argv is None:
        nodes, argv = nodes[:1], nodes[1:]
    if not nodes or not argv:
        raise click.UsageError("name a node and a command, for example: labctl exec h1 -- ping -c 3 h2", ctx)
    if tty:
        if len(nodes) > 1:
            raise click.UsageError("a terminal joins one node, not several", ctx)
        return run(run_on_terminal(chosen_lab(lab), nodes[0], argv))
    return run(run_on_nodes(chosen_lab(lab), argv, outputs_for(nodes)))
