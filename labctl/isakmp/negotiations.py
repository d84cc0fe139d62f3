"""Phase 1 in the making: the Main Mode exchanges of an endpoint, either way, until they make an SA or come to nothing.

RFC 2409 5, reference 1.4 and 2. Each exchange is a `main_mode.MainMode`; here is which one a message belongs to, what
is sent again, what a bad message leads to, and how an exchange fails. Whose exchanges are let in: `arrivals`.
"""

from __future__ import annotations

from collections.abc import Callable

from labctl.isakmp import events, refusals
from labctl.isakmp.admission import HalfOpen, HalfOpenExchanges, NotAdmitted
from labctl.isakmp.arrivals import Arrivals
from labctl.isakmp.associations import Associations
from labctl.isakmp.authentication import CredentialMissing
from labctl.isakmp.counts import Counts
from labctl.isakmp.datagram import Datagram, Endpoint
from labctl.isakmp.errors import NotifyType, PeerError
from labctl.isakmp.events import Cause
from labctl.isakmp.header import ZERO_COOKIE, Doi
from labctl.isakmp.limits import Limits
from labctl.isakmp.main_mode import MainMode, State, Terms
from labctl.isakmp.outgoing import Outgoing
from labctl.isakmp.payloads import Notification
from labctl.isakmp.payloads.control import PROTOCOL_ISAKMP
from labctl.isakmp.requests import Key, Requests
from labctl.isakmp.restarts import Restarts
from labctl.isakmp.timers import Timers
from labctl.isakmp.upper import Received

# A failure as the endpoint takes it: the peer, whether we began, a `Cause`, the reason in words, now.
Fail = Callable[[Endpoint, bool, str, str, float], None]


