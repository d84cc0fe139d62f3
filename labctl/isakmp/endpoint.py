"""Everything ISAKMP on one UDP port: phase 1 either way, informational exchanges, retransmission, duplicates.

A key server or a group member embeds an `IsakmpEndpoint` and hands it every datagram; exchanges of its own come
back to it through `UpperExchanges`. Demultiplexing as in reference 1.4: exchanges 33 and 35 have no phase-1 context
and go up raw; all else belongs to a phase-1 SA or to one in the making, by its cookies. The latter are in
`negotiations`, what leaves and what copies are answered with in `outgoing`; here are the SAs: how they come, what is
said under them, and how they end.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Sequence
from ipaddress import IPv4Address

from labctl import crypto
from labctl.configuration import Hash, IsakmpPolicy, IsakmpSettings, PreSharedKey, Trustpoint
from labctl.isakmp import events, refusals
from labctl.isakmp.associations import Associations
from labctl.isakmp.authentication import UNKNOWN, CertificateRefused, Credentials
from labctl.isakmp.counts import Counts
from labctl.isakmp.datagram import Datagram, Endpoint
from labctl.isakmp.errors import MalformedMessage, NotifyType, PeerError
from labctl.isakmp.events import Ending
from labctl.isakmp.header import HEADER_OCTETS, Doi, ExchangeType, Header
from labctl.isakmp.kept import KeptPeers
from labctl.isakmp.limits import Limits
from labctl.isakmp.liveness import Liveness, Verdict
from labctl.isakmp.main_mode import MainMode, RandomSource, Terms
from labctl.isakmp.negotiations import Negotiations
from labctl.isakmp.outgoing import Outgoing
from labctl.isakmp.payloads import Delete, Notification, parse_chain
from labctl.isakmp.payloads.control import PROTOCOL_ISAKMP
from labctl.isakmp.reader import Reader
from labctl.isakmp.requests import Key, Outcome, Requests
from labctl.isakmp.restarts import Restarts
from labctl.isakmp.sa import Phase1Sa
from labctl.isakmp.timers import Timers
from labctl.isakmp.upper import Received, UpperExchanges

__all__ = ["IsakmpEndpoint", "Limits", "Received", "UpperExchanges"]


class IsakmpEndpoint:
    """Phase 1 on one port. Not bound to an address: replies leave from where the request came to.

    `initial_contact`: nobody else at our address holds SAs with the same peers, so that our first one with a peer may
    replace all that it has of us. `settings`: dead peer detection, of `keepalive_peers` (None: of every peer), and how
    many exchanges may be half open.
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
        settings: IsakmpSettings | None = None,
        keepalive_peers: Collection[IPv4Address] | None = None,
    ) -> None:
        settings = settings or IsakmpSettings()
        limits = limits or Limits(half_open=settings.admission)
        self.limits = limits
        self.counts = Counts()
        self._upper = upper
        self._credentials = Credentials(pre_shared_keys, trustpoints, started)
        self._associations = Associations()
        self._outgoing = Outgoing(limits, self.counts, random)
        self._timers: Timers[Key] = Timers()
        self._events: deque[events.Event] = deque(maxlen=limits.events)
        self._restarts = Restarts(limits)
        self._requests = Requests(limits, self._timers, self._outgoing.datagrams)
        self._negotiations = Negotiations(
            Terms(tuple(policies), self._credentials, relaxed_doi, random, initial_contact),
            self._associations,
            self._restarts,
            self._requests,
            self._outgoing,
            limits,
            self._timers,
            self.counts,
            tell=self._events.append,
            fail=self._fail,
        )
        self._liveness = Liveness(settings.keepalive, keepalive_peers, limits, self._timers, random)
        self._kept = KeptPeers(limits, self._timers, random)

    # What the owner reads.

    @property
    def associations(self) -> Sequence[Phase1Sa]:
        """Established SAs, oldest first."""
        return list(self._associations)

    @property
    def half_open_count(self) -> int:
        """Exchanges in the making, ours and the peers'."""
        return len(self._negotiations.half_open)

    @property
    def half_open(self) -> Sequence[MainMode]:
        """Exchanges in the making, for reading."""
        return [entry.exchange for _, entry in self._negotiations.half_open]

    @property
    def kept_replies(self) -> int:
        """Replies kept for duplicates."""
        return self._outgoing.kept_replies

    def association_with(self, peer: Endpoint, *, until: float = 0.0) -> Phase1Sa | None:
        """The newest SA with a peer, if it lives `until` then and nothing speaks against it."""
        sa = next((sa for sa in reversed(self._associations.of(peer.address)) if sa.peer == peer), None)
        return sa if sa is not None and sa.expires >= until and self._restarts.believed(sa) else None

    def datagrams_to_send(self) -> list[Datagram]:
        """What has to leave, in order; the list is emptied."""
        return self._outgoing.take()

    def next_event(self) -> events.Event | None:
        """The oldest event not fetched yet."""
        return self._events.popleft() if self._events else None

    def next_deadline(self) -> float | None:
        """When `handle_timer` wants to be called."""
        return self._timers.next_deadline()

    # What the owner does.

    def initiate(self, local: Endpoint, peer: Endpoint, now: float, *, doi: int = Doi.GDOI) -> bool:
        """Begin phase 1. False, with `on_failed`, where there is neither key nor certificate for the peer."""
        return self._negotiations.begin(local, peer, now, doi=doi)

    def abandon(self, peer: Endpoint) -> None:
        """Stop every phase 1 of ours with a peer."""
        self._negotiations.abandon(peer)

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

    def keep(self, local: Endpoint, peer: Endpoint, now: float) -> None:
        """Hold an SA with a peer from now on: it is authenticated anew before it ends, and when it has ended."""
        self._kept.keep(local, peer)
        if self.association_with(peer) is None and not self._negotiations.half_open.initiated_with(peer):
            self.initiate(local, peer, now)

    def release(self, peer: Endpoint) -> None:
        """The end of `keep`: the SA that is there lives as long as it lives."""
        self._kept.release(peer)

    def heard(self, sa: Phase1Sa, now: float) -> None:
        """The party above has verified a message of the peer: it lives."""
        self._liveness.heard(sa, now)

    def send(self, sa: Phase1Sa, data: bytes, now: float) -> None:
        """Send a message under an SA, once."""
        self._outgoing.datagrams.append(Datagram(data, sa.local, sa.peer))
        self._ask_on_demand(sa, now)

    def request(self, sa: Phase1Sa, message_id: int, data: bytes, now: float) -> None:
        """Send a message that awaits an answer: resent until `answered`, else `on_request_failed`."""
        self._requests.send(("exchange", sa.cookies, message_id), Datagram(data, sa.local, sa.peer), now)
        self._ask_on_demand(sa, now)

    def answered(self, sa: Phase1Sa, message_id: int) -> None:
        """The request needs no more copies."""
        self._requests.settle(("exchange", sa.cookies, message_id))

    def reply(self, received: Received, data: bytes | None, now: float) -> None:
        """Answer a message (or note, with None, that it is dealt with): a duplicate of it gets the same again."""
        self._outgoing.answer(received, data, now)

    def notify(self, sa: Phase1Sa, kind: NotifyType, data: bytes = b"") -> None:
        """Tell a peer something under an SA (RFC 2409 5.7)."""
        self._outgoing.inform(sa, Notification(kind, Doi.GDOI, PROTOCOL_ISAKMP, sa.cookies, data))

    def delete(self, sa: Phase1Sa, now: float, reason: str, *, tell: bool = True) -> None:
        """End an SA, telling the peer with a Delete (reference 2.8)."""
        if not self._associations.remove(sa):
            return
        if tell:
            self._outgoing.inform(sa, Delete(Doi.GDOI, PROTOCOL_ISAKMP, len(sa.cookies), (sa.cookies,)))
        self._timers.cancel(("association", sa.cookies, 0))
        self._restarts.ended(sa, now)
        self._liveness.end(sa)
        self._kept.ended(sa)
        self._requests.settle_all(sa.cookies)
        self._events.append(events.Phase1Deleted(sa, reason))
        self._upper.on_deleted(sa, reason, now)
        self._bring_back(sa.peer, now)

    def receive(self, datagram: Datagram, now: float) -> None:
        """Take a datagram. Whatever it holds, nothing is raised: a MessageDropped event says why it led to nothing."""
        try:
            header = Header.parse(datagram.data)
            digest = crypto.digest(Hash.SHA256, datagram.source.packed, datagram.data)
            if self._outgoing.answer_again(digest, now):
                return
            self._dispatch(Received(header, datagram, digest), now)
        except PeerError as error:
            self.counts.messages_dropped += 1
            self._events.append(events.MessageDropped(datagram.source, error.reason))

    def handle_timer(self, now: float) -> None:
        """Do what is due: copies of requests, the end of exchanges and of SAs."""
        while (key := self._timers.pop_due(now)) is not None:
            kind, cookies, _ = key
            if kind == "half-open":
                self.counts.half_open_timed_out += 1
                self._negotiations.time_out(cookies, now)
            elif kind == "kept":
                self._begin_kept(cookies, now)
            elif kind in ("association", "liveness", "renew"):
                sa = self._associations.get(cookies)
                if sa is not None:
                    self._on_association_timer(kind, sa, now)
            else:
                self._resend_request(key, now)

    def _on_association_timer(self, kind: str, sa: Phase1Sa, now: float) -> None:
        if kind == "association":
            self.counts.expired += 1
            self.delete(sa, now, Ending.EXPIRED)
        elif kind == "renew":
            newest = self.association_with(sa.peer) is sa
            if sa.peer in self._kept and newest and not self._negotiations.half_open.initiated_with(sa.peer):
                self.counts.renewed += 1
                self.initiate(sa.local, sa.peer, now, doi=sa.doi)
        elif (verdict := self._liveness.on_timer(sa)) is Verdict.ASK:
            self._ask(sa, now)
        elif verdict is Verdict.DEAD:
            self.counts.dead_peers += 1
            self._events.append(events.PeerDead(sa))
            self.delete(sa, now, Ending.DEAD, tell=False)

    # Receiving.

    def _dispatch(self, received: Received, now: float) -> None:
        header = received.header
        if header.exchange in (ExchangeType.GROUPKEY_PUSH, ExchangeType.GROUPKEY_PUSH_ACK):
            self._upper.on_group_datagram(received, now)
        elif header.exchange == ExchangeType.MAIN_MODE:
            exchange = self._negotiations.receive(received, now)
            if exchange is not None and exchange.sa is not None:
                self._establish(exchange, exchange.sa, now)
        elif header.exchange == ExchangeType.INFORMATIONAL:
            self._receive_informational(received, now)
        else:
            sa = self._associations.get(header.cookies)
            if sa is None:
                self._answer_unknown(received, now)
                raise PeerError("no phase-1 SA with these cookies", NotifyType.INVALID_COOKIE)
            if header.message_id == 0:
                raise PeerError("message ID 0 outside phase 1", NotifyType.INVALID_MESSAGE_ID)
            self._upper.on_exchange(sa, received, now)

    def _establish(self, exchange: MainMode, sa: Phase1Sa, now: float) -> None:
        """Phase 1 has succeeded: keep its SA, and end those that it replaces."""
        if exchange.initial_contact:
            for old in [old for old in self._associations.of_identity(sa) if old.same_party(sa)]:
                self.counts.replaced_by_initial_contact += 1
                self.delete(old, now, Ending.INITIAL_CONTACT, tell=False)
        while len(self._associations) >= self.limits.associations:
            self.delete(next(iter(self._associations)), now, Ending.TOO_MANY)
        self._associations.add(sa)
        self._timers.set(("association", sa.cookies, 0), sa.expires)
        self._liveness.begin(sa, now)
        self._kept.established(sa, now)
        self.counts.established += 1
        self._events.append(events.Phase1Established(sa))
        self._upper.on_established(sa, now)
        for old in self._associations.of_identity(sa):
            if old is not sa and old.same_party(sa) and not self._restarts.believed(old):
                self.delete(old, now, Ending.FORGOTTEN, tell=False)

    def _receive_informational(self, received: Received, now: float) -> None:
        header = received.header
        sa = self._associations.get(header.cookies)
        if not header.encrypted:
            self._receive_hint(received, sa, now)
            return
        if sa is None:
            self._answer_unknown(received, now)
            raise PeerError("an informational message outside any SA", NotifyType.INVALID_COOKIE)
        opened = sa.open(header, received.datagram.data)
        sa.verify(opened, header.message_id.to_bytes(4, "big"))
        sa.forget(header.message_id)
        self._outgoing.answer(received, None, now)
        for item in opened.payloads:
            if isinstance(item.payload, Notification):
                self._notified(sa, item.payload, now)
            elif isinstance(item.payload, Delete):
                self._deleted(sa, item.payload, now)

    def _notified(self, sa: Phase1Sa, notification: Notification, now: float) -> None:
        if notification.kind == NotifyType.R_U_THERE:
            self._outgoing.inform(sa, self._liveness.answer(sa, notification))
            self._liveness.heard(sa, now)
            self.counts.keepalives_answered += 1
            return
        if notification.kind == NotifyType.R_U_THERE_ACK:
            self._liveness.acknowledged(sa, notification, now)
            return
        self._liveness.heard(sa, now)
        self._events.append(events.NotificationReceived(sa, notification.kind, notification.name))
        if refusals.refuses_phase1(sa, notification):
            cause, reason = refusals.explain(notification, True, sa.peer_vendor_ids)
            self.delete(sa, now, reason, tell=False)
            self._fail(sa.peer, False, cause, reason, now)
            return
        self._upper.on_notification(sa, notification, now)

    def _deleted(self, sa: Phase1Sa, delete: Delete, now: float) -> None:
        """A peer may delete, under any SA with it, every SA with it, and no other's."""
        if delete.protocol != PROTOCOL_ISAKMP or delete.doi not in (Doi.GDOI, Doi.IPSEC):
            return
        for cookies in delete.spis:
            ended = self._associations.get(cookies)
            if ended is not None and ended.same_party(sa):
                self.counts.deleted_by_peer += 1
                self.delete(ended, now, Ending.DELETED_BY_PEER, tell=False)

    def _receive_hint(self, received: Received, sa: Phase1Sa | None, now: float) -> None:
        """A notification in clear is a hint only (reference 2.8): shown, never taken for true."""
        header, peer = received.header, received.datagram.source
        entry = self._negotiations.half_open.get(header.initiator_cookie)
        half_open = entry is not None and entry.exchange.peer == peer
        if not half_open and (sa is None or sa.peer != peer):
            raise PeerError("an informational message outside any SA", NotifyType.INVALID_COOKIE)
        notification = _error_in(received)
        if entry is not None and half_open:
            self._negotiations.take_hint(entry, notification)
        elif sa is not None and notification.kind == NotifyType.INVALID_COOKIE:
            self._doubt(sa, now)

    def _doubt(self, sa: Phase1Sa, now: float) -> None:
        """Somebody says that the peer has no such SA, while we wait for an answer: it may have restarted.

        Not authenticated, so the SA stays: we ask the peer to prove who it is anew, once. Only if it does, the old SA
        ends.
        """
        waits = self._requests.waits(sa.cookies) or self._liveness.waits(sa)
        if waits and self._restarts.believed(sa):
            self._restarts.doubt(sa)
            if not self._negotiations.half_open.initiated_with(sa.peer):
                self.initiate(sa.local, sa.peer, now, doi=sa.doi)

    def _answer_unknown(self, received: Received, now: float) -> None:
        """Say that we have no such SA, so that a peer of before our restart need not wait for its timers."""
        self.counts.unknown_cookies += 1
        if self._restarts.may_answer(received.header, now):
            self._events.append(events.UnknownCookies(received.datagram.source, now))
            self._outgoing.refuse(received, NotifyType.INVALID_COOKIE, now)

    # Sending.

    def _ask(self, sa: Phase1Sa, now: float) -> None:
        self.counts.keepalives_sent += 1
        self._outgoing.inform(sa, self._liveness.question(sa, now))

    def _ask_on_demand(self, sa: Phase1Sa, now: float) -> None:
        if self._liveness.sending(sa, now):
            self._ask(sa, now)

    def _begin_kept(self, key: bytes, now: float) -> None:
        """Phase 1 with a peer that is kept and with which there is no SA."""
        for local, peer in self._kept.peers(key):
            if self.association_with(peer) is None and not self._negotiations.half_open.initiated_with(peer):
                self.initiate(local, peer, now)

    def _bring_back(self, peer: Endpoint, now: float) -> None:
        if self.association_with(peer) is None:
            self._kept.lost(peer, now)

    def new_message_id(self) -> int:
        """A random message ID, not zero."""
        return self._outgoing.new_message_id()

    def _resend_request(self, key: Key, now: float) -> None:
        if self._requests.on_timer(key, now) is not Outcome.GIVEN_UP:
            return
        kind, cookies, message_id = key
        if kind == "phase1":
            self._negotiations.time_out(cookies, now)
        elif (sa := self._associations.get(cookies)) is not None:
            self._upper.on_request_failed(sa, message_id, now)

    def _fail(self, peer: Endpoint, initiator: bool, cause: str, reason: str, now: float) -> None:
        self.counts.failed += 1
        failure = events.Phase1Failed(peer, initiator, cause, reason)
        self._events.append(failure)
        self._upper.on_failed(failure, now)
        if initiator:
            self._bring_back(peer, now)


def _error_in(received: Received) -> Notification:
    """The error that an informational message in clear tells. Raises MalformedMessage where there is none."""
    for item in parse_chain(received.header.next_payload, Reader(received.datagram.data, HEADER_OCTETS)):
        if isinstance(item.payload, Notification) and item.payload.is_error:
            return item.payload
    raise MalformedMessage("an informational message in clear without an error notification")
