"""SAs that one side has and the other has not, after a restart: what is said of them, and what is believed.

A message in clear proves nothing (reference 2.8). That a peer has forgotten an SA is therefore a doubt, no fact: the
peer is asked to prove itself anew, and only then the SA that is in doubt ends.
"""

from __future__ import annotations

from collections import OrderedDict

from labctl.isakmp.header import ExchangeType, Header
from labctl.isakmp.limits import Limits
from labctl.isakmp.sa import Phase1Sa


class Restarts:
    """Of one endpoint: its SAs in doubt, those that ended a moment ago, and how often it says that it knows none."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._doubted: set[bytes] = set()
        self._ended: OrderedDict[bytes, float] = OrderedDict()
        self._said_since, self._said = 0.0, 0

    def believed(self, sa: Phase1Sa) -> bool:
        """Nobody says that the peer has forgotten it."""
        return sa.cookies not in self._doubted

    def doubt(self, sa: Phase1Sa) -> None:
        """Somebody says so."""
        self._doubted.add(sa.cookies)

    def ended(self, sa: Phase1Sa, now: float) -> None:
        """The SA is gone."""
        self._doubted.discard(sa.cookies)
        self._ended[sa.cookies] = now + self._limits.farewell_seconds
        while len(self._ended) > self._limits.farewells:
            self._ended.popitem(last=False)

    def may_answer(self, header: Header, now: float) -> bool:
        """Is the sender of a message under an SA that we do not have to be told? Counts the answer.

        Not for a farewell that crossed ours, not for what is in clear (it could be an answer itself), not too often.
        """
        crossed = header.exchange == ExchangeType.INFORMATIONAL and now < self._ended.get(header.cookies, now)
        if not header.encrypted or crossed:
            return False
        if now >= self._said_since + 1.0:
            self._said_since, self._said = now, 0
        self._said += 1
        return self._said <= self._limits.unknown_answers
