"""`labctl schema`."""

from __future__ import annotations

import click

from labctl.cli.status import ExitStatus


@click.command("schema")
def command() -> ExitStatus:
    """Print the JSON Schema of topology files, for editors that complete and check YAML."""
    from labctl.cli.terminal import write_json
    from labctl.topology import schema

    write_json(schema())
    return ExitStatus.OK
