"""Where the output of commands on nodes goes: as it is from one node, line by line with its name from several."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import BinaryIO

from labctl.lab.execute import Output

COLOURS = (36, 33, 32, 35, 34, 31)


class Direct:
    """Octets as they come."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def write(self, data: bytes) -> None:
        """Pass on, at once: a user may be looking at a prompt."""
        self._stream.write(data)
        self._stream.flush()

    def close(self) -> None:
        """Nothing is held back."""


class Prefixed:
    """Whole lines, each behind the node's name; a last line without an end gets one."""

    def __init__(self, stream: BinaryIO, prefix: bytes) -> None:
        self._stream = stream
        self._prefix = prefix
        self._held = b""

    def write(self, data: bytes) -> None:
        """Pass whole lines on and hold the rest."""
        *lines, self._held = (self._held + data).split(b"\n")
        if lines:
            self._stream.write(b"".join(self._prefix + line + b"\n" for line in lines))
            self._stream.flush()

    def close(self) -> None:
        """Pass on what was held."""
        if self._held:
            self.write(b"\n")


def outputs_for(nodes: Sequence[str]) -> dict[str, Output]:
    """One output for each node, in order, each node once."""
    names = list(dict.fromkeys(nodes))
    stdout, stderr = sys.stdout.buffer, sys.stderr.buffer
    if len(names) == 1:
        return {names[0]: Output(Direct(stdout), Direct(stderr))}
    width = max(map(len, names))
    coloured = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    outputs = {}
    for number, name in enumerate(names):
        prefix = f"{name:<{width}} | "
        if coloured:
            prefix = f"\x1b[{COLOURS[number % len(COLOURS)]}m{prefix}\x1b[0m"
        outputs[name] = Output(Prefixed(stdout, prefix.encode()), Prefixed(stderr, prefix.encode()))
    return outputs
