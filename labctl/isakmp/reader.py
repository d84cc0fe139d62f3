"""A bounded reader: nested lengths cannot run past what holds them."""

from __future__ import annotations

import struct

from labctl.isakmp.errors import MalformedMessage

_GENERIC, _TWO = struct.Struct("!BBH"), struct.Struct("!HH")


class Reader:
    """Reads octets from `data[start:end]`. Every overrun raises MalformedMessage."""

    __slots__ = ("_data", "_end", "_position")

    def __init__(self, data: bytes, start: int = 0, end: int | None = None) -> None:
        self._data = data
        self._position = start
        self._end = len(data) if end is None else end

    @property
    def left(self) -> int:
        """Octets not read yet."""
        return self._end - self._position

    @property
    def position(self) -> int:
        """Where the next octet stands in the whole data."""
        return self._position

    def take(self, count: int) -> bytes:
        """The next `count` octets."""
        start = self._advance(count)
        return bytes(self._data[start : start + count])

    def _advance(self, count: int) -> int:
        start = self._position
        if count < 0 or start + count > self._end:
            raise MalformedMessage(f"{count} octets wanted, {self.left} left")
        self._position = start + count
        return start

    def rest(self) -> bytes:
        """All that is left."""
        return self.take(self.left)

    def peek(self) -> bytes:
        """All that is left, without reading it."""
        return bytes(self._data[self._position : self._end])

    def u8(self) -> int:
        """One octet."""
        position = self._position
        if position >= self._end:
            self._advance(1)
        self._position = position + 1
        return self._data[position]

    def u16(self) -> int:
        """Two octets, network order."""
        start = self._advance(2)
        return self._data[start] << 8 | self._data[start + 1]

    def two_u16(self) -> tuple[int, int]:
        """Twice two octets, network order."""
        start = self._advance(_TWO.size)
        found: tuple[int, int] = _TWO.unpack_from(self._data, start)
        return found

    def generic_header(self) -> tuple[int, int, int]:
        """A generic payload header (RFC 2408 3.2): next payload, reserved octet, length."""
        start = self._advance(_GENERIC.size)
        found: tuple[int, int, int] = _GENERIC.unpack_from(self._data, start)
        return found

    def u32(self) -> int:
        """Four octets, network order."""
        start = self._advance(4)
        return int.from_bytes(self._data[start : start + 4], "big")

    def restrict_to(self, count: int) -> Reader:
        """A reader of the next `count` octets, which this one skips."""
        start = self._position
        if count < 0 or start + count > self._end:
            raise MalformedMessage(f"a length of {count} octets, {self.left} left")
        self._position = start + count
        return Reader(self._data, start, start + count)

    def finish(self, what: str) -> None:
        """Raises MalformedMessage if octets are left."""
        if self._position != self._end:
            raise MalformedMessage(f"{self.left} octets too many in {what}")
