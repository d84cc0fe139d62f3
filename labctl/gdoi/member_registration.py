"""A group member's registration with a list of key servers: which of them, how far, what next. Sans-IO.

    IDLE -> PHASE1 -> REQUESTED (message 1) -> ACCEPTED (message 3) -> REGISTERED -> ... again before the keys end
                 any failure -> next key server -> ... -> PAUSED after the whole list has failed -> PHASE1

When it begins, and what becomes of the keys that it brings, is the member's own (`group_member`).
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from ipaddress import IPv4Address

from labctl.configuration import GroupMembership
from labctl.gdoi import member_log
from labctl.gdoi.decoding import Policy
from labctl.gdoi.events import Event, StateChanged
from labctl.gdoi.member_keys import MemberKeys
from labctl.gdoi.member_pull import MemberPull
from labctl.gdoi.phase1_failures import failure_message
from labctl.gdoi.policy import GroupKeys
from labctl.gdoi.timing import Timing
from labctl.isakmp.datagram import Endpoint
from labctl.isakmp.endpoint import IsakmpEndpoint, Received
from labctl.isakmp.errors import InvalidHash, NotifyType, PeerError
from labctl.isakmp.events import Phase1Failed, Phase1Hint
from labctl.isakmp.header import ExchangeType
from labctl.isakmp.main_mode import RandomSource
from labctl.isakmp.payloads import Notification
from labctl.isakmp.sa import Phase1Sa


class State(Enum):
    """Where the registration stands."""

    IDLE = "idle"
    PHASE1 = "phase 1"
    REQUESTED = "requested"
    ACCEPTED = "accepted"
    REGISTERED = "registered"
    PAUSED = "paused"


class MemberRegistration:
    """The registration of one member, made anew again and again.

    `resume` has `attempt` called at a time; `install` takes a key server, its keys, now, and the seconds between
    question and policy; `random` is the member's.
    """

    def __init__(
        self,
        keys: MemberKeys,
        isakmp: IsakmpEndpoint,
        timing: Timing,
        random: RandomSource,
        *,
        tell: Callable[[Event], None],
        resume: Callable[[float], None],
        install: Callable[[IPv4Address, GroupKeys, float, float], None],
    ) -> None:
        membership = keys.membership
        self.state = State.IDLE
        self.reason = ""
        self.key_server: IPv4Address | None = None
        self.attempts = 0
        self._keys = keys
        self._isakmp = isakmp
        self._timing = timing
        self._random = random
        self._tell = tell
        self._resume = resume
        self._install = install
        self._index = 0
        self._rounds = 0
        self._pull: MemberPull | None = None
        # Made once: a member that is cut off tries again and again.
        self._local = Endpoint(membership.local_address)
        self._servers = tuple(Endpoint(address) for address in membership.key_servers)
        self._beginnings = tuple(member_log.begins(membership, address) for address in membership.key_servers)
        self._waiting = tuple(f"{address}: waiting for its first answer" for address in membership.key_servers)

    @property
    def under_way(self) -> bool:
        """True between the first message to a key server and its keys."""
        return self.state in (State.PHASE1, State.REQUESTED, State.ACCEPTED)

    def start(self, now: float, first: IPv4Address | None = None) -> None:
        """Begin with the first key server of the list, or with this one."""
        self._index = 0 if first is None else self._membership.key_servers.index(first)
        self._rounds = 0
        self.attempt(now)

    def start_later(self, moment: float, reason: str) -> None:
        """Pause, and begin with the first key server of the list then."""
        self._index = self._rounds = 0
        self._resume(moment)
        self.set(State.PAUSED, reason)

    def after(self, last: IPv4Address | None) -> IPv4Address:
        """The key server that follows on `last` in the list; the first, where that is not in it."""
        servers = self._membership.key_servers
        return servers[(servers.index(last) + 1) % len(servers) if last in servers else 0]

    def attempt(self, now: float) -> None:
        """Ask the key server whose turn it is."""
        server = self._server()
        self.key_server = server.address
        self.attempts += 1
        self._pull = None
        self._tell(self._beginnings[self._index])
        # Phase 1 of a registration before is used again where it lasts for this one.
        association = self._isakmp.association_with(server, until=now + self._isakmp.limits.reuse_seconds)
        if association is not None:
            self._request(association, now, reused=True)
            return
        self.set(State.PHASE1, self.reason or self._waiting[self._index])
        self._isakmp.initiate(self._local, server, now)

    def succeeded(self) -> None:
        """The keys are installed."""
        self._rounds = 0
        self.set(State.REGISTERED, "")

    def abandon(self) -> None:
        """Let go of what is under way; phase 1 stays."""
        self._isakmp.abandon(self._server())
        self._abandon_pull()

    def stop(self, now: float) -> None:
        """Let go of what is under way, and of phase 1."""
        self._isakmp.abandon(self._server())
        self._pull = None
        for sa in self._isakmp.associations:
            self._isakmp.delete(sa, now, "the member leaves the group")

    def set(self, state: State, reason: str) -> None:
        """Stand there, and say so."""
        if (state, reason) != (self.state, self.reason):
            self.state, self.reason = state, reason
            self._tell(StateChanged(self._membership.name))

    @property
    def _membership(self) -> GroupMembership:
        return self._keys.membership

    def _server(self) -> Endpoint:
        return self._servers[self._index]

    def _abandon_pull(self) -> None:
        pull, self._pull = self._pull, None
        for sa in self._isakmp.associations:
            if pull is not None and pull.is_under(sa):
                pull.settle(sa)

    def _failed(self, reason: str, now: float) -> None:
        """This key server did not give us keys: the next one, after a pause once all have failed."""
        server = self._server()
        self._pull = None
        reason = f"{server.address}: {reason}"
        self._index += 1
        if self._index < len(self._membership.key_servers):
            self.set(State.PHASE1, reason)
            self._tell(member_log.goes_on())
            self._resume(now)
            return
        self._index = 0
        self._rounds += 1
        pause = self._timing.pause_after(self._rounds)
        # Members that lost the same key server do not all come back at once.
        jitter = share(self._random) * pause * 0.2
        self._resume(now + pause + jitter)
        self.set(State.PAUSED, reason)

    def _request(self, sa: Phase1Sa, now: float, *, reused: bool) -> None:
        """Message 1 of GROUPKEY-PULL."""
        self._pull = MemberPull.begin(self._isakmp, sa, self._membership, self._random, now, reused=reused)
        self.set(State.REQUESTED, self.reason or f"{sa.peer.address}: waiting for the policy")

    def _reject(self, sa: Phase1Sa, reason: str, now: float) -> None:
        """Policy that we cannot take: say so and leave phase 1 (RFC 6407 3.3)."""
        self._tell(member_log.rejects(self._membership, sa.peer.address, reason))
        self._pull = None
        self._isakmp.notify(sa, NotifyType.NO_PROPOSAL_CHOSEN)
        self._isakmp.delete(sa, now, "the policy is not acceptable")
        self._failed(f"its policy is not acceptable: {reason}", now)

    # What the ISAKMP endpoint has for us.

    def hint(self, hint: Phase1Hint) -> None:
        """A reason that the key server gave in clear is worth showing long before the exchange times out."""
        if self.state is State.PHASE1:
            self.set(State.PHASE1, f"{hint.peer.address}: {hint.reason}")

    def on_established(self, sa: Phase1Sa, now: float) -> None:
        """Go on with GROUPKEY-PULL."""
        # Or the key server has forgotten the SA under which we asked it, and was asked to prove itself anew.
        again = self._pull is not None and self._pull.reused
        if sa.initiator and sa.peer == self._server() and (self.state is State.PHASE1 or again):
            self._abandon_pull()
            self.reason = ""
            self._request(sa, now, reused=False)

    def on_failed(self, failure: Phase1Failed, now: float) -> None:
        """Phase 1 with the key server did not come to an end."""
        if not failure.initiator or self.state is not State.PHASE1 or failure.peer != self._server():
            return
        self._tell(failure_message(failure))
        self._failed(failure.reason, now)

    def on_deleted(self, sa: Phase1Sa, reason: str, now: float) -> None:
        """Phase 1 may end: data and keys do not need it. A registration under way does."""
        if self._pull is not None and self._pull.is_under(sa):
            self._failed(f"phase 1 ended during the registration: {reason}", now)

    def on_notification(self, sa: Phase1Sa, notification: Notification, now: float) -> None:
        """The key server refuses the registration, or finds one of its messages bad."""
        pull = self._pull
        if pull is None or not pull.is_under(sa) or not notification.is_error:
            return
        reason = pull.refusal(sa, notification)
        if reason is not None:
            pull.settle(sa)
            self._failed(reason, now)

    def on_exchange(self, sa: Phase1Sa, received: Received, now: float) -> None:
        """GROUPKEY-PULL, messages 2 and 4. Raises PeerError."""
        pull = self._pull
        header = received.header
        ours = pull is not None and pull.owns(sa, header.message_id)
        if pull is None or not ours or header.exchange != ExchangeType.GROUPKEY_PULL:
            raise PeerError("no exchange of ours is waiting for this", NotifyType.INVALID_EXCHANGE_TYPE)
        first = not pull.problem
        try:
            answer = pull.receive(sa, received, now)
        except InvalidHash:
            if first:
                self._tell(member_log.bad_hash(sa.peer.address))
            raise
        if isinstance(answer, Policy):
            self.set(State.ACCEPTED, f"{sa.peer.address}: waiting for the keys")
        elif isinstance(answer, GroupKeys):
            self._pull = None
            self._install(sa.peer.address, answer, now, pull.round_trip)
        elif answer is not None:
            self._reject(sa, answer.reason, now)

    def on_request_failed(self, sa: Phase1Sa, message_id: int, now: float) -> None:
        """The key server fell silent during GROUPKEY-PULL: phase 1 with it is worth nothing any more."""
        pull = self._pull
        if pull is None or not pull.owns(sa, message_id):
            return
        self._pull = None
        self._isakmp.delete(sa, now, "the peer does not answer", tell=False)
        if pull.reused and not pull.problem:
            # A key server that restarted knows nothing of the old phase 1.
            self.attempt(now)
            return
        self._failed(pull.problem or "it stopped to answer during GROUPKEY-PULL", now)


def share(random: RandomSource) -> float:
    """A random number from 0 to 1."""
    return int.from_bytes(random(2), "big") / 0xFFFF
