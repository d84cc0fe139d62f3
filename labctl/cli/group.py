"""The top command: knows every verb by name and one line, and imports a verb's module only when it is called."""

from __future__ import annotations

import difflib
from importlib import import_module
from typing import Any

import click

from labctl.cli.status import ExitStatus

# Verb -> its line in `labctl --help`, by what the user is about to do. A verb's module is labctl.cli.VERB.
SECTIONS: dict[str, dict[str, str]] = {
    "Run a lab": {
        "up": "Start a lab, or converge the one that is up",
        "down": "Take a lab down, and everything a killed 'up' left",
        "ps": "Show labs, nodes, groups and readiness",
    },
    "Look inside and prove it": {
        "exec": "Run a command on nodes",
        "shell": "Open a shell on a node",
        "logs": "Show what nodes log",
        "gdoi": "Rekey, clear, evict: orders to key servers and members",
        "pki": "Show, issue and revoke certificates",
        "key": "RSA pairs that sign rekeys: generate, export, import",
        "counters": "Packets of a node: by interface, SA, policy, drop reason",
        "mroute": "Show the multicast routing of a router",
        "impair": "Delay, lose, reorder: what a link does to packets",
        "capture": "Capture a link or interface (pcapng)",
        "test": "Run the topology's checks with real packets",
    },
    "Without a lab": {
        "check": "Say what is wrong with a topology, and where",
        "plan": "Show what 'up' would make",
        "simulate": "Let a group live for a month in seconds: what if?",
    },
}
# Said once in a while, or once in a machine's life: the help has their names only, and so one screen.
RARE: dict[str, str] = {
    "config": "Show the configuration of a node as IOS text",
    "isakmp": "Show phase 1: SAs, exchanges under way, counters",
    "decode": "Copy a capture so that Wireshark reads its GDOI",
    "events": "Follow state changes as JSON lines",
    "bench": "Measure what two group members carry here",
    "doctor": "Say what this machine can do and what is missing",
    "schema": "Print the JSON Schema of topologies",
    "image": "Build the docker runtime's node image",
    "completion": "Print the completion script of a shell",
}

VERBS: dict[str, str] = {verb: line for verbs in (*SECTIONS.values(), RARE) for verb, line in verbs.items()}


class ReaderLeft(Exception):
    """Whoever read our output went away. click would make an exit status 1 of a BrokenPipeError."""


class VerbGroup(click.Group):
    """A group whose commands are the modules of this package."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Every verb, in the order of the help."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The verb's command, imported now."""
        if cmd_name not in VERBS:
            return None
        command = import_module(f"labctl.cli.{cmd_name}").command
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the verb, or say which one may have been meant."""
        if args and args[0] not in VERBS and not args[0].startswith("-"):
            close = difflib.get_close_matches(args[0], VERBS, n=1)
            hint = f" Did you mean 'labctl {close[0]}'?" if close else ""
            raise click.UsageError(f"no verb {args[0]!r}.{hint}", ctx)
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the verb. Raises ReaderLeft."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            raise ReaderLeft from error

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Every verb by section, on one screen of 80x24, without importing one."""
        formatter.write("labctl VERB [OPTIONS]: emulated Cisco GETVPN labs, real GDOI and real ESP\n")
        width = max(len(verb) for verbs in SECTIONS.values() for verb in verbs)
        for title, verbs in SECTIONS.items():
            formatter.write(f"{title}:\n")
            for verb, line in verbs.items():
                formatter.write(f"  {verb.ljust(width)}  {line}\n")
        formatter.write(f"Also: {', '.join(RARE)}\n")
        formatter.write("'labctl VERB --help' tells more, 'labctl --version' which labctl this is.\n")

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[Any]:
        """Verbs with their lines, again without importing them."""
        from click.shell_completion import CompletionItem

        return [CompletionItem(verb, help=line) for verb, line in VERBS.items() if verb.startswith(incomplete)]


@click.command(
    "labctl",
    cls=VerbGroup,
    invoke_without_command=True,
    no_args_is_help=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(package_name="labctl", message="labctl %(version)s")
@click.pass_context
def labctl(ctx: click.Context) -> None:
    """Emulated Cisco GETVPN labs: real GDOI, real ESP, no router images."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help(), err=True)
        ctx.exit(ExitStatus.INPUT)
