"""`labctl decode`."""

from __future__ import annotations

from pathlib import Path

import click

from labctl.cli.options import chosen_lab, lab_option
from labctl.cli.status import ExitStatus


@click.command("decode")
@click.argument("capture", metavar="CAPTURE", type=click.Path(path_type=Path))
@click.option("-w", "--write", metavar="FILE", type=click.Path(path_type=Path), required=True, help="Where to.")
@click.option("--keys", metavar="FOLDER", type=click.Path(path_type=Path), help="A key log, without its lab.")
@lab_option
def command(capture: Path, write: Path, keys: Path | None, lab: str | None) -> ExitStatus:
    """Copy CAPTURE for Wireshark: rekeys decrypted, and registrations so that its key log opens them.

    \b
    labctl up two-sites --keylog; labctl capture ks1:eth0 -w wire.pcapng
    labctl decode wire.pcapng -w clear.pcapng
    """
    from labctl.cli.terminal import remark, write_line
    from labctl.lab.decode import decode_file
    from labctl.lab.keylog import reading_commands

    folder = keys if keys is not None else chosen_lab(lab).keylog
    counts = decode_file(capture, write, folder)
    locked = f", {counts.locked} without a key" if counts.locked else ""
    rekeys = f"{counts.opened} rekey{'' if counts.opened == 1 else 's'} decrypted"
    remark(f"{counts.packets} packets, {rekeys}{locked}, {counts.copies} copies left out")
    for line in reading_commands(write, folder, ["tshark"]):
        write_line(f"{line} -V")
    return ExitStatus.OK
