"""A GROUPKEY-PULL of a group member, from its first message to the keys (RFC 6407 3.2-3.3). Sans-IO.

    begin: message 1 -> ... message 2: policy -> message 3 -> ... message 4: keys

A bad answer does not end it, for anybody may have sent it: it is remembered as the `problem`, in case no better one
comes. Policy or keys that are authentic and not acceptable do end it, and so does a refusal of the key server's.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from labctl.configuration import GroupIdentity, GroupMembership
from labctl.gdoi import encoding
from labctl.gdoi.decoding import Policy, combine, read_policy, require_family
from labctl.gdoi.payloads import PARSERS, GdoiSa, KeyDownload, SequenceNumber
from labctl.gdoi.policy import GroupKeys
from labctl.isakmp import refusals
from labctl.isakmp.endpoint import IsakmpEndpoint, Received
from labctl.isakmp.errors import MalformedMessage, NotifyType, PeerError
from labctl.isakmp.header import ExchangeType, PayloadType
from labctl.isakmp.main_mode import RandomSource, only
from labctl.isakmp.payloads import Nonce, Notification
from labctl.isakmp.sa import Opened, Phase1Sa

NONCE_OCTETS = 32

# A pseudotime that may be older than this (seconds), or than half its window, is asked for again, so often: an answer
# that took no longer than that is none to a copy of the question.
OLD_TIME = 1.5
MOST_REPEATS = 3

# Why a key server may refuse a group, as its notification says it (reference 1.8).
_REFUSALS = {
    NotifyType.INVALID_ID_INFORMATION: "it does not know group {identity}",
    NotifyType.AUTHENTICATION_FAILED: "it does not authorize this member for group {identity}",
    NotifyType.INVALID_HASH_INFORMATION: "it finds a hash of ours wrong",
    NotifyType.PAYLOAD_MALFORMED: "it cannot read our messages",
    NotifyType.ATTRIBUTES_NOT_SUPPORTED: "it does not support an attribute of ours",
    NotifyType.INVALID_SPI: "its keys changed during the registration",
}

# These say that a message was bad, which another than us may have sent: they explain a failure, they are none.
_COMPLAINTS = (
    NotifyType.INVALID_HASH_INFORMATION,
    NotifyType.PAYLOAD_MALFORMED,
    NotifyType.INVALID_PAYLOAD_TYPE,
    NotifyType.INVALID_FLAGS,
    NotifyType.ATTRIBUTES_NOT_SUPPORTED,
    NotifyType.UNSUPPORTED_EXCHANGE_TYPE,
    NotifyType.DOI_NOT_SUPPORTED,
    NotifyType.SITUATION_NOT_SUPPORTED,
)


@dataclass(frozen=True, slots=True)
class Unacceptable:
    """An authentic answer that this member cannot live with, which ends the exchange (RFC 6407 3.3)."""

    reason: str


@dataclass(slots=True)
class MemberPull:
    """An exchange that is under way."""

    cookies: bytes
    message_id: int
    # Phase 1 was there already: the key server may have forgotten it since.
    reused: bool
    _group: GroupIdentity
    _isakmp: IsakmpEndpoint = field(repr=False)
    _random: RandomSource = field(repr=False)
    _ipv6: bool
    # What every hash begins with: M-ID | Ni_b, and Nr_b after message 2.
    _prefix: bytes = field(default=b"", repr=False)
    _policy: Policy | None = None
    _asked: float = 0.0
    # What passed between the question and the policy (seconds), and how often it was asked again because of that.
    round_trip: float = 0.0
    _repeated: int = 0
    # What was wrong with the last answer, which does not end the exchange: anybody may have sent it.
    problem: str = ""

    @classmethod
    def begin(
        cls,
        isakmp: IsakmpEndpoint,
        sa: Phase1Sa,
        membership: GroupMembership,
        random: RandomSource,
        now: float,
        *,
        reused: bool,
    ) -> MemberPull:
        """Send message 1: HASH(1) = prf(M-ID | Ni | ID)."""
        pull = cls(sa.cookies, 0, reused, membership.identity, isakmp, random, membership.ipv6)
        pull._ask(sa, now)
        return pull

    def _ask(self, sa: Phase1Sa, now: float) -> None:
        self.message_id = message_id = self._isakmp.new_message_id()
        nonce = Nonce(self._random(NONCE_OCTETS))
        mid = message_id.to_bytes(4, "big")
        identity = encoding.group_identity(self._group)
        data = sa.protect(ExchangeType.GROUPKEY_PULL, message_id, (nonce, identity), mid)
        self._isakmp.request(sa, message_id, data, now)
        self._prefix, self._asked = mid + nonce.data, now

    def is_under(self, sa: Phase1Sa) -> bool:
        """Is it held under that SA?"""
        return sa.cookies == self.cookies

    def owns(self, sa: Phase1Sa, message_id: int) -> bool:
        """Is it the exchange of that message ID under that SA?"""
        return (sa.cookies, message_id) == (self.cookies, self.message_id)

    def settle(self, sa: Phase1Sa) -> None:
        """Send no more copies of our last message."""
        self._isakmp.answered(sa, self.message_id)

    def receive(self, sa: Phase1Sa, received: Received, now: float) -> Policy | GroupKeys | Unacceptable | None:
        """Message 2 (policy, and message 3 is on its way) or message 4 (keys: the end), or what is wrong with them.

        None: the time that message 2 tells may be too old, and it has been asked for again.

        Raises PeerError for a message that says nothing; `problem` tells of it.
        """
        try:
            opened = sa.open(received.header, received.datagram.data, PARSERS)
            sa.verify(opened, self._prefix)
        except PeerError as error:
            self.problem = f"its answer is not acceptable: {error.reason}"
            raise
        self.settle(sa)
        self._isakmp.reply(received, None, now)
        try:
            if self._policy is None:
                return self._take_policy(sa, opened, now)
            sa.forget(self.message_id)
            return _keys_of(opened, self._policy)
        except PeerError as error:
            return Unacceptable(error.reason)

    def _take_policy(self, sa: Phase1Sa, opened: Opened, now: float) -> Policy | None:
        """Message 2 to message 3: HASH(2) = prf(M-ID | Ni_b | Nr | SA); HASH(3) = prf(M-ID | Ni_b | Nr_b)."""
        if [item.payload.TYPE for item in opened.payloads] != [PayloadType.NONCE, PayloadType.SA]:
            raise MalformedMessage("message 2 of GROUPKEY-PULL holds a nonce and an SA")
        nonce = only(opened.payloads, Nonce)
        policy = read_policy(only(opened.payloads, GdoiSa), now)
        require_family((tek.entry for tek in policy.teks), ipv6=self._ipv6)
        self.round_trip = now - self._asked
        old = policy.told is not None and self.round_trip > min(OLD_TIME, policy.told.window / 2)
        if old and self._repeated < MOST_REPEATS:
            # A copy of our message may have been answered with a copy of an answer that went lost.
            self._repeated += 1
            sa.forget(self.message_id)
            self._ask(sa, now)
            return None
        self._policy = policy
        self._prefix += nonce.data
        data = sa.protect(ExchangeType.GROUPKEY_PULL, self.message_id, (), self._prefix)
        self._isakmp.request(sa, self.message_id, data, now)
        return policy

    def refusal(self, sa: Phase1Sa, notification: Notification) -> str | None:
        """Why the key server ends the exchange; None where it only finds a message bad, which becomes the `problem`."""
        known_reason = next((text for kind, text in _REFUSALS.items() if kind == notification.kind), None)
        reason = (known_reason or f"it refuses with {notification.name}").format(identity=self._group)
        if notification.kind == NotifyType.AUTHENTICATION_FAILED and (
            told := refusals.text_of(notification, sa.peer_vendor_ids)
        ):
            reason += f": {told}"
        if notification.kind in _COMPLAINTS:
            self.problem = reason
            return None
        return reason


def _keys_of(opened: Opened, policy: Policy) -> GroupKeys:
    """Message 4: HASH(4) = prf(M-ID | Ni_b | Nr_b [| SEQ] | KD). Raises PeerError."""
    expected = [PayloadType.SEQ, PayloadType.KD] if policy.kek is not None else [PayloadType.KD]
    if [item.payload.TYPE for item in opened.payloads] != expected:
        raise MalformedMessage("message 4 of GROUPKEY-PULL holds KD, and SEQ where there is a KEK")
    sequence = only(opened.payloads, SequenceNumber).number if policy.kek is not None else 0
    return combine(policy, only(opened.payloads, KeyDownload), sequence)
