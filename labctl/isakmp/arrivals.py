"""Exchanges of phase 1 that peers begin: which are let in, which make place, and which come back from their cookie."""

from __future__ import annotations

from collections.abc import Callable

from labctl.isakmp.admission import AdmissionRefused, HalfOpen, HalfOpenExchanges
from labctl.isakmp.cookies import Cookies
from labctl.isakmp.counts import Counts
from labctl.isakmp.datagram import Datagram
from labctl.isakmp.events import AdmissionLimit, Event
from labctl.isakmp.header import HEADER_OCTETS, ZERO_COOKIE, ExchangeType, Header, PayloadType
from labctl.isakmp.limits import Limits
from labctl.isakmp.main_mode import MainMode, RandomSource, Terms
from labctl.isakmp.requests import Key
from labctl.isakmp.timers import Timers
from labctl.isakmp.upper import Received


class Arrivals:
    """Fills the half-open exchanges of an endpoint with those of its peers, on its timers; `tell` takes its events."""

    def __init__(
        self,
        half_open: HalfOpenExchanges,
        limits: Limits,
        timers: Timers[Key],
        counts: Counts,
        tell: Callable[[Event], None],
        random: RandomSource,
    ) -> None:
        self._half_open = half_open
        self._limits = limits
        self._timers = timers
        self._counts = counts
        self._tell = tell
        self._cookies = Cookies(random, limits.half_open_seconds)

    def begin(self, received: Received, terms: Terms, now: float) -> bytes:
        """Keep the exchange that a message 1 begins; returns message 2.

        Raises NotAdmitted where it finds no place, and PeerError where its offer cannot be accepted.
        """
        datagram = received.datagram
        initiator_cookie = received.header.initiator_cookie
        try:
            crowded = self._half_open.admit(datagram.source, initiator_cookie)
        except AdmissionRefused:
            self._counts.refused_by_admission += 1
            self._tell(AdmissionLimit(datagram.source, now))
            raise
        offer = datagram.data[HEADER_OCTETS:]
        cookie = self._cookies.make(datagram.destination, datagram.source, initiator_cookie, offer, now)
        exchange, answer = _answer(datagram, received.header, datagram.data, cookie, terms)
        if crowded is not None:
            self._tell(AdmissionLimit(datagram.source, now))
        self._keep(exchange, crowded, now)
        return answer

    def restore(self, received: Received, terms: Terms, now: float) -> HalfOpen | None:
        """The exchange that made place for others and goes on with this message 3, made anew from our cookie in it.

        None where that is no cookie of ours, or too old. Raises AdmissionRefused.
        """
        header, datagram = received.header, received.datagram
        if header.encrypted:
            return None
        cookie = header.responder_cookie
        offer = self._cookies.recall(cookie, datagram.destination, datagram.source, header.initiator_cookie, now)
        if offer is None:
            return None
        crowded = self._half_open.admit_proven(datagram.source)
        first = Header(header.initiator_cookie, ZERO_COOKIE, PayloadType.SA, ExchangeType.MAIN_MODE)
        first = first.with_length(HEADER_OCTETS + len(offer))
        exchange, _ = _answer(datagram, first, first.pack() + offer, cookie, terms)
        self._counts.half_open_restored += 1
        return self._half_open.get(self._keep(exchange, crowded, now))

    def drop(self, cookie: bytes) -> None:
        """The exchange with this cookie of ours is over."""
        self._half_open.remove(cookie)
        self._timers.cancel(("half-open", cookie, 0))

    def authenticated(self, cookie: bytes) -> None:
        """It has come to a good end: its offer is worth keeping."""
        self._cookies.authenticated(cookie)

    def _keep(self, exchange: MainMode, crowded: bytes | None, now: float) -> bytes:
        """Keep an exchange, in the place of another if need be; returns our cookie."""
        if crowded is not None:
            self._counts.half_open_dropped += 1
            self.drop(crowded)
        cookie = self._half_open.add(exchange)
        self._timers.set(("half-open", cookie, 0), now + self._limits.half_open_seconds)
        return cookie


def _answer(datagram: Datagram, header: Header, first: bytes, cookie: bytes, terms: Terms) -> tuple[MainMode, bytes]:
    """The exchange that a message 1 begins, and message 2. Raises PeerError."""
    exchange = MainMode(terms, datagram.destination, datagram.source, initiator=False, cookie=cookie)
    return exchange, exchange.answer_offer(header, first)
