"""The group member: registers with a list of key servers by GROUPKEY-PULL (RFC 6407 3) and keeps its keys. Sans-IO.

    IDLE -> PHASE1 -> REQUESTED (message 1) -> ACCEPTED (message 3) -> REGISTERED -> ... again before the keys end
                 any failure -> next key server -> ... -> PAUSED after the whole list has failed -> PHASE1

`state` tells where the running registration stands; `registered` whether there are keys, which a registration that
fails does not take away before their time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import Enum, IntEnum
from ipaddress import IPv4Address

from labctl.configuration import (
    MOST_PERMITS,
    Action,
    GroupMembership,
    IsakmpPolicy,
    IsakmpSettings,
    PreSharedKey,
    SaDirection,
    Trustpoint,
)
from labctl.gdoi import encoding
from labctl.gdoi.decoding import Policy, combine, read_policy
from labctl.gdoi.early_rekeys import EarlyRekeys
from labctl.gdoi.events import (
    Event,
    KeysLost,
    LogMessage,
    Phase1KeyLog,
    PolicyInstalled,
    RekeyAddress,
    RekeyKeyLog,
    StateChanged,
)
from labctl.gdoi.key_path import NotAddressed
from labctl.gdoi.member_rekey import Outcome, RekeyCounts, acknowledgement, apply_push
from labctl.gdoi.member_times import next_change, registration_moment, switch_margin
from labctl.gdoi.payloads import PARSERS, GdoiSa, KeyDownload, SequenceNumber
from labctl.gdoi.phase1_failures import failure_message
from labctl.gdoi.phase1_log import Phase1Log
from labctl.gdoi.policy import GroupKeys, KeyEncryptionKey
from labctl.gdoi.push import Opener, Push, ReplayedRekey, open_push
from labctl.gdoi.spi import may_be_of
from labctl.gdoi.timing import Timing
from labctl.isakmp import refusals
from labctl.isakmp.datagram import Datagram, Endpoint
from labctl.isakmp.endpoint import IsakmpEndpoint, Limits, Received
from labctl.isakmp.errors import InvalidHash, MalformedMessage, NotifyType, PeerError
from labctl.isakmp.events import Phase1Failed, Phase1Hint
from labctl.isakmp.header import ExchangeType, PayloadType
from labctl.isakmp.main_mode import RandomSource, known, only
from labctl.isakmp.payloads import Identification, IdType, Nonce, Notification
from labctl.isakmp.sa import Opened, Phase1Sa
from labctl.isakmp.timers import Timers, earlier

NONCE_OCTETS = 32
MAX_EVENTS = 10_000

# SPIs that were told us, which are remembered beyond their keys.
MAX_KNOWN_SPIS = 256

# The log says at most this often that rekeys are bad.
COMPLAINT_SECONDS = 1.0

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


class State(Enum):
    """Where the registration stands."""

    IDLE = "idle"
    PHASE1 = "phase 1"
    REQUESTED = "requested"
    ACCEPTED = "accepted"
    REGISTERED = "registered"
    PAUSED = "paused"


class _Timer(IntEnum):
    REGISTER = 1
    RESUME = 2
    KEYS = 3
    STRANGE_KEK = 4


@dataclass(slots=True)
class _Pull:
    """A GROUPKEY-PULL of ours."""

    cookies: bytes
    message_id: int
    prefix: bytes = field(repr=False)
    # Phase 1 was there already: the key server may have forgotten it since.
    reused: bool
    policy: Policy | None = None
    # What was wrong with the last answer, which does not end the exchange: anybody may have sent it.
    problem: str = ""


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
        self.membership = membership
        self.state = State.IDLE
        self.reason = ""
        self.key_server: IPv4Address | None = None
        self.keys: GroupKeys | None = None
        self.registered_with: IPv4Address | None = None
        self.registered_at = 0.0
        self.next_registration: float | None = None
        self.attempts = 0
        self.successes = 0
        self._timing = timing or Timing()
        self._open_push: Opener = opener or open_push
        self._random = random
        self._index = 0
        self._rounds = 0
        self._pull: _Pull | None = None
        self.rekeys = RekeyCounts()
        self._sending: tuple[int | None, ...] = ()
        # What an order made of the direction, until the key server says something new; and what was told last.
        self._ordered: SaDirection | None = None
        self._told_direction = SaDirection.BOTH
        # A replaced KEK, and until when rekeys under it are still taken.
        self._replaced_kek: tuple[KeyEncryptionKey, float] | None = None
        self._rekey_address: IPv4Address | None = None
        self._early = EarlyRekeys()
        self._complained_at = float("-inf")
        self._recovered_at = float("-inf")
        # Others may send under a key for a moment after it is taken from us.
        self._known_spis: deque[int] = deque(maxlen=MAX_KNOWN_SPIS)
        self._timers: Timers[_Timer] = Timers()
        self._events: deque[Event] = deque(maxlen=MAX_EVENTS)
        # Made once: a member that is cut off tries again and again.
        self._local = Endpoint(membership.local_address)
        self._servers = tuple(Endpoint(address) for address in membership.key_servers)
        self._beginnings = tuple(
            f"Start registration to KS {address} for group {membership.name} using address {membership.local_address}"
            for address in membership.key_servers
        )
        self._waiting = tuple(f"{address}: waiting for its first answer" for address in membership.key_servers)
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

    # The sans-IO interface.

    def start(self, now: float) -> None:
        """Register, beginning with the first key server of the list."""
        self._index = self._rounds = 0
        self._attempt(now)

    def stop(self, now: float) -> None:
        """Leave: end phase 1 and forget the keys."""
        for key in _Timer:
            self._timers.cancel(key)
        self._isakmp.abandon(self._server())
        self._pull = None
        for sa in self._isakmp.associations:
            self._isakmp.delete(sa, now, "the member leaves the group")
        self._forget_policy()
        self._set(State.IDLE, "")
        self._log("GDOI", 5, "GM_UNREGISTER", f"GM left the group {self.membership.name}.")

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
                self._attempt(now)
            elif key is _Timer.STRANGE_KEK:
                self._miss_kek(now)
            elif self.state is State.REGISTERED:
                self._miss_rekey()
                self.reregister(now)

    def next_event(self) -> Event | None:
        """The oldest event not fetched yet."""
        while (below := self._isakmp.next_event()) is not None:
            # A reason that the key server gave in clear is worth showing long before the exchange times out.
            if isinstance(below, Phase1Hint) and self.state is State.PHASE1:
                self._set(State.PHASE1, f"{below.peer.address}: {below.reason}")
            self._events.extend(self._phase1_log.of(below))
        return self._events.popleft() if self._events else None

    # What the agent asks for, by order of a user or of the data plane.

    def clear(self, now: float) -> None:
        """`clear crypto gdoi`: forget policy and keys, and register at once."""
        self._log("GDOI", 5, "GM_CLEAR_REGISTER", f"GM clears the policy of group {self.membership.name}.")
        self._abandon_registration(now)
        self._forget_policy()
        self._index = self._rounds = 0
        self._attempt(now)

    def reregister(self, now: float) -> None:
        """`clear crypto sa` and all that has the same effect: register anew, keeping the keys until then."""
        if self.state in (State.PHASE1, State.REQUESTED, State.ACCEPTED):
            return
        text = (
            f"The IPSec SA created for group {self.membership.name} may have expired/been cleared, "
            "or didn't go through. Re-register to KS."
        )
        self._log("GDOI", 4, "GM_RE_REGISTER", text)
        self._timers.cancel(_Timer.RESUME)
        self._index = self._rounds = 0
        self._attempt(now)

    def turn(self, direction: SaDirection, now: float) -> None:
        """`crypto gdoi gm group G ipsec direction ...`: counts until the key server turns receive-only on or off, or
        gives keys at a registration. Nothing to do without keys."""
        if self.keys is None:
            return
        self._ordered = direction
        self._refresh_keys(now)

    def reconfigure(self, membership: GroupMembership, now: float) -> None:
        """Another configuration of the same membership, from now on; what it asks of a registration, from the next."""
        turned = membership.passive != self.membership.passive
        self.membership = membership
        if turned:
            self._ordered = None
            self._refresh_keys(now)

    def set_trustpoints(self, trustpoints: Sequence[Trustpoint], now: float) -> None:
        """Other certificates, CAs or CRLs from now on; keys stay. Raises LocalError, changing nothing.

        A member that has no keys begins to register anew at once: it may be believed now, or believe.
        """
        self._isakmp.set_trustpoints(trustpoints, now)
        if not self.registered and self.state is not State.IDLE:
            self._abandon_registration(now)
            self._index = self._rounds = 0
            self._attempt(now)

    def data_plane_error(self, kind: str, now: float) -> None:
        """A packet could not be decrypted (an SPI nobody told us, a replay): `client recovery-check` asks elsewhere."""
        interval = self.membership.recovery_check
        if interval is None or self.state is not State.REGISTERED or now < self._recovered_at + interval:
            return
        self._recovered_at = now
        servers, last = self.membership.key_servers, self.registered_with
        self._index = (servers.index(last) + 1) % len(servers) if last in servers else 0
        self._rounds = 0
        text = f"GM recovery: {kind} in group {self.membership.name}. Register to KS {servers[self._index]}."
        self._log("GDOI", 4, "GM_RECOVERY_REGISTRATION", text)
        self._attempt(now)

    def unknown_spi(self, spi: int, now: float) -> None:
        """ESP came under an SPI that we have no key for.

        Only one of this group, that we never had, says that others have keys which we lack (cisco-getvpn.md 2.8).
        """
        if may_be_of(self.membership.identity, spi) and spi not in self._known_spis:
            self.data_plane_error(f"a packet with the unknown SPI 0x{spi:08X}", now)

    def _abandon_registration(self, now: float) -> None:
        self._timers.cancel(_Timer.RESUME)
        self._timers.cancel(_Timer.REGISTER)
        self._isakmp.abandon(self._server())
        self._abandon_pull()

    def _abandon_pull(self) -> None:
        pull, self._pull = self._pull, None
        for sa in self._isakmp.associations:
            if pull is not None and sa.cookies == pull.cookies:
                self._isakmp.answered(sa, pull.message_id)

    def _forget_policy(self) -> None:
        had, self.keys = self.keys, None
        self._replaced_kek = None
        self._sending = ()
        self._ordered, self._told_direction = None, SaDirection.BOTH
        self.next_registration = None
        self._follow_rekeys(None)
        if had is not None:
            self._events.append(KeysLost(self.membership.name, policy=False))

    def _await_kek(self, now: float) -> None:
        """Others in the key tree have a KEK that we were not given: it may be on its way."""
        self._timers.set(
            _Timer.STRANGE_KEK, now + self._timing.strange_kek + self._timing.strange_kek_spread * self._share()
        )

    def _miss_kek(self, now: float) -> None:
        if self._early.give_up(now, self._timing.strange_kek_pause) and self.state is State.REGISTERED:
            self._miss_rekey()
            self.reregister(now)

    def _miss_rekey(self) -> None:
        """The window has come, so no rekey brought newer keys: worth a word where some were to be expected."""
        if self.keys is not None and self.keys.kek is not None and self.registered_with is not None:
            text = f"GM did not receive rekey from KS {self.registered_with} in group {self.membership.name}."
            self._log("GDOI", 5, "GM_REKEY_NOT_RECD", text)

    # What the agent asks.

    @property
    def direction(self) -> SaDirection:
        """What the SAs are for: as ordered, as configured on this member, or as the key server says."""
        if self._ordered is not None:
            return self._ordered
        if self.membership.passive:
            return SaDirection.INBOUND_OPTIONAL
        receive_only = self.keys is not None and self.keys.receive_only
        return SaDirection.INBOUND_ONLY if receive_only else SaDirection.BOTH

    @property
    def registered(self) -> bool:
        """True while there are keys."""
        return self.keys is not None and bool(self.keys.teks)

    @property
    def isakmp(self) -> IsakmpEndpoint:
        """For reading: associations and their counts."""
        return self._isakmp

    # Registration.

    def _server(self) -> Endpoint:
        return self._servers[self._index]

    def _attempt(self, now: float) -> None:
        server = self._server()
        self.key_server = server.address
        self.attempts += 1
        self._pull = None
        self._log("CRYPTO", 5, "GM_REGSTER", self._beginnings[self._index])
        # Phase 1 of a registration before is used again where it lasts for this one.
        association = self._isakmp.association_with(server, until=now + self._isakmp.limits.reuse_seconds)
        if association is not None:
            self._request(association, now, reused=True)
            return
        self._set(State.PHASE1, self.reason or self._waiting[self._index])
        self._isakmp.initiate(self._local, server, now)

    def _failed(self, reason: str, now: float) -> None:
        """This key server did not give us keys: the next one, after a pause once all have failed."""
        server = self._server()
        self._pull = None
        reason = f"{server.address}: {reason}"
        self._index += 1
        if self._index < len(self.membership.key_servers):
            self._set(State.PHASE1, reason)
            self._log("CRYPTO", 5, "GM_CONN_NEXT_SER", "GM is connecting to next key server from the list")
            self._timers.set(_Timer.RESUME, now)
            return
        self._index = 0
        self._rounds += 1
        pause = self._timing.pause_after(self._rounds)
        # Members that lost the same key server do not all come back at once.
        jitter = self._share() * pause * 0.2
        self._timers.set(_Timer.RESUME, now + pause + jitter)
        self._set(State.PAUSED, reason)

    def _request(self, sa: Phase1Sa, now: float, *, reused: bool) -> None:
        """Message 1: HASH(1) = prf(M-ID | Ni | ID)."""
        message_id = self._isakmp.new_message_id()
        nonce = Nonce(self._random(NONCE_OCTETS))
        identity = encoding.group_identity(self.membership.identity)
        mid = message_id.to_bytes(4, "big")
        self._pull = _Pull(sa.cookies, message_id, mid + nonce.data, reused)
        data = sa.protect(ExchangeType.GROUPKEY_PULL, message_id, (nonce, identity), mid)
        self._isakmp.request(sa, message_id, data, now)
        self._set(State.REQUESTED, self.reason or f"{sa.peer.address}: waiting for the policy")

    def _receive_policy(self, sa: Phase1Sa, received: Received, opened: Opened, pull: _Pull, now: float) -> None:
        """Message 2 to message 3: HASH(2) = prf(M-ID | Ni_b | Nr | SA); HASH(3) = prf(M-ID | Ni_b | Nr_b)."""
        sa.verify(opened, pull.prefix)
        self._isakmp.answered(sa, pull.message_id)
        self._isakmp.reply(received, None, now)
        try:
            if [item.payload.TYPE for item in opened.payloads] != [PayloadType.NONCE, PayloadType.SA]:
                raise MalformedMessage("message 2 of GROUPKEY-PULL holds a nonce and an SA")
            nonce = only(opened.payloads, Nonce)
            pull.policy = read_policy(only(opened.payloads, GdoiSa), now)
        except PeerError as error:
            self._reject(sa, error, now)
            return
        pull.prefix += nonce.data
        data = sa.protect(ExchangeType.GROUPKEY_PULL, pull.message_id, (), pull.prefix)
        self._isakmp.request(sa, pull.message_id, data, now)
        self._set(State.ACCEPTED, f"{sa.peer.address}: waiting for the keys")

    def _reject(self, sa: Phase1Sa, error: PeerError, now: float) -> None:
        """Policy that we cannot take: say so and leave phase 1 (RFC 6407 3.3)."""
        text = (
            f"Registration: Policy in SA payload sent by KS {sa.peer.address} rejected by GM in the group "
            f"{self.membership.name} reason {error.reason}"
        )
        self._log("GDOI", 4, "GM_REJECTING_SA_PAYLOAD", text)
        self._pull = None
        self._isakmp.notify(sa, NotifyType.NO_PROPOSAL_CHOSEN)
        self._isakmp.delete(sa, now, "the policy is not acceptable")
        self._failed(f"its policy is not acceptable: {error.reason}", now)

    def _receive_keys(self, sa: Phase1Sa, received: Received, opened: Opened, pull: _Pull, now: float) -> None:
        """Message 4: HASH(4) = prf(M-ID | Ni_b | Nr_b [| SEQ] | KD)."""
        sa.verify(opened, pull.prefix)
        self._isakmp.answered(sa, pull.message_id)
        self._isakmp.reply(received, None, now)
        sa.forget(pull.message_id)
        policy = known(pull.policy)
        expected = [PayloadType.SEQ, PayloadType.KD] if policy.kek is not None else [PayloadType.KD]
        try:
            if [item.payload.TYPE for item in opened.payloads] != expected:
                raise MalformedMessage("message 4 of GROUPKEY-PULL holds KD, and SEQ where there is a KEK")
            sequence = only(opened.payloads, SequenceNumber).number if policy.kek is not None else 0
            keys = combine(policy, only(opened.payloads, KeyDownload), sequence)
        except PeerError as error:
            self._reject(sa, error, now)
            return
        self._pull = None
        self._install(sa.peer.address, keys, now)

    def _install(self, server: IPv4Address, keys: GroupKeys, now: float) -> None:
        name, address = self.membership.name, self.membership.local_address
        before = self.keys
        self.keys = keys.succeeding(before, now, rekey=False)
        self._replaced_kek = None
        if keys.kek is not None:
            self._early.registered(keys.kek.spi)
        self._ordered = None
        self.registered_with = server
        self.registered_at = now
        self.successes += 1
        self._rounds = 0
        self._tell_of_keys(before)
        if self.membership.local_policy:
            self._log("GDOI", 5, "GM_ACL_MERGE", f"ACL between KS and GM in group {name} merged.")
        text = f"SUCCESS: Installation of Reg/Rekey policies from KS {server} for group {name} & gm identity {address}"
        self._log("GDOI", 5, "GM_INSTALL_POLICIES_SUCCESS", text)
        text = (
            f"Registration to KS {server} complete for group {name} using address {address} [fvrf default ivrf default]"
        )
        self._log("GDOI", 5, "GM_REGS_COMPL", text)
        self._schedule_registration(now)
        self._sending = ()
        self._refresh_keys(now)
        self._set(State.REGISTERED, "")

    def _tell_of_keys(self, before: GroupKeys | None) -> None:
        """Log and announce keys that were not there before."""
        keys = known(self.keys)
        old_kek, kek = None if before is None else before.kek, keys.kek
        if kek is not None and (old_kek is None or kek.spi != old_kek.spi):
            self._log("GDOI", 5, "SA_KEK_UPDATED", "SA KEK was updated")
            self._events.append(RekeyKeyLog(kek.spi, kek.iv, kek.key))
        if fresh := keys.teks.keys() - (set() if before is None else before.teks.keys()):
            self._known_spis.extend(fresh)
            self._log("GDOI", 5, "SA_TEK_UPDATED", "SA TEK was updated")
        if old_kek is not None and kek is not None and (old_kek.address is None) != (kek.address is None):
            mnemonic, transport = (
                ("GM_REKEY_TRANS_2_UNI", "unicast") if kek.address is None else ("GM_REKEY_TRANS_2_MULTI", "multicast")
            )
            text = f"Group {self.membership.name} transitioned to {transport} rekey."
            self._log("GDOI", 5, mnemonic, text)
        if keys.ignored and (before is None or before.ignored != keys.ignored):
            text = (
                f"The ACL of group {self.membership.name} contains too many entries. "
                f"GDOI will honor the first {MOST_PERMITS} ACL entries specified."
            )
            self._log("GDOI", 3, "GDOI_ACL_NUM", text)
        if before is not None and before.receive_only != keys.receive_only:
            self._ordered = None
        self._follow_rekeys(kek)

    def _follow_rekeys(self, kek: KeyEncryptionKey | None) -> None:
        address = None if kek is None else kek.address
        if address != self._rekey_address:
            self._rekey_address = address
            source = None if kek is None else kek.source
            self._events.append(RekeyAddress(self.membership.name, address, source))

    def _schedule_registration(self, now: float) -> None:
        self.next_registration = None
        moment = registration_moment(known(self.keys), self._timing, self._share())
        if moment is not None:
            self._register_at(max(now + 1.0, moment))

    def _refresh_keys(self, now: float) -> None:
        """Drop keys at their end, and move sending to the next key before the old one ends."""
        keys = self.keys
        if keys is None:
            return
        alive = keys.alive(now)
        changed = alive is not keys
        lost = changed and not alive.teks
        self.keys = keys = alive
        direction = self.direction
        sending = tuple(
            rule.sending(keys.teks, now, switch_margin(keys, rule.spis, self._timing), keys.activations)
            if rule.entry.action is Action.PERMIT and direction is not SaDirection.INBOUND_ONLY
            else None
            for rule in keys.rules
        )
        if changed or sending != self._sending or not self._sending or direction is not self._told_direction:
            self._tell_direction(direction)
            self._sending = sending
            self._events.append(PolicyInstalled(self.membership.name, keys, sending, direction))
            self._events.append(StateChanged(self.membership.name))
        if lost:
            self._events.append(KeysLost(self.membership.name, policy=True))
        moment = next_change(keys, self._timing, now)
        if moment is not None:
            self._timers.set(_Timer.KEYS, moment)

    def _tell_direction(self, direction: SaDirection) -> None:
        if direction is self._told_direction:
            return
        self._told_direction = direction
        mnemonic = "GM_SA_INGRESS" if direction is SaDirection.INBOUND_ONLY else "GM_CONV_SA_DUPLEX"
        text = f"IPSec SA direction of group {self.membership.name} is {direction.value} from now on."
        self._log("GDOI", 5, mnemonic, text)

    # Called by the ISAKMP endpoint.

    def on_established(self, sa: Phase1Sa, now: float) -> None:
        """Go on with GROUPKEY-PULL."""
        self._events.append(Phase1KeyLog(sa.cookies[:8], sa.keys.cipher_key, sa.peer.address))
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
        self._events.append(failure_message(failure))
        self._failed(failure.reason, now)

    def on_deleted(self, sa: Phase1Sa, reason: str, now: float) -> None:
        """Phase 1 may end: data and keys do not need it. A registration under way does."""
        if self._pull is not None and self._pull.cookies == sa.cookies:
            self._failed(f"phase 1 ended during the registration: {reason}", now)

    def on_notification(self, sa: Phase1Sa, notification: Notification, now: float) -> None:
        """The key server refuses the registration, or finds one of its messages bad."""
        if self._pull is None or sa.cookies != self._pull.cookies or not notification.is_error:
            return
        known_reason = next((text for kind, text in _REFUSALS.items() if kind == notification.kind), None)
        reason = (known_reason or f"it refuses with {notification.name}").format(identity=self.membership.identity)
        if notification.kind == NotifyType.AUTHENTICATION_FAILED and (
            told := refusals.text_of(notification, sa.peer_vendor_ids)
        ):
            reason += f": {told}"
        if notification.kind in _COMPLAINTS:
            self._pull.problem = reason
            return
        self._isakmp.answered(sa, self._pull.message_id)
        self._failed(reason, now)

    def on_exchange(self, sa: Phase1Sa, received: Received, now: float) -> None:
        """GROUPKEY-PULL, messages 2 and 4."""
        pull = self._pull
        header = received.header
        ours = pull is not None and (sa.cookies, header.message_id) == (pull.cookies, pull.message_id)
        if pull is None or not ours or header.exchange != ExchangeType.GROUPKEY_PULL:
            raise PeerError("no exchange of ours is waiting for this", NotifyType.INVALID_EXCHANGE_TYPE)
        try:
            opened = sa.open(header, received.datagram.data, PARSERS)
            if pull.policy is None:
                self._receive_policy(sa, received, opened, pull, now)
            else:
                self._receive_keys(sa, received, opened, pull, now)
        except PeerError as error:
            if isinstance(error, InvalidHash) and not pull.problem:
                self._log("GDOI", 4, "GM_HASH_FAIL", f"Bad hash in registration message from {sa.peer.address}")
            pull.problem = f"its answer is not acceptable: {error.reason}"
            raise

    # GROUPKEY-PUSH.

    def on_group_datagram(self, received: Received, now: float) -> None:
        """A rekey: reference 4.3, in its order."""
        under, keys = self._kek_of(received, now), self.keys
        if under is None or keys is None:
            self._receive_early(received, now)
            raise PeerError("no rekey under a KEK of ours", NotifyType.INVALID_COOKIE)
        server = received.datagram.source.address
        try:
            push = self._open_push(received.datagram.data, under)
            outcome = apply_push(push, under, keys, now)
        except PeerError as error:
            self._reject_rekey(error, under, server, now)
            if isinstance(error, NotAddressed) and self._early.suspect(received.digest, now):
                self._await_kek(now)
            raise
        identity = Identification(IdType.IPV4_ADDR, self.membership.local_address.packed)
        answer = acknowledgement(under, push.sequence, identity)
        if answer is not None:
            self.rekeys.acknowledged += 1
            # It leaves from the member's own address, also where the rekey came to a multicast group.
            own = Endpoint(self.membership.local_address, received.datagram.destination.port)
            received = replace(received, datagram=replace(received.datagram, destination=own))
        self._isakmp.reply(received, answer, now)
        self.rekeys.received += 1
        self.rekeys.last_sequence, self.rekeys.last_at = push.sequence, now
        self._take_rekey(push, under, keys, outcome, server, now)

    def _receive_early(self, received: Received, now: float) -> None:
        """A rekey of our key server under a KEK that we do not have: a key tree has a newer one."""
        keys, header, datagram = self.keys, received.header, received.datagram
        if keys is None or keys.path is None or keys.kek is None or header.exchange != ExchangeType.GROUPKEY_PUSH:
            return
        ours = datagram.source.address in (self.registered_with, keys.kek.source)
        if ours and self._early.keep(header.cookies, datagram, now):
            self._await_kek(now)

    def _kek_of(self, received: Received, now: float) -> KeyEncryptionKey | None:
        """The KEK that a rekey says it is under: the present one, or the one it replaced for a moment longer."""
        candidates = [] if self.keys is None or self.keys.kek is None else [self.keys.kek]
        if self._replaced_kek is not None and now < self._replaced_kek[1]:
            candidates.append(self._replaced_kek[0])
        if received.header.exchange != ExchangeType.GROUPKEY_PUSH:
            return None
        return next((kek for kek in candidates if kek.spi == received.header.cookies and now < kek.expires), None)

    def _take_rekey(
        self,
        push: Push,
        under: KeyEncryptionKey,
        before: GroupKeys,
        outcome: Outcome,
        server: IPv4Address,
        now: float,
    ) -> None:
        name, local = self.membership.name, self.membership.local_address
        self.keys = outcome.keys
        spis = "".join(f", spi 0x{spi:08X}" for spi in outcome.keys.teks.keys() - before.teks.keys())
        text = f"Received Rekey for group {name} from {server} to {under.address or local} with seq # {push.sequence}"
        self._log("GDOI", 5, "GM_RECV_REKEY", text + spis)
        if before.kek is not None and (outcome.keys.kek is None or outcome.keys.kek.spi != before.kek.spi):
            spent = replace(before.kek, sequence=push.sequence)
            self._replaced_kek = (spent, now + self._timing.kek_grace)
        elif self._replaced_kek is not None and self._replaced_kek[0].spi == under.spi:
            self._replaced_kek = (replace(under, sequence=push.sequence), self._replaced_kek[1])
        self._tell_of_keys(before)
        if outcome.wiped:
            self._come_back(now)
        elif outcome.kek_deleted and outcome.keys.kek is None:
            text = (
                f"GM received delete-msg from KS in group {name}. TEKs lifetime are reduced and "
                "re-registration will start before SA expiry"
            )
            self._log("GDOI", 4, "GM_RECV_DELETE", text)
            left = min(tek.expires for tek in outcome.keys.teks.values()) - now
            # Spread over the first half of what is left: time for every key server of the list.
            self._register_at(now + left * 0.5 * self._share())
        else:
            if outcome.deleted:
                text = f"GM received policy replace now from KS in group {name}."
                self._log("GDOI", 5, "GM_RECV_POLICY_REPLACE_NOW", text)
            self._schedule_registration(now)
        self._sending = ()
        self._refresh_keys(now)
        if outcome.keys.kek is not None and (before.kek is None or outcome.keys.kek.spi != before.kek.spi):
            for datagram in self._early.learned(outcome.keys.kek.spi):
                self._isakmp.receive(datagram, now)

    def _come_back(self, now: float) -> None:
        """Everything was taken from us: register again, not all members at once (reference 4.5)."""
        pause = self._timing.wiped * self._share()
        text = (
            f"GM received delete-msg from KS in group {self.membership.name} with REMOVAL-NOW. "
            f"Re-registration will start in a randomly chosen period of {pause:.0f} sec"
        )
        self._log("GDOI", 4, "GM_RECV_DELETE_IMMEDIATE", text)
        self._events.append(KeysLost(self.membership.name, policy=True))
        self._timers.cancel(_Timer.KEYS)
        self._timers.cancel(_Timer.REGISTER)
        self.next_registration = None
        if self.state is State.REGISTERED:
            self._index = self._rounds = 0
            self._timers.set(_Timer.RESUME, now + pause)
            self._set(State.PAUSED, f"{self.registered_with}: it took the keys back")

    def _share(self) -> float:
        """A random number from 0 to 1."""
        return int.from_bytes(self._random(2), "big") / 0xFFFF

    def _register_at(self, moment: float) -> None:
        self.next_registration = moment
        self._timers.set(_Timer.REGISTER, moment)

    def _reject_rekey(self, error: PeerError, under: KeyEncryptionKey, server: IPv4Address, now: float) -> None:
        name = self.membership.name
        if isinstance(error, ReplayedRekey):
            self.rekeys.replayed += 1
            mnemonic = "GDOI_REKEY_SEQ_FAILURE"
            text = f"Failed to process rekey in group {name}: {error.reason}"
        else:
            self.rekeys.rejected += 1
            mnemonic = "GDOI_REKEY_FAILURE"
            text = (
                f"Processing of REKEY payloads failed on GM {self.membership.local_address} in the group {name}, "
                f"with peer at {server}: {error.reason}"
            )
        # Whoever saw a rekey knows its cookies: the log is not theirs to fill.
        if now >= self._complained_at + COMPLAINT_SECONDS:
            self._complained_at = now
            self._log("GDOI", 3, mnemonic, text)

    def on_request_failed(self, sa: Phase1Sa, message_id: int, now: float) -> None:
        """The key server fell silent during GROUPKEY-PULL: phase 1 with it is worth nothing any more."""
        pull = self._pull
        if pull is None or (sa.cookies, message_id) != (pull.cookies, pull.message_id):
            return
        self._pull = None
        self._isakmp.delete(sa, now, "the peer does not answer", tell=False)
        if pull.reused and not pull.problem:
            # A key server that restarted knows nothing of the old phase 1.
            self._attempt(now)
            return
        self._failed(pull.problem or "it stopped to answer during GROUPKEY-PULL", now)

    # Telling.

    def _set(self, state: State, reason: str) -> None:
        if (state, reason) != (self.state, self.reason):
            self.state, self.reason = state, reason
            self._events.append(StateChanged(self.membership.name))

    def _log(self, facility: str, severity: int, mnemonic: str, text: str) -> None:
        self._events.append(LogMessage(facility, severity, mnemonic, text))
