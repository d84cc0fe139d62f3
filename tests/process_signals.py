"""Which signals a process treats specially, read from /proc/PID/status. Facts: proc(5), signal(7), nptl(7)."""

from __future__ import annotations

import signal


def signals_of(line: str) -> set[int]:
    """The signals of a SigIgn or SigBlk line, without those (32, 33) that the C library keeps for its threads: whoever
    started the tests may hand them on ignored, and no program can set them."""
    mask = int(line.split()[1], 16)
    return {int(number) for number in signal.valid_signals() if mask >> (number - 1) & 1}
