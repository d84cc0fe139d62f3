"""Dead peer detection (RFC 3706; reference 2.9): when to ask a peer, which answers count, when it is dead.

Periodic, a peer is asked every `interval` seconds. On demand, it is asked when something is sent to it and nothing
came from it for `interval`. A question that is not answered is repeated every `retry` seconds.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Address

from labctl.configuration import Keepalive
from labctl.isakmp.errors import NotifyType, PeerError
from labctl.isakmp.header import Doi
from labctl.isakmp.limits import Limits
from labctl.isakmp.main_mode import RandomSource
from labctl.isakmp.payloads import Notification
from labctl.isakmp.payloads.control import PROTOCOL_ISAKMP
from labctl.isakmp.requests import Key
from labctl.isakmp.sa import Phase1Sa
from labctl.isakmp.timers import Timers
from labctl.isakmp.vendor import DEAD_PEER_DETECTION

SEQUENCE_OCTETS = 4


class Verdict(Enum):
    """What is to be done about a peer."""

    NOTHING = "nothing"
    ASK = "ask"
    DEAD = "dead"


@dataclass(slots=True)
class _Watch:
    heard: float
    # The number of the question under way, else of the next one; how often it was sent.
    sequence: int
    asked: int = 0
    # The newest number that the peer asked with.
    asked_by_peer: int | None = None


class Liveness:
    """The peers of an endpoint's SAs, on its timers. The endpoint sends what `question` and `answer` make.

    `peers`: who is asked; None asks everybody.
    """

    def __init__(
        self,
        keepalive: Keepalive | None,
        peers: Collection[IPv4Address] | None,
        limits: Limits,
        timers: Timers[Key],
        random: RandomSource,
    ) -> None:
        self._keepalive = keepalive
        self._peers = peers
        self._limits = limits
        self._timers = timers
        self._random = random
        self._watched: dict[bytes, _Watch] = {}

    def begin(self, sa: Phase1Sa, now: float) -> None:
        """Watch the peer of a new SA. The first number is random, its top bit zero (RFC 3706 5.4)."""
        first = int.from_bytes(self._random(SEQUENCE_OCTETS), "big") & 0x7FFFFFFF
        self._watched[sa.cookies] = _Watch(now, first)
        keepalive = self._used(sa)
        if keepalive is not None and keepalive.periodic:
            self._timers.set(_key(sa), now + keepalive.interval)

    def end(self, sa: Phase1Sa) -> None:
        """The SA is gone."""
        self._watched.pop(sa.cookies, None)
        self._timers.cancel(_key(sa))

    def heard(self, sa: Phase1Sa, now: float) -> None:
        """Something authentic came from the peer: a question under way is answered by it as well."""
        watch = self._watched.get(sa.cookies)
        if watch is None:
            return
        watch.heard = now
        if watch.asked:
            watch.asked = 0
            watch.sequence += 1
            self._rest(sa, now)

    def sending(self, sa: Phase1Sa, now: float) -> bool:
        """Something is sent to the peer: is it to be asked on demand?"""
        watch, keepalive = self._watched.get(sa.cookies), self._used(sa)
        if watch is None or keepalive is None or keepalive.periodic or watch.asked:
            return False
        return now >= watch.heard + keepalive.interval

    def question(self, sa: Phase1Sa, now: float) -> Notification:
        """R-U-THERE, the first time or again: the same number (reference 2.9)."""
        watch = self._watched[sa.cookies]
        watch.asked += 1
        if self._keepalive is not None:
            self._timers.set(_key(sa), now + self._keepalive.retry)
        return _notification(NotifyType.R_U_THERE, sa, watch.sequence)

    def answer(self, sa: Phase1Sa, question: Notification) -> Notification:
        """R-U-THERE-ACK with the number of a question. Raises PeerError for one that is no question of this SA."""
        number = _number(sa, question)
        watch = self._watched[sa.cookies]
        if watch.asked_by_peer is not None and number < watch.asked_by_peer:
            raise PeerError("R-U-THERE with a number before the last one: a replay", NotifyType.INVALID_MESSAGE_ID)
        watch.asked_by_peer = number
        return _notification(NotifyType.R_U_THERE_ACK, sa, number)

    def acknowledged(self, sa: Phase1Sa, answer: Notification, now: float) -> None:
        """Take R-U-THERE-ACK. Raises PeerError unless it has the number of the question under way."""
        number = _number(sa, answer)
        watch = self._watched[sa.cookies]
        if not watch.asked or number != watch.sequence:
            raise PeerError("R-U-THERE-ACK with a number that was not asked with", NotifyType.INVALID_MESSAGE_ID)
        self.heard(sa, now)

    def on_timer(self, sa: Phase1Sa) -> Verdict:
        """The timer of an SA has fired."""
        watch = self._watched.get(sa.cookies)
        if watch is None or self._used(sa) is None:
            return Verdict.NOTHING
        return Verdict.DEAD if watch.asked > self._limits.keepalive_retries else Verdict.ASK

    def waits(self, sa: Phase1Sa) -> bool:
        """Is a question under way?"""
        watch = self._watched.get(sa.cookies)
        return watch is not None and watch.asked > 0

    def _rest(self, sa: Phase1Sa, now: float) -> None:
        keepalive = self._used(sa)
        if keepalive is not None and keepalive.periodic:
            self._timers.set(_key(sa), now + keepalive.interval)
        else:
            self._timers.cancel(_key(sa))

    def _used(self, sa: Phase1Sa) -> Keepalive | None:
        """The settings, for peers that are to be asked and understand it (RFC 3706 5.1)."""
        if DEAD_PEER_DETECTION not in sa.peer_vendor_ids:
            return None
        return self._keepalive if self._peers is None or sa.peer.address in self._peers else None


def _key(sa: Phase1Sa) -> Key:
    return ("liveness", sa.cookies, 0)


def _notification(kind: NotifyType, sa: Phase1Sa, number: int) -> Notification:
    data = (number & 0xFFFFFFFF).to_bytes(SEQUENCE_OCTETS, "big")
    return Notification(kind, Doi.IPSEC, PROTOCOL_ISAKMP, sa.cookies, data)


def _number(sa: Phase1Sa, notification: Notification) -> int:
    """RFC 3706 5.3: the SPI is both cookies, the data a number of four octets. Raises PeerError."""
    if notification.spi != sa.cookies or len(notification.data) != SEQUENCE_OCTETS:
        raise PeerError(f"{notification.name} that is not about this SA, or without a number of four octets")
    return int.from_bytes(notification.data, "big")
