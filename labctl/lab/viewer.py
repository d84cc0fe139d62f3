"""A capture as it runs, in Wireshark or tshark: packets down a pipe, keys in a folder of their own.

Both read their keys once, when they start. Of keys that come later:

- Rekeys and registrations are decrypted here, before the pipe (labctl/decode).
- ESP: tshark is started anew with the first packet under a new key. Wireshark is somebody's window, so it stays, and
  the user is told which packets it cannot open.
- Phase 1: what is encrypted in Main Mode itself stays so. The exchanges under it are decrypted here as well.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO, cast

from labctl import __version__
from labctl.decode import Frames, esp_spi
from labctl.lab.capture import CapturedPacket, CapturePoint, CaptureResult
from labctl.lab.errors import LabError
from labctl.lab.keylog import KeyTables
from labctl.lab.pcapng import PcapngWriter

TSHARK, WIRESHARK = "tshark", "wireshark"

# `-l`: line by line; `-t a`: the time of day, which goes on when it is started anew.
COMMANDS = {TSHARK: (TSHARK, "-l", "-t", "a", "-r", "-"), WIRESHARK: (WIRESHARK, "-k", "-i", "-")}


def choose_program(wanted: str | None) -> str:
    """What shows a capture: what is wanted, else Wireshark where there is a screen, else tshark. Raises LabError."""
    screen = bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
    for name in (wanted,) if wanted else (WIRESHARK, TSHARK):
        if shutil.which(name) and (screen or name == TSHARK):
            return name
    if wanted is None:
        what = "there is no tshark here, and no screen with a wireshark"
    elif shutil.which(wanted):
        what = f"{wanted} needs a screen, and there is none here"
    else:
        what = f"{wanted} is not installed"
    raise LabError(what, f"'apt install {wanted or TSHARK}' brings it; 'capture -w FILE' needs neither")


class LiveSink:
    """A PacketSink that a program reads. `gone` is set when the program ended before the capture.

    `keys` stand in `folder`, its configuration folder, None for the user's own; `tell` takes words for the user.
    """

    def __init__(self, program: str, keys: KeyTables, folder: Path | None, tell: Callable[[str], None]) -> None:
        self.gone = asyncio.Event()
        self._program = program
        self._keys = keys
        self._folder = folder
        self._tell = tell
        self._frames = None if folder is None else Frames(keys.rekeys, keys.exchanges)
        self._known: set[int] = set()

    def begin(self, point: CapturePoint, snaplen: int) -> None:
        """Start the program."""
        self._point, self._snaplen = point, snaplen
        self._start()

    def packets(self, packets: Sequence[CapturedPacket]) -> None:
        """Show some packets; none to a program that is gone."""
        if self.gone.is_set():
            return
        try:
            for packet in packets:
                self._show(packet)
            self._writer.flush()
        except BrokenPipeError:
            self.gone.set()

    def end(self, result: CaptureResult) -> None:
        """Return when the program has shown everything; a window, when its user closed it."""
        with contextlib.suppress(BrokenPipeError):
            self._writer.statistics(0, time.time_ns(), result.captured + result.dropped, result.dropped)
        if self._program == WIRESHARK and self._process.poll() is None:
            self._tell("the capture is over; Wireshark's window is yours until you close it")
        self._stop()

    def _show(self, packet: CapturedPacket) -> None:
        data, length = packet.data, packet.original_length
        if self._frames is not None and len(data) == length:
            spi = esp_spi(data)
            if spi is not None and spi in self._keys.spis - self._known:
                self._take_new_key(spi)
            changed = self._frames.take(data)
            if changed is None:
                return
            data, length = changed, length - len(data) + len(changed)
        self._writer.packet(0, packet.time_ns, length, data)

    def _take_new_key(self, spi: int) -> None:
        if self._program == TSHARK:
            self._tell(f"the key {spi:#010x} came: tshark is started anew, and counts from 1")
            self._stop()
            self._start()
            return
        self._known.add(spi)
        self._tell(f"the key {spi:#010x} came after Wireshark started: its packets stay encrypted in the window")

    def _start(self) -> None:
        environment = dict(os.environ)
        if self._folder is not None:
            environment["WIRESHARK_CONFIG_DIR"] = str(self._folder)
            self._known = set(self._keys.spis)
        # In a session of its own: Ctrl-C ends the capture, and what was captured is still shown.
        self._process = subprocess.Popen(
            COMMANDS[self._program], stdin=subprocess.PIPE, env=environment, start_new_session=True
        )
        assert self._process.stdin is not None
        self._exit = os.pidfd_open(self._process.pid)
        asyncio.get_running_loop().add_reader(self._exit, self.gone.set)
        name, side = self._point.interface, self._point.side
        try:
            self._writer = PcapngWriter(cast(BinaryIO, self._process.stdin), f"labctl {__version__}")
            self._writer.interface(str(self._point), f"{name} of node {self._point.node}, {side} side", self._snaplen)
            self._writer.flush()
        except BrokenPipeError:
            self.gone.set()

    def _stop(self) -> None:
        asyncio.get_running_loop().remove_reader(self._exit)
        os.close(self._exit)
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.wait()
