"""`labctl image`."""

from __future__ import annotations

import click

from labctl.cli.options import json_option
from labctl.cli.status import ExitStatus


@click.group("image")
def command() -> None:
    """The docker runtime's node image, one for every role. `up` renews it where it is older than the code."""


@command.command("build")
@click.option("--base", metavar="IMAGE", help="The image to build on; it needs Python 3.11 or Debian's apt.")
@click.option("--bootstrap", is_flag=True, help="Make a Debian base with mmdebstrap, where no registry can be reached.")
def build(base: str | None, bootstrap: bool) -> ExitStatus:
    """Build the node image from this very code."""
    from labctl.cli.terminal import console
    from labctl.runtime import image

    if base is not None and bootstrap:
        raise click.UsageError("--base names a base, --bootstrap makes one: give one of them")
    screen = console()
    identity = image.build(base, bootstrap=bootstrap, progress=lambda text: screen.print(text, highlight=False))
    screen.print(f"{image.IMAGE} is {identity.removeprefix('sha256:')[:12]}", highlight=False)
    return ExitStatus.OK


@command.command("show")
@json_option
def show(as_json: bool) -> ExitStatus:
    """Say which image is there, on which base, and whether it was made from this code."""
    from labctl.cli.terminal import console, write_json
    from labctl.configuration import to_json
    from labctl.runtime import image

    state = image.state()
    if as_json:
        write_json({"image": image.IMAGE, **to_json(state)})
    elif state.identity is None:
        console().print(f"{image.IMAGE} is not there: 'labctl image build' makes it", highlight=False)
    else:
        age = "made from this code" if state.current else "older than this code: 'up' or 'labctl image build' renews it"
        short = state.identity.removeprefix("sha256:")[:12]
        console().print(f"{image.IMAGE} is {short}, on {state.base}, {age}", highlight=False)
    return ExitStatus.OK
