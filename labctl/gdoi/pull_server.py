"""GROUPKEY-PULL as a key server answers it (RFC 6407 3.2-3.3): policy for message 1, keys for message 3. Sans-IO.

    message 1 -> known group, authorized member -> message 2: policy, an open PULL
    message 3 -> HASH(3) proves that the member is alive -> message 4: the keys of message 2, the member is registered

Nothing is kept of a member before its message 3, except the open PULL; of those there are limits, for each peer and
over all. Keys that are taken back in between are not handed out any more: the member is told to ask anew.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from labctl.configuration import Action
from labctl.gdoi import encoding
from labctl.gdoi.authorization import Denied, denial
from labctl.gdoi.events import Event, LogMessage, StateChanged
from labctl.gdoi.group import Group
from labctl.gdoi.group_clock import SENDERS_OF_ONE_WINDOW
from labctl.gdoi.numbers import GapAttribute
from labctl.gdoi.payloads import PARSERS, GroupAssociatedPolicy, KeyDownload, KeyPacket, SequenceNumber
from labctl.gdoi.sender_ids import SenderIdsExhausted
from labctl.gdoi.served_groups import ServedGroups
from labctl.isakmp import vendor
from labctl.isakmp.endpoint import IsakmpEndpoint, Received
from labctl.isakmp.errors import InvalidHash, MalformedMessage, NotifyType, PeerError
from labctl.isakmp.header import ExchangeType, PayloadType
from labctl.isakmp.main_mode import RandomSource, only
from labctl.isakmp.payloads import Identification, Nonce, Payload
from labctl.isakmp.sa import Opened, Phase1Sa

NONCE_OCTETS = 32

# GROUPKEY-PULLs between message 2 and message 3, over all members; beyond it the oldest are dropped.
MAX_PULLS = 4096
MAX_PULLS_PER_PEER = 16
PULL_SECONDS = 60.0

# A peer is told, and the log says, at most this often that its messages are bad: anybody can send some.
COMPLAINT_SECONDS = 1.0

# The most sender IDs one member may ask for (GAP attribute 3).
MAX_SENDER_IDS = 16


@dataclass(slots=True)
class OpenPull:
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


class OpenPulls(OrderedDict[tuple[bytes, int], OpenPull]):
    """By phase-1 cookies and message ID, oldest first."""

    def open(self, key: tuple[bytes, int], pull: OpenPull, now: float) -> None:
        """Keep one more, and drop those that nobody went on with: old ones, and the oldest beyond a peer's share and
        beyond all."""
        self[key] = pull
        own = [other for other in self if other[0] == key[0]]
        for other in own[: max(0, len(own) - MAX_PULLS_PER_PEER)]:
            del self[other]
        while self:
            oldest = next(iter(self.values()))
            if len(self) <= MAX_PULLS and now - oldest.started <= PULL_SECONDS:
                return
            self.popitem(last=False)

    def drop(self, cookies: bytes) -> None:
        """Phase 1 is gone, and what was open under it."""
        for key in [key for key in self if key[0] == cookies]:
            del self[key]

    def withdraw(self, group: Group) -> None:
        """What was offered of a group in them is no more."""
        for pull in self.values():
            pull.stale |= pull.group is group


class PullServer:
    """Answers members out of `groups`; `pulls` are those that are open."""

    def __init__(
        self,
        groups: ServedGroups,
        pulls: OpenPulls,
        isakmp: IsakmpEndpoint,
        random: RandomSource,
        tell: Callable[[Event], None],
    ) -> None:
        self._groups = groups
        self._pulls = pulls
        self._isakmp = isakmp
        self._random = random
        self._tell = tell
        self._complained: dict[bytes, float] = {}

    def receive(self, sa: Phase1Sa, received: Received, now: float) -> None:
        """Message 1 or 3. Raises PeerError for a bad one, of which its sender has been told."""
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

    def forget(self, sa: Phase1Sa) -> None:
        """Phase 1 is gone."""
        self._complained.pop(sa.cookies, None)
        self._pulls.drop(sa.cookies)

    def _complain(self, sa: Phase1Sa, error: PeerError, now: float) -> None:
        """Tell a member what is wrong with its message (reference 1.8)."""
        if now < self._complained.get(sa.cookies, -COMPLAINT_SECONDS) + COMPLAINT_SECONDS:
            return
        self._complained[sa.cookies] = now
        if isinstance(error, InvalidHash):
            self._log(4, "KS_HASH_FAIL", f"Bad hash in registration message from {sa.peer.address}")
        self._isakmp.notify(sa, error.notify)

    def _answer_request(self, sa: Phase1Sa, received: Received, opened: Opened, now: float) -> None:
        """Message 1 to message 2: HASH(1) = prf(M-ID | Ni | ID); HASH(2) = prf(M-ID | Ni_b | Nr | SA)."""
        message_id = received.header.message_id
        mid = message_id.to_bytes(4, "big")
        sa.verify(opened, mid)
        if [item.payload.TYPE for item in opened.payloads] != [PayloadType.NONCE, PayloadType.ID]:
            raise MalformedMessage("message 1 of GROUPKEY-PULL holds a nonce and an identity")
        nonce, identity = only(opened.payloads, Nonce), only(opened.payloads, Identification)
        group = self._groups.find(identity.pack())
        if group is None:
            self._refuse_group(sa, received, identity, now)
            return
        denied = denial(group, sa)
        if denied is not None:
            self._refuse_member(sa, received, denied, now)
            return
        self._groups.apply(group, group.renew(now), now)
        private = vendor.PRIVATE_PROPOSALS in sa.peer_vendor_ids
        offered = group.sa_payload(now, private=private)
        own = Nonce(self._random(NONCE_OCTETS))
        answer = sa.protect(ExchangeType.GROUPKEY_PULL, message_id, (own, offered), mid, nonce.data)
        sequence = None if group.kek is None else SequenceNumber(group.kek.sequence)
        pull = OpenPull(group, mid + nonce.data + own.data, group.key_packets(), sequence, group.rekeys_begun, now)
        self._pulls.open((sa.cookies, message_id), pull, now)
        self._isakmp.reply(received, answer, now)
        if not private and any(entry.action is Action.DENY for entry in group.configuration.policy):
            text = (
                f"The deny entries of group {group.configuration.name} cannot be told to GM {sa.peer.address}, "
                "which does not announce our private form of them"
            )
            self._log(1, "GDOI_ACE_DENY", text)
        if not private and group.pseudotime is not None:
            text = (
                f"The time-based anti-replay of group {group.configuration.name} cannot be told to GM "
                f"{sa.peer.address}, which does not announce our private form of it"
            )
            self._log(1, "KS_REPLAY_UNTOLD", text)

    def _refuse_group(self, sa: Phase1Sa, received: Received, identity: Identification, now: float) -> None:
        shown = str(int.from_bytes(identity.data, "big")) if len(identity.data) == 4 else identity.data.hex()
        text = (
            f"Registration: identity {shown} is no group of this key server: "
            f"config mismatch between KS and the GM {sa.peer.address}"
        )
        self._log(3, "KS_BAD_ID", text)
        sa.forget(received.header.message_id)
        self._isakmp.reply(received, None, now)
        self._isakmp.notify(sa, NotifyType.INVALID_ID_INFORMATION)

    def _refuse_member(self, sa: Phase1Sa, received: Received, denied: Denied, now: float) -> None:
        for message in denied.logs:
            self._tell(message)
        sa.forget(received.header.message_id)
        self._isakmp.reply(received, None, now)
        told = denied.told.encode() if vendor.PRIVATE_PROPOSALS in sa.peer_vendor_ids else b""
        self._isakmp.notify(sa, NotifyType.AUTHENTICATION_FAILED, told)

    def _deliver_keys(self, sa: Phase1Sa, received: Received, opened: Opened, pull: OpenPull, now: float) -> None:
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
        self._pulls.withdraw(group)
        self._log(3, "KS_SID_EXHAUSTED", f"group {name} starts over under new keys: {error}")
        self._groups.order(group, lambda item: item.start_over(now), now)

    def _register(self, group: Group, sa: Phase1Sa, sender_ids: tuple[int, ...], rekeys_seen: int, now: float) -> None:
        name, address = group.configuration.name, sa.peer.address
        if not group.members:
            self._log(6, "KS_FIRST_GM", f"Re-key: First GM {address} seen by KS in the group {name}.")
        private = vendor.PRIVATE_PROPOSALS in sa.peer_vendor_ids
        fresh = address not in group.members
        member = group.register(address, sender_ids, now, private=private, rekeys_seen=rekeys_seen)
        member.certificates = sa.certificates
        if fresh and len(group.members) == SENDERS_OF_ONE_WINDOW + 1 and group.shares_a_window:
            text = (
                f"Group {name} has more than {SENDERS_OF_ONE_WINDOW} members, whose packets are counted in one window: "
                "counter-based anti-replay will drop some that are no replays. Use replay time window-size."
            )
            self._log(4, "KS_COUNTER_REPLAY", text)
        self._groups.transmit(group, now)
        self._tell(StateChanged(name))

    def _log(self, severity: int, mnemonic: str, text: str) -> None:
        self._tell(LogMessage("GDOI", severity, mnemonic, text))
