"""The key server: authenticates members, hands out policy and keys, and renews them (RFC 6407). Sans-IO.

Phase 1 is `isakmp.endpoint`. Members ask by GROUPKEY-PULL, which `pull_server` answers; what time and orders make of
the groups, and the rekeys that leave for it, is in `served_groups`. Here are the orders of an operator, and the
acknowledgements of rekeys (RFC 8263).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from ipaddress import IPv4Address

from labctl import crypto
from labctl.configuration import (
    MOST_PERMITS,
    IsakmpPolicy,
    IsakmpSettings,
    KeyServerGroup,
    PreSharedKey,
    Trustpoint,
)
from labctl.gdoi import access_lists
from labctl.gdoi.ack import Unsolicited
from labctl.gdoi.authorization import check_identities
from labctl.gdoi.events import Event, LogMessage, Phase1KeyLog, StateChanged
from labctl.gdoi.group import Group
from labctl.gdoi.group_status import GroupStatus, status_of
from labctl.gdoi.phase1_failures import failure_message
from labctl.gdoi.phase1_log import Phase1Log
from labctl.gdoi.pull_server import OpenPulls, PullServer
from labctl.gdoi.served_groups import ServedGroups
from labctl.gdoi.timing import Timing
from labctl.isakmp.datagram import Datagram
from labctl.isakmp.endpoint import IsakmpEndpoint, Limits, Received
from labctl.isakmp.errors import NotifyType, PeerError
from labctl.isakmp.events import Cause, Phase1Failed
from labctl.isakmp.header import ExchangeType
from labctl.isakmp.main_mode import RandomSource
from labctl.isakmp.payloads import Notification
from labctl.isakmp.sa import Phase1Sa
from labctl.isakmp.timers import earlier

# The log says at most this often that acknowledgements are bad: anybody can send some.
COMPLAINT_SECONDS = 1.0

MAX_EVENTS = 10_000


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
        self._events: deque[Event] = deque(maxlen=MAX_EVENTS)
        self._pulls = OpenPulls()
        self._groups = ServedGroups(
            [Group(group, random, signing_key, timing) for group in groups], self._events.append, self._pulls.withdraw
        )
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
        self._pull_server = PullServer(self._groups, self._pulls, self._isakmp, random, self._events.append)
        self._unsolicited: float = -COMPLAINT_SECONDS
        for group in groups:
            self._warn_of_size(group)

    # The sans-IO interface.

    def receive_datagram(self, datagram: Datagram, now: float) -> None:
        """Take a datagram; whatever it holds, nothing is raised."""
        self._isakmp.receive(datagram, now)

    def datagrams_to_send(self) -> list[Datagram]:
        """What has to leave."""
        return self._isakmp.datagrams_to_send() + self._groups.datagrams_to_send()

    def next_deadline(self) -> float | None:
        """When `handle_timer` wants to be called."""
        return earlier(self._isakmp.next_deadline(), self._groups.next_deadline())

    def handle_timer(self, now: float) -> None:
        """Do what is due: retransmissions, new keys, rekeys."""
        self._isakmp.handle_timer(now)
        self._groups.handle_timer(now)

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
        return tuple(status_of(group, now) for group in self._groups)

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
        return self._groups.named(name)

    # Orders. Each raises KeyError for a group that is not there.

    def rekey(self, group: str, now: float, *, replace_now: bool = False) -> None:
        """`crypto gdoi ks rekey [replace-now]`."""
        self._groups.order(self.group(group), lambda item: item.rekey(now, replace_now=replace_now), now)

    def clear_members(self, group: str, now: float, *, immediate: bool = False) -> None:
        """`clear crypto gdoi ks members [now]`."""
        found = self.group(group)
        self._pulls.withdraw(found)
        self._groups.order(found, lambda item: item.clear_members(now, immediate=immediate), now)

    def evict(self, group: str, address: IPv4Address, now: float, *, immediate: bool = False) -> None:
        """Let a member in no more, and give all others keys that it does not know (RFC 6407 7.4.1).

        With a key tree they are sent them; without one they come back for them, as after `clear_members`.
        """
        found = self.group(group)
        found.revoked.add(address)
        self._exclude(found, (address,), now, immediate=immediate)

    def _exclude(self, group: Group, gone: Sequence[IPv4Address], now: float, *, immediate: bool = False) -> None:
        self._pulls.withdraw(group)
        self._groups.order(group, lambda item: item.exclude(gone, now, immediate=immediate), now)

    def allow(self, group: str, address: IPv4Address) -> None:
        """Let an evicted member in again."""
        self.group(group).revoked.discard(address)

    def set_trustpoints(self, trustpoints: Sequence[Trustpoint], now: float) -> None:
        """Other certificates, CAs or CRLs, as `registration periodic crl` takes note of them.

        Whoever they do not bear out any more loses phase 1, gets no further key, and its group goes on under keys that
        it does not know, as after `evict`. Raises LocalError, changing nothing.
        """
        self._isakmp.set_trustpoints(trustpoints, now)
        for group in self._groups:
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

    # Called by the ISAKMP endpoint.

    def on_established(self, sa: Phase1Sa, now: float) -> None:
        """Phase 1 is there; a PULL will follow."""
        self._events.append(Phase1KeyLog.of(sa))

    def on_failed(self, failure: Phase1Failed, now: float) -> None:
        """Say why a member did not come through phase 1 (reference/cisco-getvpn.md 4)."""
        if failure.cause != Cause.TIMEOUT and self._phase1_log.may_complain(failure.cause, now):
            self._events.append(failure_message(failure))

    def on_deleted(self, sa: Phase1Sa, reason: str, now: float) -> None:
        """Group membership outlives phase 1 (RFC 6407 3): only open PULLs go."""
        self._pull_server.forget(sa)

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
        self._pull_server.receive(sa, received, now)

    def on_group_datagram(self, received: Received, now: float) -> None:
        """An acknowledgement of a rekey (RFC 8263)."""
        data, source = received.datagram.data, received.datagram.source.address
        if received.header.exchange != ExchangeType.GROUPKEY_PUSH_ACK:
            raise PeerError("a key server takes no rekeys", NotifyType.INVALID_EXCHANGE_TYPE)
        groups = [group for group in self._groups if group.asked_under(received.header.cookies)]
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
            self._groups.transmit(group, now)

    def _complain_of_ack(self, mnemonic: str, text: str, now: float) -> None:
        """Anybody can send some, so the log says it at most once in a while."""
        if now >= self._unsolicited + COMPLAINT_SECONDS:
            self._unsolicited = now
            self._log("GDOI", 3 if mnemonic == "KS_BLACKHOLE_ACK" else 4, mnemonic, text)

    def on_request_failed(self, sa: Phase1Sa, message_id: int, now: float) -> None:
        """A key server sends no requests under phase 1."""

    def _log(self, facility: str, severity: int, mnemonic: str, text: str) -> None:
        self._events.append(LogMessage(facility, severity, mnemonic, text))
