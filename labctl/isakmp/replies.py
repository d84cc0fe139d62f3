"""Replies kept for duplicates of what they answer, found by digest before any cryptography (reference 2.11)."""

from __future__ import annotations

from collections import OrderedDict

from labctl.isakmp.datagram import Datagram


class Replies:
    """At most `most` replies, each for `seconds`; a peer that sends more loses the oldest."""

    def __init__(self, most: int, seconds: float) -> None:
        self._most = most
        self._seconds = seconds
        # In the order kept, which is the order in which they end.
        self._kept: OrderedDict[bytes, tuple[float, Datagram | None]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def keep(self, digest: bytes, answer: Datagram | None, now: float) -> None:
        """Remember what a message was answered with; None: it was dealt with and has no answer."""
        self._expire(now)
        self._kept[digest] = (now + self._seconds, answer)
        self._kept.move_to_end(digest)
        while len(self._kept) > self._most:
            self._kept.popitem(last=False)

    def find(self, digest: bytes, now: float) -> tuple[bool, Datagram | None]:
        """Whether the message has been dealt with, and its answer."""
        self._expire(now)
        kept = self._kept.get(digest)
        return (False, None) if kept is None else (True, kept[1])

    def _expire(self, now: float) -> None:
        while self._kept and next(iter(self._kept.values()))[0] <= now:
            self._kept.popitem(last=False)
