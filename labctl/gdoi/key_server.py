"""The key server: authenticates members, hands out policy and keys by GROUPKEY-PULL (RFC 6407 3). Sans-IO."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address

from labctl import crypto
from labctl.configuration import (
    MOST_PERMITS,
    Action,
    IsakmpPolicy,
    IsakmpSettings,
    KeyServerGroup,
    PreSharedKey,
    RekeyTransport,
    TransformSet,
    Trustpoint,
)
from labctl.gdoi import access_lists, encoding
from labctl.gdoi.ack import Unsolicited
from labctl.gdoi.authorization import Denied, check_identities, denial
from labctl.gdoi.events import Event, LogMessage, Phase1KeyLog, StateChanged
from labctl.gdoi.group import Change, Group
from labctl.gdoi.members import Member
from labctl.gdoi.numbers import GapAttribute
from labctl.gdoi.payloads import PARSERS, GroupAssociatedPolicy, KeyDownload, KeyPacket, SequenceNumber
from labctl.gdoi.phase1_failures import failure_message
from labctl.gdoi.phase1_log import Phase1Log
from labctl.gdoi.sender_ids import SenderIdsExhausted
from labctl.gdoi.timing import Timing
from labctl.isakmp import vendor
from labctl.isakmp.datagram import Datagram, Endpoint
from labctl.isakmp.endpoint import IsakmpEndpoint, Limits, Received
from labctl.isakmp.errors import InvalidHash, MalformedMessage, NotifyType, PeerError
from labctl.isakmp.events import Cause, Phase1Failed
from labctl.isakmp.header import ExchangeType, PayloadType
from labctl.isakmp.main_mode import RandomSource, only
from labctl.isakmp.payloads import Identification, Nonce, Notification, Payload
from labctl.isakmp.sa import Opened, Phase1Sa
from labctl.isakmp.timers import Timers, earlier

NONCE_OCTETS = 32

# GROUPKEY-PULLs between message 2 and message 3, over all members; beyond it the oldest are dropped.
MAX_PULLS = 4096
MAX_PULLS_PER_PEER = 16
PULL_SECONDS = 60.0

# A peer is told, and the log says, at most this often that its messages are bad: anybody can send some.
COMPLAINT_SECONDS = 1.0

# The most sender IDs one member may ask for (GAP attribute 3).
MAX_SENDER_IDS = 16

MAX_EVENTS = 10_000


@dataclass(slots=True)
class _Pull:
    """A GROUPKEY-PULL that waits for message 3."""

    group: Group
    nonces: bytes = field(repr=False)
    # What message 4 will bring: the keys of message 2, whatever happens to the group in between.
    packets: tuple[KeyPacket, ...] = field(repr=False)
    sequence: SequenceNumber | None
    # Rekeys of the group so far: those that begin before message 4 are sent to this member too.
    rekeys_seen: int
    started: float
    # The keys of message 2 have been taken back.
    stale: bool = False


@dataclass(frozen=True, slots=True)
class TekStatus:
    """A TEK as `status` shows it: of which `sa ipsec` entry, and the seconds left of its life."""

    spi: int
    number: int
    transform: TransformSet
    left: float


@dataclass(frozen=True, slots=True)
class GroupStatus:
    """A group as `status` shows it."""

    name: str
    identity: str
    members: tuple[Member, ...]
    teks: tuple[TekStatus, ...]
    kek_left: float | None
    # "unicast", or the multicast group, or None where no rekeys are sent.
    rekey_transport: str | None = None
    sequence: int = 0
    rekeys_sent: int = 0
    # Members that the present rekeys still wait for.
    waiting: int = 0
    # Members in the key tree, and its levels; None where the group has none.
    tree_leaves: int | None = None
    tree_depth: int | None = None
    # As configured: members follow with the next rekey.
    receive_only: bool = False


def _transport(group: Group) -> str | None:
    if not group.sends_rekeys:
        return None
    rekey = group.configuration.rekey
    return "unicast" if rekey.transport is RekeyTransport.UNICAST else f"multicast {rekey.address}"


class KeyServer:
    """One key server with its groups, on one UDP port."""

    def __init__(
        self,
        groups: Sequence[KeyServerGroup],
        policies: Sequence[IsakmpPolicy],
        pre_shared_keys: Sequence[PreSharedKey],
        *,
        trustpoints: Sequence[Trustpoint] = (),
        started: float = 0.0,
        random: RandomSource,
        signing_key: crypto.RsaPrivateKey | None = None,
        relaxed_doi: bool = True,
        limits: Limits | None = None,
        timing: Timing | None = None,
        settings: IsakmpSettings | None = None,
    ) -> None:
        timing = timing or Timing()
        for item in groups:
            check_identities(item.name, item.authorized_identities)
        self._random = random
        self._groups = {
            encoding.group_identity(group.identity).pack(): Group(group, random, signing_key, timing)
            for group in groups
        }
        self._isakmp = IsakmpEndpoint(
            self,
            policies=policies,
            pre_shared_keys=pre_shared_keys,
            trustpoints=trustpoints,
            started=started,
            random=random,
            relaxed_doi=relaxed_doi,
            limits=limits,
            settings=settings,
            # Key servers and members do not ask each other (cisco-getvpn 1.3).
            keepalive_peers=(),
        )
        self._phase1_log = Phase1Log()
        self._pulls: OrderedDict[tuple[bytes, int], _Pull] = OrderedDict()
        self._complained: dict[bytes, float] = {}
        self._timers: Timers[bytes] = Timers()
        self._events: deque[Event] = deque(maxlen=MAX_EVENTS)
        self._rekeys: list[Datagram] = []
        self._unsolicited: float = -COMPLAINT_SECONDS
        for group in groups:
            self._warn_of_size(group)

    # The sans-IO interface.

    def receive_datagram(self, datagram: Datagram, now: float) -> None:
        """Take a datagram; whatever it holds, nothing is raised."""
        self._isakmp.receive(datagram, now)

    def datagrams_to_send(self) -> list[Datagram]:
        """What has to leave."""
        rekeys, self._rekeys = self._rekeys, []
        return self._isakmp.datagrams_to_send() + rekeys

    def next_deadline(self) -> float | None:
        """When `handle_timer` wants to be called."""
        return earlier(self._isakmp.next_deadline(), self._timers.next_deadline())

    def handle_timer(self, now: float) -> None:
        """Do what is due: retransmissions, new keys, rekeys."""
        self._isakmp.handle_timer(now)
        while (identity := self._timers.pop_due(now)) is not None:
            group = self._groups[identity]
            self._tell(group, group.advance(now))
            self._transmit(group, now)

    def stop(self, now: float) -> None:
        """Serve no more: end phase 1 with every member, so that none of them relies on it."""
        for sa in self._isakmp.associations:
            self._isakmp.delete(sa, now, "the key server stops")

    def next_event(self) -> Event | None:
        """The oldest event not fetched yet."""
        while (below := self._isakmp.next_event()) is not None:
            # Everything else that matters comes through the methods below.
            self._events.extend(self._phase1_log.of(below))
        return self._events.popleft() if self._events else None

    # What the agent asks.

    def status(self, now: float) -> tuple[GroupStatus, ...]:
        """Each group with its members and the life left in its keys (seconds)."""
        return tuple(
            GroupStatus(
                group.configuration.name,
                str(group.configuration.identity),
                tuple(group.members.values()),
                tuple(
                    TekStatus(tek.spi, item.sa.number, tek.transform, tek.expires - now)
                    for item in group.generations
                    for tek in item.teks.values()
                ),
                None if group.kek is None else group.kek.expires - now,
                _transport(group),
                0 if group.kek is None else group.kek.sequence,
                group.rekeys_begun,
                sum(len(rekey.waiting) for rekey in group.rekeys if rekey.acknowledgement is not None),
                None if group.tree is None else len(group.tree),
                None if group.tree is None else group.tree.depth,
                group.configuration.receive_only,
            )
            for group in self._groups.values()
        )

    @property
    def isakmp(self) -> IsakmpEndpoint:
        """For reading: associations and their counts."""
        return self._isakmp

    @property
    def open_pulls(self) -> int:
        """GROUPKEY-PULLs that wait for message 3."""
        return len(self._pulls)

    def group(self, name: str) -> Group:
        """A group by name. Raises KeyError."""
        for group in self._groups.values():
            if group.configuration.name == name:
                return group
        raise KeyError(name)

    # Orders. Each raises KeyError for a group that is not there.

    def rekey(self, group: str, now: float, *, replace_now: bool = False) -> None:
        """`crypto gdoi ks rekey [replace-now]`."""
        self._order(self.group(group), lambda item: item.rekey(now, replace_now=replace_now), now)

    def clear_members(self, group: str, now: float, *, immediate: bool = False) -> None:
        """`clear crypto gdoi ks members [now]`."""
        found = self.group(group)
        self._drop_pulls(found)
        self._order(found, lambda item: item.clear_members(now, immediate=immediate), now)

    def evict(self, group: str, address: IPv4Address, now: float, *, immediate: bool = False) -> None:
        """Let a member in no more, and give all others keys that it does not know (RFC 6407 7.4.1).

        With a key tree they are sent them; without one they come back for them, as after `clear_members`.
        """
        found = self.group(group)
        found.revoked.add(address)
        self._exclude(found, (address,), now, immediate=immediate)

    def _exclude(self, group: Group, gone: Sequence[IPv4Address], now: float, *, immediate: bool = False) -> None:
        self._drop_pulls(group)
        self._order(group, lambda item: item.exclude(gone, now, immediate=immediate), now)

    def allow(self, group: str, address: IPv4Address) -> None:
        """Let an evicted member in again."""
        self.group(group).revoked.discard(address)

    def set_trustpoints(self, trustpoints: Sequence[Trustpoint], now: float) -> None:
        """Other certificates, CAs or CRLs, as `registration periodic crl` takes note of them.

        Whoever they do not bear out any more loses phase 1, gets no further key, and its group goes on under keys that
        it does not know, as after `evict`. Raises LocalError, changing nothing.
        """
        self._isakmp.set_trustpoints(trustpoints, now)
        for group in self._groups.values():
            name = group.configuration.name
            refused = {
                member.address: reason
                for member in group.members.values()
                if (reason := self._isakmp.refuses(member.certificates, now))
            }
            for address, reason in refused.items():
                self._log("GDOI", 3, "KS_GM_REVOKED", f"GM {address} is let into the group {name} no more: {reason}")
            if refused:
                self._exclude(group, tuple(refused), now)

    def reconfigure(self, configuration: KeyServerGroup) -> None:
        """Another policy for the group of that name, from its next rekey on. Raises LocalError."""
        check_identities(configuration.name, configuration.authorized_identities)
        group = self.group(configuration.name)
        was = group.configuration
        if group.reconfigure(configuration):
            text = (
                f"GDOI group {configuration.name} policy has changed. Use 'crypto gdoi ks rekey' to send a rekey, "
                "or the changes will be send in the next scheduled rekey"
            )
            self._log("GDOI", 5, "POLICY_CHANGE", text)
        if was.receive_only != configuration.receive_only:
            mnemonic, which = (
                ("KS_CONV_SAS_INGRESS", "inbound only")
                if configuration.receive_only
                else ("KS_CONV_SAS_DUPLEX", "both")
            )
            text = f"IPSec SA direction of group {configuration.name} is {which} from the next rekey on."
            self._log("GDOI", 5, mnemonic, text)
        self._warn_of_size(configuration)

    def _warn_of_size(self, group: KeyServerGroup) -> None:
        number = access_lists.exceeding(group)
        if number is not None:
            text = (
                f"The ACL of sa ipsec {number} in group {group.name} contains too many entries. "
                f"GDOI will honor the first {MOST_PERMITS} ACL entries specified."
            )
            self._log("GDOI", 3, "GDOI_ACL_NUM", text)

    def set_signing_key(self, group: str, key: crypto.RsaPrivateKey | None) -> None:
        """Sign rekeys with another key, from the next rekey on: it is signed with the old one and brings the new.

        None: the group gets no KEK any more, and sends no rekeys once its present one has ended.
        """
        self.group(group).signing_key = key

    def _order(self, group: Group, order: Callable[[Group], Change], now: float) -> None:
        self._tell(group, group.advance(now))
        self._tell(group, order(group))
        self._transmit(group, now)

    # Rekeys.

    def _transmit(self, group: Group, now: float) -> None:
        """Send what is due of a group's rekeys, and set its timer."""
        source = Endpoint(group.configuration.address)
        while True:
            copies, lost = group.transmit(now)
            self._rekeys += [Datagram(data, source, Endpoint(receiver)) for receiver, data in copies]
            if lost:
                self._tell(group, Change(departed=lost))
            excluded = group.exclude_departed(now)
            if excluded is None:
                break
            self._drop_pulls(group)
            self._tell(group, excluded)
        self._schedule(encoding.group_identity(group.configuration.identity).pack(), group)

    # Called by the ISAKMP endpoint.

    def on_established(self, sa: Phase1Sa, now: float) -> None:
        """Phase 1 is there; a PULL will follow."""
        self._events.append(Phase1KeyLog(sa.cookies[:8], sa.keys.cipher_key, sa.peer.address))

    def on_failed(self, failure: Phase1Failed, now: float) -> None:
        """Say why a member did not come through phase 1 (reference/cisco-getvpn.md 4)."""
        if failure.cause != Cause.TIMEOUT and self._phase1_log.may_complain(failure.cause, now):
            self._events.append(failure_message(failure))

    def on_deleted(self, sa: Phase1Sa, reason: str, now: float) -> None:
        """Group membership outlives phase 1 (RFC 6407 3): only open PULLs go."""
        self._complained.pop(sa.cookies, None)
        for key in [key for key in self._pulls if key[0] == sa.cookies]:
            del self._pulls[key]

    def on_notification(self, sa: Phase1Sa, notification: Notification, now: float) -> None:
        """A member that dislikes the policy says NO-PROPOSAL-CHOSEN."""
        if notification.kind == NotifyType.NO_PROPOSAL_CHOSEN:
            text = f"Registration: GM {sa.peer.address} rejected the policy in the SA payload"
            self._log("GDOI", 4, "KS_GM_REJECTS_SA_PAYLOAD", text)

    def on_exchange(self, sa: Phase1Sa, received: Received, now: float) -> None:
        """GROUPKEY-PULL, messages 1 and 3."""
        if received.header.exchange != ExchangeType.GROUPKEY_PULL:
            raise PeerError(
                f"exchange {received.header.exchange} is not served here", NotifyType.UNSUPPORTED_EXCHANGE_TYPE
            )
        try:
            opened = sa.open(received.header, received.datagram.data, PARSERS)
            pull = self._pulls.get((sa.cookies, received.header.message_id))
            if pull is None:
                self._answer_request(sa, received, opened, now)
            else:
                self._deliver_keys(sa, received, opened, pull, now)
        except PeerError as error:
            self._complain(sa, error, now)
            raise

    def _complain(self, sa: Phase1Sa, error: PeerError, now: float) -> None:
        """Tell a member what is wrong with its message (reference 1.8)."""
        if now < self._complained.get(sa.cookies, -COMPLAINT_SECONDS) + COMPLAINT_SECONDS:
            return
        self._complained[sa.cookies] = now
        if isinstance(error, InvalidHash):
            self._log("GDOI", 4, "KS_HASH_FAIL", f"Bad hash in registration message from {sa.peer.address}")
        self._isakmp.notify(sa, error.notify)

    def on_group_datagram(self, received: Received, now: float) -> None:
        """An acknowledgement of a rekey (RFC 8263)."""
        data, source = received.datagram.data, received.datagram.source.address
        if received.header.exchange != ExchangeType.GROUPKEY_PUSH_ACK:
            raise PeerError("a key server takes no rekeys", NotifyType.INVALID_EXCHANGE_TYPE)
        groups = [group for group in self._groups.values() if group.asked_under(received.header.cookies)]
        if not groups:
            self._complain_of_ack("KS_UNSOL_ACK", f"Received an unsolicited rekey acknowledgement from {source}", now)
            raise Unsolicited("no rekey of ours is waiting for this")
        for group in groups:
            name = group.configuration.name
            try:
                member = group.acknowledge(data, received.header.cookies, source, now)
            except PeerError as error:
                text = f"Rekey acknowledgement from {source} in group {name} is not acceptable: {error.reason}"
                self._complain_of_ack("KS_BLACKHOLE_ACK", text, now)
                raise
            self._isakmp.reply(received, None, now)
            if member is not None:
                self._events.append(StateChanged(name))
            self._transmit(group, now)

    def _complain_of_ack(self, mnemonic: str, text: str, now: float) -> None:
        """Anybody can send some, so the log says it at most once in a while."""
        if now >= self._unsolicited + COMPLAINT_SECONDS:
            self._unsolicited = now
            self._log("GDOI", 3 if mnemonic == "KS_BLACKHOLE_ACK" else 4, mnemonic, text)

    def on_request_failed(self, sa: Phase1Sa, message_id: int, now: float) -> None:
        """A key server sends no requests under phase 1."""

    # GROUPKEY-PULL.

    def _answer_request(self, sa: Phase1Sa, received: Received, opened: Opened, now: float) -> None:
        """Message 1 to message 2: HASH(1) = prf(M-ID | Ni | ID); HASH(2) = prf(M-ID | Ni_b | Nr | SA)."""
        message_id = received.header.message_id
        mid = message_id.to_bytes(4, "big")
        sa.verify(opened, mid)
        if [item.payload.TYPE for item in opened.payloads] != [PayloadType.NONCE, PayloadType.ID]:
            raise MalformedMessage("message 1 of GROUPKEY-PULL holds a nonce and an identity")
        nonce, identity = only(opened.payloads, Nonce), only(opened.payloads, Identification)
        key = identity.pack()
        group = self._groups.get(key)
        if group is None:
            self._refuse_group(sa, received, identity, now)
            return
        denied = denial(group, sa)
        if denied is not None:
            self._refuse_member(sa, received, denied, now)
            return
        self._tell(group, group.renew(now))
        self._transmit(group, now)
        private = vendor.PRIVATE_PROPOSALS in sa.peer_vendor_ids
        offered = group.sa_payload(now, private=private)
        own = Nonce(self._random(NONCE_OCTETS))
        answer = sa.protect(ExchangeType.GROUPKEY_PULL, message_id, (own, offered), mid, nonce.data)
        sequence = None if group.kek is None else SequenceNumber(group.kek.sequence)
        pull = _Pull(group, mid + nonce.data + own.data, group.key_packets(), sequence, group.rekeys_begun, now)
        self._pulls[sa.cookies, message_id] = pull
        self._trim_pulls(sa, now)
        self._isakmp.reply(received, answer, now)
        if not private and any(entry.action is Action.DENY for entry in group.configuration.policy):
            text = (
                f"The deny entries of group {group.configuration.name} cannot be told to GM {sa.peer.address}, "
                "which does not announce our private form of them"
            )
            self._log("GDOI", 1, "GDOI_ACE_DENY", text)

    def _refuse_group(self, sa: Phase1Sa, received: Received, identity: Identification, now: float) -> None:
        shown = str(int.from_bytes(identity.data, "big")) if len(identity.data) == 4 else identity.data.hex()
        text = (
            f"Registration: identity {shown} is no group of this key server: "
            f"config mismatch between KS and the GM {sa.peer.address}"
        )
        self._log("GDOI", 3, "KS_BAD_ID", text)
        sa.forget(received.header.message_id)
        self._isakmp.reply(received, None, now)
        self._isakmp.notify(sa, NotifyType.INVALID_ID_INFORMATION)

    def _refuse_member(self, sa: Phase1Sa, received: Received, denied: Denied, now: float) -> None:
        self._events.extend(denied.logs)
        sa.forget(received.header.message_id)
        self._isakmp.reply(received, None, now)
        told = denied.told.encode() if vendor.PRIVATE_PROPOSALS in sa.peer_vendor_ids else b""
        self._isakmp.notify(sa, NotifyType.AUTHENTICATION_FAILED, told)

    def _deliver_keys(self, sa: Phase1Sa, received: Received, opened: Opened, pull: _Pull, now: float) -> None:
        """Message 3 to message 4. Only HASH(3) proves that the member is alive: nothing changes before it."""
        sa.verify(opened, pull.nonces)
        key = (sa.cookies, received.header.message_id)
        kinds = [item.payload.TYPE for item in opened.payloads]
        if kinds not in ([], [PayloadType.GAP]):
            raise MalformedMessage("message 3 of GROUPKEY-PULL holds at most a GAP payload")
        wanted = 1
        if opened.payloads and isinstance(opened.payloads[0].payload, GroupAssociatedPolicy):
            wanted = opened.payloads[0].payload.value(GapAttribute.SENDER_ID_REQUEST) or 1
        if wanted > MAX_SENDER_IDS:
            raise PeerError(f"{wanted} sender IDs at once", NotifyType.ATTRIBUTES_NOT_SUPPORTED)
        del self._pulls[key]
        group = pull.group
        if pull.stale:
            self._refuse_stale(sa, received, now)
            return
        try:
            sender_ids = group.take_sender_ids(wanted) if group.uses_counter_mode else ()
        except SenderIdsExhausted as error:
            self._start_over(group, error, now)
            self._refuse_stale(sa, received, now)
            return
        packets = pull.packets
        if vendor.PRIVATE_PROPOSALS in sa.peer_vendor_ids:
            packets = group.in_tree(packets, sa.peer.address)
        if sender_ids:
            packets += (encoding.sid_packet(group.configuration.sender_id_bits, sender_ids),)
        payloads: list[Payload] = [] if pull.sequence is None else [pull.sequence]
        payloads.append(KeyDownload(packets))
        answer = sa.protect(ExchangeType.GROUPKEY_PULL, key[1], payloads, pull.nonces)
        sa.forget(key[1])
        self._isakmp.reply(received, answer, now)
        self._register(group, sa, sender_ids, pull.rekeys_seen, now)

    def _refuse_stale(self, sa: Phase1Sa, received: Received, now: float) -> None:
        """What was offered is no more; asking anew finds the group under new keys."""
        sa.forget(received.header.message_id)
        self._isakmp.reply(received, None, now)
        self._isakmp.notify(sa, NotifyType.INVALID_SPI)

    def _start_over(self, group: Group, error: SenderIdsExhausted, now: float) -> None:
        name = group.configuration.name
        self._drop_pulls(group)
        self._log("GDOI", 3, "KS_SID_EXHAUSTED", f"group {name} starts over under new keys: {error}")
        self._order(group, lambda item: item.start_over(now), now)

    def _drop_pulls(self, group: Group) -> None:
        """What was offered in them is no more."""
        for pull in self._pulls.values():
            pull.stale |= pull.group is group

    def _register(self, group: Group, sa: Phase1Sa, sender_ids: tuple[int, ...], rekeys_seen: int, now: float) -> None:
        name, address = group.configuration.name, sa.peer.address
        if not group.members:
            self._log("GDOI", 6, "KS_FIRST_GM", f"Re-key: First GM {address} seen by KS in the group {name}.")
        private = vendor.PRIVATE_PROPOSALS in sa.peer_vendor_ids
        member = group.register(address, sender_ids, now, private=private, rekeys_seen=rekeys_seen)
        member.certificates = sa.certificates
        self._transmit(group, now)
        self._events.append(StateChanged(name))

    def _tell(self, group: Group, change: Change) -> None:
        """Log and announce what time has done to a group."""
        name = group.configuration.name
        for member in change.departed:
            self._log("GDOI", 4, "GM_DELETE", f"GM {member.address} deleted from group {name}.")
        if change.departed and not group.members:
            self._log("GDOI", 6, "KS_LAST_GM", f"Re-key: Last GM {change.departed[-1].address} left the group {name}.")
        for rekey in (change.rekey, change.second):
            if rekey is None:
                continue
            kek, address = rekey.kek, group.configuration.address
            if kek.address is None:
                text = f"Sending Unicast Rekey for group {name} from address {address} with seq # {kek.sequence}"
                self._log("GDOI", 5, "KS_SEND_UNICAST_REKEY", text)
            else:
                text = (
                    f"Sending Multicast Rekey for group {name} from address {address} to {kek.address} "
                    f"with seq # {kek.sequence}"
                )
                self._log("GDOI", 5, "KS_SEND_MCAST_REKEY", text)
        if change.departed or change.new_keys:
            self._events.append(StateChanged(name))

    def _schedule(self, identity: bytes, group: Group) -> None:
        deadline = group.next_deadline()
        if deadline is not None:
            self._timers.set(identity, deadline)

    def _trim_pulls(self, sa: Phase1Sa, now: float) -> None:
        """Drop PULLs that nobody went on with: old ones, and the oldest beyond a peer's share and beyond all."""
        own = [key for key in self._pulls if key[0] == sa.cookies]
        for key in own[: max(0, len(own) - MAX_PULLS_PER_PEER)]:
            del self._pulls[key]
        while self._pulls:
            oldest = next(iter(self._pulls.values()))
            if len(self._pulls) <= MAX_PULLS and now - oldest.started <= PULL_SECONDS:
                return
            self._pulls.popitem(last=False)

    def _log(self, facility: str, severity: int, mnemonic: str, text: str) -> None:
        self._events.append(LogMessage(facility, severity, mnemonic, text))