class Negotiations:
    """The exchanges of one endpoint, held under its `terms`. `tell` takes its events, `fail` exchanges that failed."""

    def __init__(
        self,
        terms: Terms,
        associations: Associations,
        restarts: Restarts,
        requests: Requests,
        outgoing: Outgoing,
        limits: Limits,
        timers: Timers[Key],
        counts: Counts,
        *,
        tell: Callable[[events.Event], None],
        fail: Fail,
    ) -> None:
        self.half_open = HalfOpenExchanges(limits)
        self._terms = terms
        self._associations = associations
        self._restarts = restarts
        self._requests = requests
        self._outgoing = outgoing
        self._counts = counts
        self._tell = tell
        self._fail = fail
        self._arrivals = Arrivals(self.half_open, limits, timers, counts, tell, terms.random)

    def begin(self, local: Endpoint, peer: Endpoint, now: float, *, doi: int) -> bool:
        """Send message 1. False, with `fail`, where there is neither key nor certificate for the peer."""
        exchange = MainMode(self._terms, local, peer, initiator=True)
        try:
            data = exchange.first_message(doi=doi)
        except CredentialMissing as error:
            self._fail(peer, True, Cause.NO_KEY, error.reason, now)
            return False
        cookie = self.half_open.add(exchange)
        self._requests.send(("phase1", cookie, 0), Datagram(data, local, peer), now)
        return True

    def abandon(self, peer: Endpoint) -> None:
        """Stop every exchange of ours with a peer."""
        for cookie, entry in self.half_open:
            if entry.exchange.initiator and entry.exchange.peer == peer:
                self._drop(cookie)

    def receive(self, received: Received, now: float) -> MainMode | None:
        """Take a message of Main Mode; returns the exchange that came to a good end with it. Raises PeerError."""
        header, datagram = received.header, received.datagram
        if header.message_id != 0:
            raise PeerError("phase 1 has message ID 0", NotifyType.INVALID_MESSAGE_ID)
        if header.responder_cookie == ZERO_COOKIE:
            self._answer_offer(received, now)
            return None
        cookie = header.initiator_cookie if header.initiator_cookie in self.half_open else header.responder_cookie
        entry = self.half_open.get(cookie) or self._restore(received, now)
        if entry is None or entry.exchange.peer != datagram.source:
            raise PeerError("no phase 1 with these cookies", NotifyType.INVALID_COOKIE)
        exchange = entry.exchange
        if exchange.initiator:
            exchange.says_initial_contact = self._is_first_contact(exchange.peer)
        if exchange.state is not State.WAIT_SA and exchange.cookies != header.cookies:
            raise PeerError("no phase 1 with these cookies", NotifyType.INVALID_COOKIE)
        try:
            answer = exchange.receive(header, datagram.data, now)
        except PeerError as error:
            self._dislike(entry, received, error, now)
            raise
        if exchange.initiator:
            self._requests.settle(("phase1", cookie, 0))
            self._outgoing.answer(received, None, now)
            if answer is not None:
                self._requests.send(("phase1", cookie, 0), Datagram(answer, exchange.local, exchange.peer), now)
        else:
            self.half_open.prove(cookie)
            self._outgoing.answer(received, answer, now)
        if exchange.sa is None:
            return None
        self._drop(cookie)
        if not exchange.initiator:
            self._arrivals.authenticated(cookie)
        return exchange

    def take_hint(self, entry: HalfOpen, notification: Notification) -> None:
        """The peer of an exchange says in clear that it refuses it: shown, and the reason if it fails, no more."""
        exchange = entry.exchange
        cause, reason = refusals.explain(notification, exchange.method.signs, exchange.vendor_ids)
        entry.hint = events.Phase1Hint(exchange.peer, cause, reason)
        self._tell(entry.hint)

    def time_out(self, cookie: bytes, now: float) -> None:
        """An exchange has taken too long: it failed, for the reason that is best known."""
        entry = self.half_open.get(cookie)
        if entry is None:
            return
        exchange = entry.exchange
        self._drop(cookie)
        if entry.hint is not None:
            self._fail(exchange.peer, exchange.initiator, entry.hint.cause, entry.hint.reason, now)
        elif not entry.reported:
            expected = {State.WAIT_SA: "message 2", State.WAIT_KE_OF_RESPONDER: "message 4"}
            waited = expected.get(exchange.state, f"message {exchange.state.value}")
            reason = "it does not answer" if exchange.state is State.WAIT_SA else f"{waited} never came"
            self._fail(exchange.peer, exchange.initiator, Cause.TIMEOUT, reason, now)

    def _is_first_contact(self, peer: Endpoint) -> bool:
        """No SA with the peer that we believe in: it may forget what it has of us (RFC 2407 4.6.3.3)."""
        held = (sa for sa in self._associations.of(peer.address) if self._restarts.believed(sa))
        return self._terms.initial_contact and next(held, None) is None

    def _answer_offer(self, received: Received, now: float) -> None:
        peer = received.datagram.source
        try:
            answer = self._arrivals.begin(received, self._terms, now)
        except NotAdmitted:
            raise
        except PeerError as error:
            self._outgoing.refuse(received, error.notify, now)
            self._fail(peer, False, refusals.cause_of(error), error.reason, now)
            raise
        self._outgoing.answer(received, answer, now)

    def _restore(self, received: Received, now: float) -> HalfOpen | None:
        """The exchange of a message 3 that made place for others meanwhile. Not one that has come to its end."""
        if self._associations.get(received.header.cookies) is not None:
            return None
        return self._arrivals.restore(received, self._terms, now)

    def _dislike(self, entry: HalfOpen, received: Received, error: PeerError, now: float) -> None:
        """A bad message does not end an exchange: anybody can send one. It is told once, and counts at the end."""
        exchange, cause = entry.exchange, refusals.cause_of(error)
        text = refusals.text_for(error, exchange.vendor_ids)
        if exchange.initiator:
            entry.hint = events.Phase1Hint(exchange.peer, cause, error.reason)
            self._tell(entry.hint)
            if cause == Cause.CERTIFICATE and not entry.reported:
                entry.reported = True
                sa = exchange.refusing(received.datagram.data)
                self._outgoing.inform(sa, Notification(error.notify, Doi.GDOI, PROTOCOL_ISAKMP, sa.cookies, text))
        elif not entry.reported:
            entry.reported = True
            self._outgoing.refuse(received, error.notify, now, text)
            self._fail(exchange.peer, False, cause, error.reason, now)

    def _drop(self, cookie: bytes) -> None:
        self._arrivals.drop(cookie)
        self._requests.settle(("phase1", cookie, 0))
