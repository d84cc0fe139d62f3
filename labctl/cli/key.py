"""`labctl key`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from labctl.cli.options import chosen_lab, complete_nodes, json_option, lab_option
from labctl.cli.pki import moment, tell
from labctl.cli.status import ExitStatus

if TYPE_CHECKING:
    from labctl.lab.pki.key_pairs import Changed

# What `crypto key generate rsa modulus` takes here; labctl.crypto.rsa_pem has the same bounds.
_SMALLEST, _LARGEST = 1024, 4096


@click.group("key")
def command() -> None:
    """RSA key pairs of key servers, which sign rekeys ('crypto key ... rsa').

    A group uses the pair that its topology names: 'rekey: {key: LABEL}'.
    """


_node = click.argument("node", shell_complete=complete_nodes)
_label = click.argument("label")
_exportable = click.option("--exportable", is_flag=True, help="The pair may be exported; nothing makes it so later.")
_replace = click.option("--replace", "replacing", is_flag=True, help="Even if there is one of that label.")
_passphrase_file = click.option(
    "--passphrase-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Its first line is the passphrase. Without it: LABCTL_PASSPHRASE, or you are asked.",
)


@command.command("show")
@click.argument("node", required=False, shell_complete=complete_nodes)
@lab_option
@json_option
def show(node: str | None, lab: str | None, as_json: bool) -> ExitStatus:
    """The pairs of NODE, or of all key servers: never their private halves."""
    from labctl.cli.rendering import plain_table
    from labctl.cli.terminal import console, write_json
    from labctl.configuration import to_json
    from labctl.lab.pki import key_pairs

    found = key_pairs.show(chosen_lab(lab), node)
    if as_json:
        write_json(to_json(found))
        return ExitStatus.OK
    table = plain_table("NODE", "LABEL", "BITS", "EXPORTABLE", "MADE", "SIGNS FOR", "SHA-256 OF THE PUBLIC KEY")
    for item in found:
        exportable = "yes" if item.exportable else "no"
        groups, print_ = " ".join(item.signs) or "-", item.fingerprint[:32]
        table.add_row(item.node, item.label, str(item.bits), exportable, moment(item.made), groups, print_)
    if found:
        console().print(table)
    else:
        console().print("No key server has a labelled pair; each signs with one that it made when it started.")
    return ExitStatus.OK


@command.command("generate")
@_node
@_label
@click.option("--modulus", type=click.IntRange(_SMALLEST, _LARGEST), default=2048, show_default=True, help="Bits.")
@_exportable
@_replace
@lab_option
def generate(node: str, label: str, modulus: int, exportable: bool, replacing: bool, lab: str | None) -> ExitStatus:
    """Key server NODE makes a pair LABEL ('crypto key generate rsa label').

    A group that signs with LABEL does so from its next rekey on, which is signed with the old pair and brings the new.
    """
    from labctl.lab.loop import run
    from labctl.lab.pki import key_pairs

    order = key_pairs.generate(chosen_lab(lab), node, label, modulus, exportable=exportable, replacing=replacing)
    return _say(run(order), "generated")


@command.command("export")
@_node
@_label
@_passphrase_file
@click.option("-w", "--write", "target", type=click.Path(path_type=Path), metavar="FILE", help="Not stdout; mode 0600.")
@lab_option
def export(node: str, label: str, passphrase_file: Path | None, target: Path | None, lab: str | None) -> ExitStatus:
    """PEM of pair LABEL: the public key, then the private one under a passphrase ('crypto key export rsa')."""
    from labctl.lab.pki import key_pairs

    pem = key_pairs.export(chosen_lab(lab), node, label, _passphrase(passphrase_file, confirm=True))
    if target is None:
        sys.stdout.write(pem)
        return ExitStatus.OK
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as stream:
        stream.write(pem)
    return ExitStatus.OK


@command.command("import")
@_node
@_label
@click.argument("source", type=click.File("rb"), metavar="FILE")
@_passphrase_file
@_exportable
@_replace
@lab_option
def take(
    node: str,
    label: str,
    source: Any,
    passphrase_file: Path | None,
    exportable: bool,
    replacing: bool,
    lab: str | None,
) -> ExitStatus:
    """Key server NODE takes the pair in the PEM FILE ('-': stdin) as LABEL ('crypto key import rsa')."""
    from labctl.lab.loop import run
    from labctl.lab.pki import key_pairs

    directory, pem = chosen_lab(lab), source.read(_LARGEST * 16)
    passphrase = _passphrase(passphrase_file, confirm=False) if b"ENCRYPTED" in pem else ""
    order = key_pairs.take_pem(directory, node, label, pem, passphrase, exportable=exportable, replacing=replacing)
    return _say(run(order), "imported")


def _say(changed: Changed, what: str) -> ExitStatus:
    from labctl.cli.terminal import write_line

    pair = changed.pair
    kind = "exportable" if pair.exportable else "not exportable"
    write_line(f"{pair.node}: key pair {pair.label} {what}, {pair.bits} bits, {kind}")
    signs = f"signs for {', '.join(pair.signs)} from the next rekey on" if pair.signs else "no group signs with it"
    write_line(signs)
    tell(changed.told)
    return ExitStatus.OK


def _passphrase(file: Path | None, *, confirm: bool) -> str:
    """From the file, the environment, or whoever sits at the terminal; the command line is for others to see."""
    if file is not None:
        return file.read_text().split("\n", 1)[0]
    if (known := os.environ.get("LABCTL_PASSPHRASE")) is not None:
        return known
    if not sys.stdin.isatty():
        raise click.UsageError("there is no passphrase: --passphrase-file FILE, or LABCTL_PASSPHRASE")
    return str(click.prompt("Passphrase", hide_input=True, confirmation_prompt=confirm, err=True))
