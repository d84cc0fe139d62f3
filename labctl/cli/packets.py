"""Where captured packets go: a pcapng file or pipe, or one line each."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from labctl import __version__
from labctl.cli.rendering import clock
from labctl.cli.terminal import remark, write_line
from labctl.lab.capture import CapturedPacket, CapturePoint, CaptureResult, PacketSink
from labctl.lab.pcapng import PcapngWriter
from labctl.lab.summary import summarize


class PcapngSink:
    """Writes a pcapng stream; flushed at every batch, so that a reader of a pipe follows."""

    def __init__(self, stream: BinaryIO) -> None:
        self._writer = PcapngWriter(stream, f"labctl {__version__}")

    def begin(self, point: CapturePoint, snaplen: int) -> None:
        """The header goes out at once: tshark waits for it."""
        self._writer.interface(str(point), f"{point.interface} of node {point.node}, {point.side} side", snaplen)
        self._writer.flush()

    def packets(self, packets: Sequence[CapturedPacket]) -> None:
        """Write some packets."""
        for packet in packets:
            self._writer.packet(0, packet.time_ns, packet.original_length, packet.data)
        self._writer.flush()

    def end(self, result: CaptureResult) -> None:
        """Write what was lost."""
        self._writer.statistics(0, time.time_ns(), result.captured + result.dropped, result.dropped)
        self._writer.flush()


class LineSink:
    """A line a packet on stdout."""

    def begin(self, point: CapturePoint, snaplen: int) -> None:
        """Say that it is on, beside the lines."""
        remark(f"capturing on {point}, Ctrl-C ends")

    def packets(self, packets: Sequence[CapturedPacket]) -> None:
        """Print some packets."""
        for packet in packets:
            write_line(f"{clock(packet.time_ns / 1e9)}  {summarize(packet.data)}")

    def end(self, result: CaptureResult) -> None:
        """The verb says how many there were."""


class SeveralSinks:
    """A file, and somebody who looks on."""

    def __init__(self, sinks: Sequence[PacketSink]) -> None:
        self._sinks = sinks

    def begin(self, point: CapturePoint, snaplen: int) -> None:
        """Begin all of them."""
        for sink in self._sinks:
            sink.begin(point, snaplen)

    def packets(self, packets: Sequence[CapturedPacket]) -> None:
        """Give the packets to all of them."""
        for sink in self._sinks:
            sink.packets(packets)

    def end(self, result: CaptureResult) -> None:
        """End all of them."""
        for sink in self._sinks:
            sink.end(result)


@contextmanager
def packet_sinks(where: str | None, viewer: PacketSink | None = None, *, private: bool = False) -> Iterator[PacketSink]:
    """The sink for `-w WHERE`: nothing, `-`, or a file, which is closed at the end; and one that shows it meanwhile.

    A `private` file is for its owner alone.
    """
    if where is None:
        yield viewer or LineSink()
    elif where == "-":
        yield PcapngSink(sys.stdout.buffer)
    else:
        with Path(where).open("wb") as stream:
            if private:
                os.fchmod(stream.fileno(), 0o600)
            sink = PcapngSink(stream)
            yield sink if viewer is None else SeveralSinks((sink, viewer))
