"""What leaves an endpoint: informational exchanges, refusals in clear, and answers, which are kept for duplicates.

Informational exchanges: RFC 2408 4.8, RFC 2409 5.7. What anybody can draw from us is kept apart from the answers that
peers of ours need (reference 1.4).
"""

from __future__ import annotations

from labctl.isakmp.counts import Counts
from labctl.isakmp.datagram import Datagram
from labctl.isakmp.errors import NotifyType
from labctl.isakmp.header import HEADER_OCTETS, ZERO_COOKIE, Doi, ExchangeType, Header, PayloadType
from labctl.isakmp.limits import Limits
from labctl.isakmp.main_mode import RandomSource
from labctl.isakmp.payloads import Notification, Payload, pack_chain
from labctl.isakmp.payloads.control import PROTOCOL_ISAKMP
from labctl.isakmp.replies import Replies
from labctl.isakmp.sa import Phase1Sa
from labctl.isakmp.upper import Received


class Outgoing:
    """The `datagrams` of an endpoint that have to leave, in order, and the answers that it has given."""

    def __init__(self, limits: Limits, counts: Counts, random: RandomSource) -> None:
        self.datagrams: list[Datagram] = []
        self._counts = counts
        self._random = random
        self._replies = Replies(limits.replies, limits.reply_seconds)
        # What anybody can draw from us: it must not push out the replies that peers of ours need.
        self._first_replies = Replies(limits.first_replies, limits.reply_seconds)

    @property
    def kept_replies(self) -> int:
        """Answers kept for duplicates."""
        return len(self._replies) + len(self._first_replies)

    def take(self) -> list[Datagram]:
        """What has to leave; the list is emptied."""
        out = self.datagrams[:]
        self.datagrams.clear()
        return out

    def new_message_id(self) -> int:
        """A random message ID, not zero."""
        while (number := int.from_bytes(self._random(4), "big")) == 0:
            pass
        return number

    def inform(self, sa: Phase1Sa, payload: Payload) -> None:
        """Tell the peer of an SA something under it."""
        message_id = self.new_message_id()
        self.datagrams.append(Datagram(sa.informational(message_id, payload), sa.local, sa.peer))
        sa.forget(message_id)

    def refuse(self, received: Received, kind: NotifyType, now: float, text: bytes = b"") -> None:
        """Tell in clear why we do not go on; kept as the answer, so that copies of the message cost nothing."""
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
        self.answer(received, answer.pack() + body, now)

    def answer(self, received: Received, data: bytes | None, now: float) -> None:
        """Answer a message (or note, with None, that it is dealt with): a duplicate of it gets the same again."""
        answer = None
        if data is not None:
            answer = Datagram(data, received.datagram.destination, received.datagram.source)
            self.datagrams.append(answer)
        if received.header.responder_cookie == ZERO_COOKIE:
            self._first_replies.keep(received.digest, answer, now)
        else:
            self._replies.keep(received.digest, answer, now)

    def answer_again(self, digest: bytes, now: float) -> bool:
        """Has the message with this digest been dealt with? Then its answer, if it had one, leaves once more."""
        known, answer = self._replies.find(digest, now)
        if not known:
            known, answer = self._first_replies.find(digest, now)
        self._counts.duplicates += known
        if answer is not None:
            self.datagrams.append(answer)
        return known
