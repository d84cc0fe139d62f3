"""Rekeys under a KEK that a member does not know (yet): signs that it has missed how a key tree was renewed.

Leaving somebody out takes two rekeys (RFC 6407 7.4.1): the first brings a KEK, the second is under it. The second may
arrive first; it is kept until the first is there. If that never comes, the member has to register again, and long
before its own keys would make it: the others go over to new ones within a minute or two.

Anybody can send datagrams with a strange KEK. Each such KEK makes a member register at most once, and all of them
together once in a while.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from labctl.isakmp.datagram import Datagram

# Datagrams that are kept, and KEKs that are remembered: present and former ones, and those that led to nothing.
MOST_KEPT = 4
MOST_SPENT = 32


@dataclass(slots=True)
class EarlyRekeys:
    """What came under KEKs that are not there yet."""

    kept: deque[Datagram] = field(default_factory=lambda: deque(maxlen=MOST_KEPT))
    # Rekeys under these are late copies, or came to nothing.
    _spent: deque[bytes] = field(default_factory=lambda: deque(maxlen=MOST_SPENT))
    _waiting_for: set[bytes] = field(default_factory=set)
    # Not before this moment does a strange KEK make the member register again.
    _quiet_until: float = float("-inf")

    def keep(self, spi: bytes, datagram: Datagram, now: float) -> bool:
        """Keep a rekey under an unknown KEK. True if the member shall wait for that KEK, and register without it."""
        if spi in self._spent:
            return False
        if datagram not in self.kept:
            self.kept.append(datagram)
        return self.suspect(spi, now)

    def suspect(self, spi: bytes, now: float) -> bool:
        """There is a KEK that others have. True if the member shall wait for it, and register without it."""
        if spi in self._spent or now < self._quiet_until:
            return False
        started = not self._waiting_for
        if len(self._waiting_for) < MOST_KEPT:
            self._waiting_for.add(spi)
        return started

    def learned(self, spi: bytes) -> list[Datagram]:
        """A rekey has brought a KEK: what was kept for it."""
        self._remember(spi)
        self._waiting_for.discard(spi)
        found = [datagram for datagram in self.kept if datagram.data.startswith(spi)]
        for datagram in found:
            self.kept.remove(datagram)
        return found

    def registered(self, spi: bytes) -> None:
        """A registration has brought a KEK, and all that came under it before: nothing is missing."""
        self._remember(spi)
        self._waiting_for.clear()
        self.kept.clear()

    def give_up(self, now: float, quiet: float) -> bool:
        """The wait is over. True if the KEK has not come: the member registers again, and then not for `quiet` s."""
        waiting, self._waiting_for = self._waiting_for, set()
        for spi in waiting:
            self._remember(spi)
        self.kept.clear()
        if waiting:
            self._quiet_until = now + quiet
        return bool(waiting)

    def _remember(self, spi: bytes) -> None:
        if spi not in self._spent:
            self._spent.append(spi)
