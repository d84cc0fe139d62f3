"""`labctl completion`."""

from __future__ import annotations

import click

from labctl.cli.status import ExitStatus


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> ExitStatus:
    """Print the completion script of SHELL: it knows verbs, labs, nodes, interfaces and topologies.

    \b
    bash:  eval "$(labctl completion bash)"      in ~/.bashrc
    zsh:   eval "$(labctl completion zsh)"       in ~/.zshrc
    fish:  labctl completion fish | source       in ~/.config/fish/config.fish
    """
    from click.shell_completion import get_completion_class

    from labctl.cli.group import labctl
    from labctl.cli.terminal import write_line

    found = get_completion_class(shell)
    assert found is not None, "click knows the three shells of the choice above"
    write_line(found(labctl, {}, "labctl", "_LABCTL_COMPLETE").source())
    return ExitStatus.OK
