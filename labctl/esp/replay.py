"""Anti-replay of a group SA: a time stamp inside each packet, or windows of sequence numbers (reference 6.2, 7.3).

Time-based (TBAR): senders put the group's pseudotime into a header between ESP and the packet, and receivers take what
lies within the window on either side of their own. Nothing is remembered, so any number may send under one key; a copy
within the window passes.

Counter-based: each number is taken once, and none that is below the window (RFC 4303 3.4.3). That takes a window for
each sender. Counter modes tell senders apart by the sender ID in the IV (RFC 6054); under all other ciphers there is
one window an SA, as on IOS, which is sane with two members (reference/cisco-getvpn.md 2.8).
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import NamedTuple, NoReturn

from labctl.esp.errors import DropPacket, DropReason

# Next header | type | length of the header | epoch | seconds | microseconds.
_TIME_HEADER = struct.Struct("!BBHIII")
TIME_HEADER = _TIME_HEADER.size
# ESP's next header: an experiment's (RFC 3692 2.1), as IP-D3P has it. The type is of its private ones.
PROTOCOL_TIME = 253
TYPE_PSEUDOTIME = 240

MICROSECONDS = 1_000_000
_WRAP, _HALF = 1 << 32, 1 << 31

# Senders whose windows are kept; only who has the key can invent some.
MAX_SENDERS = 4096


class ReplayFailure(NamedTuple):
    """Why a time stamp was refused: our pseudotime and the packet's, and the window (seconds)."""

    mine: float
    theirs: float
    window: float


class Pseudotime:
    """The group's clock as this node keeps it: `offset` seconds beside `now`. `epoch` tells it from others."""

    __slots__ = ("_now", "epoch", "offset")

    def __init__(self, epoch: int, offset: float, now: Callable[[], float]) -> None:
        self.epoch = epoch
        self.offset = offset
        self._now = now

    def read(self) -> float:
        """Seconds since the clock was made."""
        return self._now() + self.offset


class TimeStamps:
    """Time-based anti-replay of one SA: `window` seconds either side of `clock`.

    `failures` counts refused packets; `last` is the last one whose stamp was of this clock.
    """

    __slots__ = ("clock", "failures", "last", "window")

    def __init__(self, clock: Pseudotime, window: float) -> None:
        self.clock = clock
        self.window = window
        self.failures = 0
        self.last: ReplayFailure | None = None

    def stamp(self, buffer: memoryview, at: int, following: int) -> None:
        """Write the header of a packet of protocol `following` to buffer[at:at + TIME_HEADER]."""
        seconds, micro = divmod(int(self.clock.read() * MICROSECONDS), MICROSECONDS)
        _TIME_HEADER.pack_into(
            buffer, at, following, TYPE_PSEUDOTIME, TIME_HEADER, self.clock.epoch, seconds % _WRAP, micro
        )

    def check(self, buffer: memoryview, at: int, carried: int, following: int) -> None:
        """Raises DropPacket unless what ESP `carried` is, at buffer[at:], the header of a fresh packet of protocol
        `following`."""
        if carried != PROTOCOL_TIME:
            self._refuse(DropReason.TIME_STAMP, "a packet without a time stamp")
        inside, kind, length, epoch, seconds, micro = _TIME_HEADER.unpack_from(buffer, at)
        if kind != TYPE_PSEUDOTIME or length != TIME_HEADER or micro >= MICROSECONDS:
            self._refuse(DropReason.TIME_STAMP, "this is no time stamp")
        if epoch != self.clock.epoch:
            self._refuse(DropReason.TIME_STAMP, "a time stamp of another clock")
        mine = self.clock.read()
        # Seconds wrap: what counts is their difference as a signed number of 32 bits.
        whole = int(mine)
        ahead = (seconds - whole + _HALF) % _WRAP - _HALF + micro / MICROSECONDS - (mine - whole)
        if not -self.window <= ahead <= self.window:
            self.last = ReplayFailure(mine, mine + ahead, self.window)
            self._refuse(DropReason.REPLAY, f"{ahead:+.3f} s, the window is {self.window:g} s")
        if inside != following:
            raise DropPacket(DropReason.MALFORMED, f"next header {inside}")

    def _refuse(self, reason: DropReason, detail: str) -> NoReturn:
        self.failures += 1
        raise DropPacket(reason, detail)


class CounterWindow:
    """The `size` sequence numbers up to the highest that came (RFC 4303 3.4.3)."""

    __slots__ = ("_full", "_highest", "_seen", "_size")

    def __init__(self, size: int) -> None:
        self._size = size
        self._full = (1 << size) - 1
        self._highest = 0
        # Bit n: the number n below the highest.
        self._seen = 0

    def take(self, sequence: int) -> bool:
        """True for a number that is new. It has been seen then."""
        ahead = sequence - self._highest
        if ahead > 0:
            self._seen = (self._seen << ahead | 1) & self._full if ahead < self._size else 1
            self._highest = sequence
            return True
        if sequence == 0 or -ahead >= self._size or self._seen >> -ahead & 1:
            return False
        self._seen |= 1 << -ahead
        return True


class CounterWindows:
    """Counter-based anti-replay of one SA, `size` numbers a sender; `failures` counts refused packets.

    `sender_bits` of the IV say who sends; 0: nobody is told apart.
    """

    __slots__ = ("_shift", "_windows", "failures", "size")

    def __init__(self, size: int, sender_bits: int) -> None:
        self.size = size
        self.failures = 0
        self._shift = 64 - sender_bits
        self._windows: dict[int, CounterWindow] = {}

    def check(self, sequence: int, iv: int) -> None:
        """Raises DropPacket for a number that the sender with this IV (its first eight octets) has used before."""
        sender = iv >> self._shift
        window = self._windows.get(sender)
        if window is None:
            if len(self._windows) >= MAX_SENDERS:
                del self._windows[next(iter(self._windows))]
            window = self._windows[sender] = CounterWindow(self.size)
        if not window.take(sequence):
            self.failures += 1
            raise DropPacket(DropReason.REPLAY, f"sequence number {sequence}")


AntiReplay = TimeStamps | CounterWindows
