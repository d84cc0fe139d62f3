"""`labctl capture`."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import click

from labctl.cli.options import chosen_lab, complete_capture_points, lab_option
from labctl.cli.status import ExitStatus

ALL = 65535  # octets of a packet


@click.command("capture")
@click.argument("point", metavar="LINK|NODE:IF", shell_complete=complete_capture_points)
@click.option("-w", "--write", metavar="FILE|-", help="Write pcapng there; '-' is standard output.")
@click.option("-c", "--count", type=click.IntRange(min=1), metavar="N", help="Stop after N packets.")
@click.option("-d", "--duration", type=click.FloatRange(min=0), metavar="SECONDS", help="Stop after this time.")
@click.option("-s", "--snaplen", type=click.IntRange(min=14), default=ALL, help="Octets kept of each packet.")
@click.option("--decrypt", is_flag=True, help="With the lab's keys beside FILE, or in the live view.")
@click.option("--live", is_flag=True, help="Show it in Wireshark as it comes, or in tshark where there is none.")
@click.option("--with", "program", type=click.Choice(["wireshark", "tshark"]), help="--live in this one.")
@click.option(
    "--side",
    type=click.Choice(["wire", "inside"]),
    default="wire",
    help="Of a crypto interface: what the cable carries, or what the node's kernel sees.",
)
@lab_option
def command(
    point: str,
    write: str | None,
    count: int | None,
    duration: float | None,
    snaplen: int,
    decrypt: bool,
    live: bool,
    program: str | None,
    side: str,
    lab: str | None,
) -> ExitStatus:
    """Capture packets until Ctrl-C; without -w, print a line for each.

    A link is named as 'labctl plan' does, or by its two nodes: 'pe1--ce1'.

    \b
    labctl capture pe1:eth0 -w - | tshark -r -
    labctl capture pe1:eth0 -w wan.pcapng --decrypt
    labctl capture pe1:eth0 --decrypt --live
    """
    from labctl.cli.packets import packet_sinks
    from labctl.cli.terminal import remark, write_line
    from labctl.lab.capture import CaptureOptions, capture_in
    from labctl.lab.decrypting import Decryption
    from labctl.lab.keylog import KeyTables
    from labctl.lab.loop import run
    from labctl.lab.viewer import LiveSink, choose_program

    live = live or program is not None
    _refuse(write, decrypt, live, snaplen)
    directory = chosen_lab(lab)
    options = CaptureOptions(point, side=side, snaplen=snaplen, count=count, seconds=duration)
    with ExitStack() as stack:
        shown_in = choose_program(program) if live else None
        decryption = stack.enter_context(Decryption(Path(write) if write else None, remark)) if decrypt else None
        viewer = None
        if shown_in is not None:
            tables, folder = (decryption.tables, decryption.folder) if decryption else (KeyTables(), None)
            viewer = LiveSink(shown_in, tables, folder, remark)
        with packet_sinks(write, viewer, private=decrypt) as sink:
            enough = None if viewer is None or write else viewer.gone  # a file is captured to its own end
            result = run(capture_in(directory, options, sink, decryption.keys if decryption else None, enough))
        lost = f", {result.dropped} lost on the way" if result.dropped else ""
        remark(f"{result.captured} packet{'' if result.captured == 1 else 's'} captured{lost}")
        for line in decryption.finish() if decryption is not None else ():
            write_line(line)
    return ExitStatus.OK


def _refuse(write: str | None, decrypt: bool, live: bool, snaplen: int) -> None:
    """Raise BadRequest for what cannot go together."""
    from labctl.lab.errors import BadRequest

    both = "-w FILE keeps the keys beside FILE, --live shows packets in Wireshark or tshark as they come"
    if decrypt and write == "-":
        raise BadRequest("--decrypt: a pipe has no place for the keys beside it", both)
    if decrypt and write is None and not live:
        raise BadRequest("--decrypt: lines of a terminal do not show what is inside", both)
    if live and write == "-":
        raise BadRequest("--live: standard output is the program's", "-w FILE writes a file beside it")
    if decrypt and snaplen != ALL:
        raise BadRequest("--decrypt: a packet that was cut off cannot be decrypted", "leave --snaplen out")
