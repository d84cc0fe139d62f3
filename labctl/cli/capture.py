"""`labctl capture`."""

from __future__ import annotations

import click

from labctl.cli.options import chosen_lab, complete_capture_points, lab_option
from labctl.cli.status import ExitStatus


@click.command("capture")
@click.argument("point", metavar="LINK|NODE:IF", shell_complete=complete_capture_points)
@click.option("-w", "--write", metavar="FILE|-", help="Write pcapng there; '-' is standard output.")
@click.option("-c", "--count", type=click.IntRange(min=1), metavar="N", help="Stop after N packets.")
@click.option("-d", "--duration", type=click.FloatRange(min=0), metavar="SECONDS", help="Stop after this time.")
@click.option("-s", "--snaplen", type=click.IntRange(min=14), default=65535, help="Octets kept of each packet.")
@click.option(
    "--side",
    type=click.Choice(["wire", "inside"]),
    default="wire",
    help="Of a crypto interface: what the cable carries, or what the node's kernel sees.",
)
@lab_option
def command(
    point: str, write: str | None, count: int | None, duration: float | None, snaplen: int, side: str, lab: str | None
) -> ExitStatus:
    """Capture packets until Ctrl-C; without -w, print a line for each.

    A link is named as 'labctl plan' does, or by its two nodes: 'pe1--ce1'.

    \b
    labctl capture pe1:eth0 -w - | tshark -r -
    """
    from labctl.cli.packets import packet_sink
    from labctl.cli.terminal import remark
    from labctl.lab.capture import CaptureOptions, capture_in
    from labctl.lab.loop import run

    options = CaptureOptions(point, side=side, snaplen=snaplen, count=count, seconds=duration)
    with packet_sink(write) as sink:
        result = run(capture_in(chosen_lab(lab), options, sink))
    lost = f", {result.dropped} lost on the way" if result.dropped else ""
    remark(f"{result.captured} packet{'' if result.captured == 1 else 's'} captured{lost}")
    return ExitStatus.OK
