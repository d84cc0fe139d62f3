"""The group member: registers with a list of key servers by GROUPKEY-PULL (RFC 6407 3) and keeps its keys. Sans-IO.

`state` tells where the running registration stands; `registered` whether there are keys, which a registration that
fails does not take away before their time.

The member ties together what has rooms of its own: phase 1 (`isakmp.endpoint`), the registration with one key server
after the other (`member_registration`), the keys (`member_keys`) and the rekeys that renew them (`member_push`). Here
is when it registers, and what orders, rekeys and the data plane lead to.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from enum import IntEnum
from ipaddress import IPv4Address

from labctl.configuration import (
    GroupMembership,
    IsakmpPolicy,
    IsakmpSettings,
    PreSharedKey,
    SaDirection,
    Trustpoint,
)
from labctl.gdoi import member_log
from labctl.gdoi.events import Event, KeysLost, Phase1KeyLog
from labctl.gdoi.member_clock import MemberClock
from labctl.gdoi.member_keys import MemberKeys
from labctl.gdoi.member_push import MemberPush
from labctl.gdoi.member_registration import MemberRegistration, State, share
from labctl.gdoi.member_rekey import RekeyCounts
from labctl.gdoi.member_times import registration_moment
from labctl.gdoi.phase1_log import Phase1Log
from labctl.gdoi.policy import GroupKeys
from labctl.gdoi.push import Opener, open_push
from labctl.gdoi.timing import Timing
from labctl.isakmp.datagram import Datagram
from labctl.isakmp.endpoint import IsakmpEndpoint, Limits, Received
from labctl.isakmp.events import Phase1Failed, Phase1Hint
from labctl.isakmp.main_mode import RandomSource, known
from labctl.isakmp.payloads import Notification
from labctl.isakmp.sa import Phase1Sa
from labctl.isakmp.timers import Timers, earlier

MAX_EVENTS = 10_000


class _Timer(IntEnum):
    REGISTER = 1
    RESUME = 2
    KEYS = 3
    STRANGE_KEK = 4


class GroupMember:
    """One membership: one group, one crypto interface, one list of key servers.

    `opener` opens rekeys, as `push.open_push` does: many members in one process may share that work.
    """

    def __init__(
        self,
        membership: GroupMembership,
        policies: Sequence[IsakmpPolicy],
        pre_shared_keys: Sequence[PreSharedKey],
        *,
        trustpoints: Sequence[Trustpoint] = (),
        started: float = 0.0,
        random: RandomSource,
        initial_contact: bool = True,
        limits: Limits | None = None,
        timing: Timing | None = None,
        settings: IsakmpSettings | None = None,
        opener: Opener | None = None,
    ) -> None:
        self.registered_with: IPv4Address | None = None
        self.registered_at = 0.0
        self.next_registration: float | None = None
        self.successes = 0
        self._timing = timing or Timing()
        self._random = random
        self._recovered_at = float("-inf")
        self._timers: Timers[_Timer] = Timers()
        self._events: deque[Event] = deque(maxlen=MAX_EVENTS)
        self._isakmp = IsakmpEndpoint(
            self,
            policies=policies,
            pre_shared_keys=pre_shared_keys,
            trustpoints=trustpoints,
            started=started,
            random=random,
            initial_contact=initial_contact,
            limits=limits,
            settings=settings,
            # Key servers and members do not ask each other (cisco-getvpn 1.3).
            keepalive_peers=(),
        )
        self._phase1_log = Phase1Log()
        self._keys = MemberKeys(membership, self._timing, self._events.append)
        self._push = MemberPush(
            self._keys, self._isakmp, opener or open_push, tell=self._events.append, miss_kek=self._await_kek
        )
        self._registration = MemberRegistration(
            self._keys,
            self._isakmp,
            self._timing,
            random,
            tell=self._events.append,
            resume=lambda moment: self._timers.set(_Timer.RESUME, moment),
            install=self._install,
        )

    # The sans-IO interface.

    def start(self, now: float) -> None:
        """Register, beginning with the first key server of the list."""
        self._registration.start(now)

    def stop(self, now: float) -> None:
        """Leave: end phase 1 and forget the keys."""
        for key in _Timer:
            self._timers.cancel(key)
        self._registration.stop(now)
        self._forget_policy()
        self._registration.set(State.IDLE, "")
        self._events.append(member_log.left(self.membership))

    def receive_datagram(self, datagram: Datagram, now: float) -> None:
        """Take a datagram; whatever it holds, nothing is raised."""
        self._isakmp.receive(datagram, now)

    def datagrams_to_send(self) -> list[Datagram]:
        """What has to leave."""
        return self._isakmp.datagrams_to_send()

    def next_deadline(self) -> float | None:
        """When `handle_timer` wants to be called."""
        return earlier(self._isakmp.next_deadline(), self._timers.next_deadline())

    def handle_timer(self, now: float) -> None:
        """Do what is due: retransmissions, the next registration, keys that end."""
        self._isakmp.handle_timer(now)
        while (key := self._timers.pop_due(now)) is not None:
            if key is _Timer.KEYS:
                self._refresh_keys(now)
            elif key is _Timer.RESUME:
                self._registration.attempt(now)
            elif key is _Timer.STRANGE_KEK:
                self._miss_kek(now)
            elif self.state is State.REGISTERED:
                self._miss_rekey()
                self.reregister(now)

    def next_event(self) -> Event | None:
        """The oldest event not fetched yet."""
        while (below := self._isakmp.next_event()) is not None:
            if isinstance(below, Phase1Hint):
                self._registration.hint(below)
            self._events.extend(self._phase1_log.of(below))
        return self._events.popleft() if self._events else None

    # What the agent asks for, by order of a user or of the data plane.

    def clear(self, now: float) -> None:
        """`clear crypto gdoi`: forget policy and keys, and register at once."""
        self._events.append(member_log.cleared(self.membership))
        self._abandon_registration(now)
        self._forget_policy()
        self.start(now)

    def reregister(self, now: float) -> None:
        """`clear crypto sa` and all that has the same effect: register anew, keeping the keys until then."""
        if self._registration.under_way:
            return
        self._events.append(member_log.registers_again(self.membership))
        self._timers.cancel(_Timer.RESUME)
        self.start(now)

    def turn(self, direction: SaDirection, now: float) -> None:
        """`crypto gdoi gm group G ipsec direction ...`: counts until the key server turns receive-only on or off, or
        gives keys at a registration. Nothing to do without keys."""
        if self.keys is not None:
            self._keys.order(direction)
            self._refresh_keys(now)

    def reconfigure(self, membership: GroupMembership, now: float) -> None:
        """Another configuration of the same membership, from now on; what it asks of a registration, from the next."""
        if self._keys.reconfigure(membership):
            self._refresh_keys(now)

    def set_trustpoints(self, trustpoints: Sequence[Trustpoint], now: float) -> None:
        """Other certificates, CAs or CRLs from now on; keys stay. Raises LocalError, changing nothing.

        A member that has no keys begins to register anew at once: it may be believed now, or believe.
        """
        self._isakmp.set_trustpoints(trustpoints, now)
        if not self.registered and self.state is not State.IDLE:
            self._abandon_registration(now)
            self.start(now)

    def data_plane_error(self, kind: str, now: float) -> None:
        """A packet could not be decrypted (an SPI nobody told us, a replay): `client recovery-check` asks elsewhere."""
        interval = self.membership.recovery_check
        if interval is None or self.state is not State.REGISTERED or now < self._recovered_at + interval:
            return
        self._recovered_at = now
        following = self._registration.after(self.registered_with)
        self._events.append(member_log.recovers(self.membership, kind, following))
        self._registration.start(now, following)

    def unknown_spi(self, spi: int, now: float) -> None:
        """ESP came under an SPI that we have no key for.

        Only one of this group, that we never had, says that others have keys which we lack (cisco-getvpn.md 2.8).
        """
        if self._keys.may_lack(spi):
            self.data_plane_error(f"a packet with the unknown SPI 0x{spi:08X}", now)

    def _abandon_registration(self, now: float) -> None:
        self._timers.cancel(_Timer.RESUME)
        self._timers.cancel(_Timer.REGISTER)
        self._registration.abandon()

    def _forget_policy(self) -> None:
        self._keys.forget()
        self.next_registration = None

    def _await_kek(self, now: float) -> None:
        """Others in the key tree have a KEK that we were not given: it may be on its way."""
        self._timers.set(
            _Timer.STRANGE_KEK, now + self._timing.strange_kek + self._timing.strange_kek_spread * share(self._random)
        )

    def _miss_kek(self, now: float) -> None:
        if self._push.give_up(now, self._timing.strange_kek_pause) and self.state is State.REGISTERED:
            self._miss_rekey()
            self.reregister(now)

    def _miss_rekey(self) -> None:
        """The window has come, so no rekey brought newer keys: worth a word where some were to be expected."""
        if self.keys is not None and self.keys.kek is not None and self.registered_with is not None:
            self._events.append(member_log.misses_rekey(self.membership, self.registered_with))

    # What the agent asks.

    @property
    def state(self) -> State:
        """Where the running registration stands."""
        return self._registration.state

    @property
    def reason(self) -> str:
        """What it waits for, or why there are no new keys."""
        return self._registration.reason

    @property
    def key_server(self) -> IPv4Address | None:
        """Whose turn it is, or was."""
        return self._registration.key_server

    @property
    def attempts(self) -> int:
        """Registrations begun, with any key server."""
        return self._registration.attempts

    @property
    def membership(self) -> GroupMembership:
        """The configuration that counts."""
        return self._keys.membership

    @membership.setter
    def membership(self, membership: GroupMembership) -> None:
        self._keys.membership = membership

    @property
    def keys(self) -> GroupKeys | None:
        """Policy and keys; None before the first registration, and after they were given up."""
        return self._keys.current

    @keys.setter
    def keys(self, keys: GroupKeys | None) -> None:
        self._keys.current = keys

    @property
    def registered(self) -> bool:
        """True while there are keys."""
        return self._keys.usable

    @property
    def direction(self) -> SaDirection:
        """What the SAs are for: as ordered, as configured on this member, or as the key server says."""
        return self._keys.direction

    @property
    def rekeys(self) -> RekeyCounts:
        """What came of rekeys."""
        return self._push.counts

    @property
    def clock(self) -> MemberClock:
        """The group's pseudotime, where its packets are stamped."""
        return self._keys.clock

    @property
    def isakmp(self) -> IsakmpEndpoint:
        """For reading: associations and their counts."""
        return self._isakmp

    # Registration.

    def _install(self, server: IPv4Address, keys: GroupKeys, now: float, round_trip: float) -> None:
        self._keys.install(keys, now, round_trip)
        self._push.registered()
        self.registered_with = server
        self.registered_at = now
        self.successes += 1
        self._events.extend(member_log.succeeded(self.membership, server))
        self._schedule_registration(now)
        self._refresh_keys(now)
        self._registration.succeeded()

    def _schedule_registration(self, now: float) -> None:
        self.next_registration = None
        moment = registration_moment(known(self.keys), self._timing, share(self._random))
        if moment is not None:
            self._register_at(max(now + 1.0, moment))

    def _refresh_keys(self, now: float) -> None:
        """Let the keys follow the clock, and look again when they change next."""
        moment = self._keys.refresh(now)
        if moment is not None:
            self._timers.set(_Timer.KEYS, moment)

    # Called by the ISAKMP endpoint.

    def on_established(self, sa: Phase1Sa, now: float) -> None:
        """Go on with GROUPKEY-PULL."""
        self._events.append(Phase1KeyLog.of(sa))
        self._registration.on_established(sa, now)

    def on_failed(self, failure: Phase1Failed, now: float) -> None:
        """See MemberRegistration."""
        self._registration.on_failed(failure, now)

    def on_deleted(self, sa: Phase1Sa, reason: str, now: float) -> None:
        """See MemberRegistration."""
        self._registration.on_deleted(sa, reason, now)

    def on_notification(self, sa: Phase1Sa, notification: Notification, now: float) -> None:
        """See MemberRegistration."""
        self._registration.on_notification(sa, notification, now)

    def on_exchange(self, sa: Phase1Sa, received: Received, now: float) -> None:
        """See MemberRegistration."""
        self._registration.on_exchange(sa, received, now)

    def on_request_failed(self, sa: Phase1Sa, message_id: int, now: float) -> None:
        """See MemberRegistration."""
        self._registration.on_request_failed(sa, message_id, now)

    def on_group_datagram(self, received: Received, now: float) -> None:
        """A rekey (GROUPKEY-PUSH): go by what it did to the keys."""
        taken = self._push.receive(received, self.registered_with, now)
        outcome = taken.outcome
        if outcome.wiped:
            self._come_back(now)
        elif outcome.kek_deleted and outcome.keys.kek is None:
            self._events.append(member_log.keys_shortened(self.membership))
            left = min(tek.expires for tek in outcome.keys.teks.values()) - now
            # Spread over the first half of what is left: time for every key server of the list.
            self._register_at(now + left * 0.5 * share(self._random))
        else:
            if outcome.deleted:
                self._events.append(member_log.keys_replaced(self.membership))
            self._schedule_registration(now)
        self._refresh_keys(now)
        for datagram in taken.early:
            self._isakmp.receive(datagram, now)

    def _come_back(self, now: float) -> None:
        """Everything was taken from us: register again, not all members at once (reference 4.5)."""
        pause = self._timing.wiped * share(self._random)
        self._events.append(member_log.keys_wiped(self.membership, pause))
        self._events.append(KeysLost(self.membership.name, policy=True))
        self._timers.cancel(_Timer.KEYS)
        self._timers.cancel(_Timer.REGISTER)
        self.next_registration = None
        if self.state is State.REGISTERED:
            self._registration.start_later(now + pause, f"{self.registered_with}: it took the keys back")

    def _register_at(self, moment: float) -> None:
        self.next_registration = moment
        self._timers.set(_Timer.REGISTER, moment)
