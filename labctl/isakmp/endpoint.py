"""Everything ISAKMP on one UDP port: phase 1 either way, informational exchanges, retransmission, duplicates.

A key server or a group member embeds an `IsakmpEndpoint` and hands it every datagram; exchanges of its own come
back to it through `UpperExchanges`. Demultiplexing as in reference 1.4: exchanges 33 and 35 have no phase-1 context
and go up raw; all else belongs to a phase-1 SA or to one in the making, by its cookies.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Sequence

from labctl import crypto
from labctl.configuration import Hash, IsakmpPolicy, PreSharedKey, Trustpoint
from labctl.isakmp import events, refusals
from labctl.isakmp.admission import HalfOpen, HalfOpenExchanges
from labctl.isakmp.authentication import UNKNOWN, CertificateRefused, CredentialMissing, Credentials
from labctl.isakmp.datagram import Datagram, Endpoint
from labctl.isakmp.errors import MalformedMessage, NotifyType, PeerError
from labctl.isakmp.events import Cause
from labctl.isakmp.header import HEADER_OCTETS, ZERO_COOKIE, Doi, ExchangeType, Header, PayloadType
from labctl.isakmp.limits import Limits
from labctl.isakmp.main_mode import MainMode, RandomSource, State, Terms
from labctl.isakmp.payloads import Delete, Notification, Payload, pack_chain, parse_chain
from labctl.isakmp.payloads.control import PROTOCOL_ISAKMP
from labctl.isakmp.reader import Reader
from labctl.isakmp.replies import Replies
from labctl.isakmp.requests import Key, Outcome, Requests
from labctl.isakmp.sa import Phase1Sa
from labctl.isakmp.timers import Timers
from labctl.isakmp.upper import Received, UpperExchanges

__all__ = ["IsakmpEndpoint", "Limits", "Received", "UpperExchanges"]


class IsakmpEndpoint:
    """Phase 1 on one port. Not bound to an address: replies leave from where the request came to.

    `initial_contact`: nobody else at our address holds SAs with the same peers, so a new one replaces all.
    `started`: the wall clock, in seconds since 1970, when `now` is 0; certificates are looked at on it.
    Raises LocalError for a trustpoint that cannot be read.
    """

    def __init__(
        self,
        upper: UpperExchanges,
        *,
        policies: Sequence[IsakmpPolicy],
        pre_shared_keys: Sequence[PreSharedKey],
        trustpoints: Sequence[Trustpoint] = (),
        started: float = 0.0,
        random: RandomSource,
        relaxed_doi: bool = True,
        initial_contact: bool = True,
        limits: Limits | None = None,
    ) -> None:
        self.limits = limits or Limits()
        self._upper = upper
        self._policies = tuple(policies)
        self._credentials = Credentials(pre_shared_keys, trustpoints, started)
        self._random = random
        self._relaxed_doi = relaxed_doi
        self._initial_contact = initial_contact
        self._associations: OrderedDict[bytes, Phase1Sa] = OrderedDict()
        self._half_open = HalfOpenExchanges(self.limits)
        self._replies = Replies(self.limits.replies, self.limits.reply_seconds)
        self._timers: Timers[Key] = Timers()
        self._outgoing: list[Datagram] = []
        self._requests = Requests(self.limits, self._timers, self._outgoing)
        self._events: deque[events.Event] = deque(maxlen=self.limits.events)

    # What the owner reads.

    @property
    def associations(self) -> Sequence[Phase1Sa]:
        """Established SAs, oldest first."""
        return list(self._associations.values())

    @property
    def half_open_count(self) -> int:
        """Exchanges in the making, ours and the peers'."""
        return len(self._half_open)

    @property
    def kept_replies(self) -> int:
        """Replies kept for duplicates."""
        return len(self._replies)

    def association_with(self, peer: Endpoint) -> Phase1Sa | None:
        """The newest SA with a peer."""
        return next((sa for sa in reversed(self._associations.values()) if sa.peer == peer), None)

    def datagrams_to_send(self) -> list[Datagram]:
        """What has to leave, in order; the list is emptied."""
        out = self._outgoing[:]
        self._outgoing.clear()
        return out

    def next_event(self) -> events.Event | None:
        """The oldest event not fetched yet."""
        return self._events.popleft() if self._events else None

    def next_deadline(self) -> float | None:
        """When `handle_timer` wants to be called."""
        return self._timers.next_deadline()

    # What the owner does.

    def initiate(self, local: Endpoint, peer: Endpoint, now: float, *, doi: int = Doi.GDOI) -> bool:
        """Begin phase 1. False, with `on_failed`, where there is neither key nor certificate for the peer."""
        exchange = MainMode(self._terms(), local, peer, initiator=True)
        try:
            data = exchange.first_message(doi=doi)
        except CredentialMissing as error:
            self._fail(peer, True, Cause.NO_KEY, error.reason, now)
            return False
        cookie = self._half_open.add(exchange)
        self._requests.send(("phase1", cookie, 0), Datagram(data, local, peer), now)
        return True

    def abandon(self, peer: Endpoint) -> None:
        """Stop every phase 1 of ours with a peer."""
        for cookie, entry in self._half_open:
            if entry.exchange.initiator and entry.exchange.peer == peer:
                self._drop_half_open(cookie)

    def set_trustpoints(self, trustpoints: Sequence[Trustpoint], now: float) -> None:
        """Certificates, CAs and CRLs from now on; SAs whose certificate they do not bear out end.

        Raises LocalError, changing nothing, for a trustpoint that cannot be read.
        """
        self._credentials.set_trustpoints(trustpoints)
        for sa in self.associations:
            reason = self.refuses(sa.certificates, now)
            if reason:
                self.delete(sa, now, reason)

    def refuses(self, certificates: Sequence[crypto.Certificate], now: float) -> str:
        """Why a peer with these certificates is not believed any more; empty if it is, or has none.

        A CRL that is missing or outdated says nothing against anybody: it counts when phase 1 is held the next time.
        """
        try:
            if certificates:
                self._credentials.path_of(certificates, now)
        except CertificateRefused as error:
            return "" if error.refusal in UNKNOWN else error.reason
        return ""

    def send(self, sa: Phase1Sa, data: bytes) -> None:
        """Send a message under an SA, once."""
        self._outgoing.append(Datagram(data, sa.local, sa.peer))

    def request(self, sa: Phase1Sa, message_id: int, data: bytes, now: float) -> None:
        """Send a message that awaits an answer: resent until `answered`, else `on_request_failed`."""
        self._requests.send(("exchange", sa.cookies, message_id), Datagram(data, sa.local, sa.peer), now)

    def answered(self, sa: Phase1Sa, message_id: int) -> None:
        """The request needs no more copies."""
        self._requests.settle(("exchange", sa.cookies, message_id))

    def reply(self, received: Received, data: bytes | None, now: float) -> None:
        """Answer a message (or note, with None, that it is dealt with): a duplicate of it gets the same again."""
        answer = None
        if data is not None:
            answer = Datagram(data, received.datagram.destination, received.datagram.source)
            self._outgoing.append(answer)
        self._replies.keep(received.digest, answer, now)

    def notify(self, sa: Phase1Sa, kind: NotifyType, data: bytes = b"") -> None:
        """Tell a peer something under an SA (RFC 2409 5.7)."""
        self._inform(sa, Notification(kind, Doi.GDOI, PROTOCOL_ISAKMP, sa.cookies, data))

    def delete(self, sa: Phase1Sa, now: float, reason: str, *, tell: bool = True) -> None:
        """End an SA, telling the peer with a Delete (reference 2.8)."""
        if self._associations.pop(sa.cookies, None) is None:
            return
        if tell:
            self._inform(sa, Delete(Doi.GDOI, PROTOCOL_ISAKMP, len(sa.cookies), (sa.cookies,)))
        self._timers.cancel(("association", sa.cookies, 0))
        self._requests.settle_all(sa.cookies)
        self._events.append(events.Phase1Deleted(sa, reason))
        self._upper.on_deleted(sa, reason, now)

    def receive(self, datagram: Datagram, now: float) -> None:
        """Take a datagram. Whatever it holds, nothing is raised: a MessageDropped event says why it led to nothing."""
        try:
            header = Header.parse(datagram.data)
            digest = crypto.digest(Hash.SHA256, datagram.source.packed, datagram.data)
            if self._resend(digest, now):
                return
            self._dispatch(Received(header, datagram, digest), now)
        except PeerError as error:
            self._events.append(events.MessageDropped(datagram.source, error.reason))

    def handle_timer(self, now: float) -> None:
        """Do what is due: copies of requests, the end of exchanges and of SAs."""
        while (key := self._timers.pop_due(now)) is not None:
            kind, cookies, _ = key
            if kind == "association":
                sa = self._associations.get(cookies)
                if sa is not None:
                    self.delete(sa, now, "lifetime expired")
            elif kind == "half-open":
                self._time_out(cookies, now)
            else:
                self._resend_request(key, now)

    # Receiving.

    def _resend(self, digest: bytes, now: float) -> bool:
        known, answer = self._replies.find(digest, now)
        if answer is not None:
            self._outgoing.append(answer)
        return known

    def _dispatch(self, received: Received, now: float) -> None:
        header = received.header
        if header.exchange in (ExchangeType.GROUPKEY_PUSH, ExchangeType.GROUPKEY_PUSH_ACK):
            self._upper.on_group_datagram(received, now)
        elif header.exchange == ExchangeType.MAIN_MODE:
            self._receive_main_mode(received, now)
        elif header.exchange == ExchangeType.INFORMATIONAL:
            self._receive_informational(received, now)
        else:
            sa = self._associations.get(header.cookies)
            if sa is None:
                raise PeerError("no phase-1 SA with these cookies", NotifyType.INVALID_COOKIE)
            if header.message_id == 0:
                raise PeerError("message ID 0 outside phase 1", NotifyType.INVALID_MESSAGE_ID)
            self._upper.on_exchange(sa, received, now)

    def _receive_main_mode(self, received: Received, now: float) -> None:
        header, datagram = received.header, received.datagram
        if header.message_id != 0:
            raise PeerError("phase 1 has message ID 0", NotifyType.INVALID_MESSAGE_ID)
        if header.responder_cookie == ZERO_COOKIE:
            self._answer_offer(received, now)
            return
        cookie = header.initiator_cookie if header.initiator_cookie in self._half_open else header.responder_cookie
        entry = self._half_open.get(cookie)
        if entry is None or entry.exchange.peer != datagram.source:
            raise PeerError("no phase 1 with these cookies", NotifyType.INVALID_COOKIE)
        exchange = entry.exchange
        if exchange.state is not State.WAIT_SA and exchange.cookies != header.cookies:
            raise PeerError("no phase 1 with these cookies", NotifyType.INVALID_COOKIE)
        try:
            answer = exchange.receive(header, datagram.data, now)
        except PeerError as error:
            self._phase1_error(cookie, entry, received, error, now)
            raise
        if exchange.initiator:
            self._requests.settle(("phase1", cookie, 0))
            self.reply(received, None, now)
            if answer is not None:
                self._requests.send(("phase1", cookie, 0), Datagram(answer, exchange.local, exchange.peer), now)
        else:
            self.reply(received, answer, now)
        if exchange.sa is not None:
            self._establish(cookie, exchange, exchange.sa, now)

    def _answer_offer(self, received: Received, now: float) -> None:
        datagram = received.datagram
        peer = datagram.source
        self._half_open.admit(peer, received.header.initiator_cookie)
        exchange = MainMode(self._terms(), datagram.destination, peer, initiator=False)
        try:
            answer = exchange.answer_offer(received.header, datagram.data)
        except PeerError as error:
            self._refuse(received, error.notify, now)
            self._fail(peer, False, refusals.cause_of(error), error.reason, now)
            raise
        cookie = self._half_open.add(exchange)
        self._timers.set(("half-open", cookie, 0), now + self.limits.half_open_seconds)
        self.reply(received, answer, now)

    def _phase1_error(self, cookie: bytes, entry: HalfOpen, received: Received, error: PeerError, now: float) -> None:
        """A bad message does not end an exchange: anybody can send one. It is told once, and counts at the end."""
        exchange, cause = entry.exchange, refusals.cause_of(error)
        text = refusals.text_for(error, exchange.vendor_ids)
        if exchange.initiator:
            entry.hint = events.Phase1Hint(exchange.peer, cause, error.reason)
            self._events.append(entry.hint)
            if cause == Cause.CERTIFICATE and not entry.reported:
                entry.reported = True
                sa = exchange.refusing(received.datagram.data)
                self._inform(sa, Notification(error.notify, Doi.GDOI, PROTOCOL_ISAKMP, sa.cookies, text))
        elif not entry.reported:
            entry.reported = True
            self._refuse(received, error.notify, now, text)
            self._fail(exchange.peer, False, cause, error.reason, now)

    def _establish(self, cookie: bytes, exchange: MainMode, sa: Phase1Sa, now: float) -> None:
        self._drop_half_open(cookie)
        if exchange.initial_contact:
            for old in [old for old in self._associations.values() if old.peer == sa.peer]:
                self.delete(old, now, "the peer began anew (INITIAL-CONTACT)", tell=False)
        while len(self._associations) >= self.limits.associations:
            self.delete(next(iter(self._associations.values())), now, "too many associations")
        self._associations[sa.cookies] = sa
        self._timers.set(("association", sa.cookies, 0), sa.expires)
        self._events.append(events.Phase1Established(sa))
        self._upper.on_established(sa, now)

    def _receive_informational(self, received: Received, now: float) -> None:
        header = received.header
        sa = self._associations.get(header.cookies)
        if sa is None or not header.encrypted:
            self._receive_hint(received)
            return
        opened = sa.open(header, received.datagram.data)
        sa.verify(opened, header.message_id.to_bytes(4, "big"))
        sa.forget(header.message_id)
        self.reply(received, None, now)
        for item in opened.payloads:
            if isinstance(item.payload, Notification):
                self._notified(sa, item.payload, now)
            elif isinstance(item.payload, Delete):
                self._deleted(sa, item.payload, now)

    def _notified(self, sa: Phase1Sa, notification: Notification, now: float) -> None:
        if notification.kind == NotifyType.R_U_THERE:
            # The answer echoes cookies and sequence number (RFC 3706 5.4).
            self._inform(
                sa,
                Notification(NotifyType.R_U_THERE_ACK, Doi.IPSEC, PROTOCOL_ISAKMP, sa.cookies, notification.data),
            )
            return
        self._events.append(events.NotificationReceived(sa, notification.kind, notification.name))
        if refusals.refuses_phase1(sa, notification):
            cause, reason = refusals.explain(notification, True, sa.peer_vendor_ids)
            self.delete(sa, now, reason, tell=False)
            self._fail(sa.peer, False, cause, reason, now)
            return
        self._upper.on_notification(sa, notification, now)

    def _deleted(self, sa: Phase1Sa, delete: Delete, now: float) -> None:
        if delete.protocol == PROTOCOL_ISAKMP and sa.cookies in delete.spis:
            self.delete(sa, now, "deleted by the peer", tell=False)

    def _receive_hint(self, received: Received) -> None:
        """A notification in clear is a hint only (reference 2.8): shown, never acted on."""
        header, peer = received.header, received.datagram.source
        entry = self._half_open.get(header.initiator_cookie)
        if header.encrypted or entry is None or entry.exchange.peer != peer:
            raise PeerError("an informational message outside any SA", NotifyType.INVALID_COOKIE)
        for item in parse_chain(header.next_payload, Reader(received.datagram.data, HEADER_OCTETS)):
            if isinstance(item.payload, Notification) and item.payload.is_error:
                exchange = entry.exchange
                cause, reason = refusals.explain(item.payload, exchange.method.signs, exchange.vendor_ids)
                entry.hint = events.Phase1Hint(peer, cause, reason)
                self._events.append(entry.hint)
                return
        raise MalformedMessage("an informational message in clear without an error notification")

    # Sending.

    def _terms(self) -> Terms:
        return Terms(self._policies, self._credentials, self._relaxed_doi, self._random, self._initial_contact)

    def _inform(self, sa: Phase1Sa, payload: Payload) -> None:
        message_id = self.new_message_id()
        self.send(sa, sa.informational(message_id, payload))
        sa.forget(message_id)

    def new_message_id(self) -> int:
        """A random message ID, not zero."""
        while (number := int.from_bytes(self._random(4), "big")) == 0:
            pass
        return number

    def _refuse(self, received: Received, kind: NotifyType, now: float, text: bytes = b"") -> None:
        """Tell in clear why we do not go on; kept as the reply, so that copies of the message cost nothing."""
        header = received.header
        body = pack_chain([Notification(kind, Doi.GDOI, PROTOCOL_ISAKMP, data=text)])
        answer = Header(
            header.initiator_cookie,
            header.responder_cookie if header.responder_cookie != ZERO_COOKIE else self._random(8),
            PayloadType.NOTIFY,
            ExchangeType.INFORMATIONAL,
            0,
            self.new_message_id(),
            HEADER_OCTETS + len(body),
        )
        self.reply(received, answer.pack() + body, now)

    def _resend_request(self, key: Key, now: float) -> None:
        if self._requests.on_timer(key, now) is not Outcome.GIVEN_UP:
            return
        kind, cookies, message_id = key
        if kind == "phase1":
            self._time_out(cookies, now)
        elif (sa := self._associations.get(cookies)) is not None:
            self._upper.on_request_failed(sa, message_id, now)

    def _time_out(self, cookie: bytes, now: float) -> None:
        entry = self._half_open.get(cookie)
        if entry is None:
            return
        exchange = entry.exchange
        self._drop_half_open(cookie)
        if entry.hint is not None:
            self._fail(exchange.peer, exchange.initiator, entry.hint.cause, entry.hint.reason, now)
        elif not entry.reported:
            expected = {State.WAIT_SA: "message 2", State.WAIT_KE_OF_RESPONDER: "message 4"}
            waited = expected.get(exchange.state, f"message {exchange.state.value}")
            reason = "it does not answer" if exchange.state is State.WAIT_SA else f"{waited} never came"
            self._fail(exchange.peer, exchange.initiator, Cause.TIMEOUT, reason, now)

    def _drop_half_open(self, cookie: bytes) -> None:
        self._half_open.remove(cookie)
        self._requests.settle(("phase1", cookie, 0))
        self._timers.cancel(("half-open", cookie, 0))

    def _fail(self, peer: Endpoint, initiator: bool, cause: str, reason: str, now: float) -> None:
        failure = events.Phase1Failed(peer, initiator, cause, reason)
        self._events.append(failure)
        self._upper.on_failed(failure, now)
