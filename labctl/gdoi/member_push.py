"""The rekeys that come to a group member: GROUPKEY-PUSH (RFC 6407 4), in the order of reference 4.3, and its answers
(RFC 8263). Sans-IO.

A rekey is looked at under the KEK that it names, changes nothing before all of it has been checked, and is answered
where the key server asks for that. What is no rekey of ours only counts, and is told to the log once in a while. In a
key tree, rekeys under a KEK that is not there yet are kept for it (`early_rekeys`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from ipaddress import IPv4Address

from labctl.gdoi.decoding import require_family
from labctl.gdoi.early_rekeys import EarlyRekeys
from labctl.gdoi.events import Event, LogMessage
from labctl.gdoi.key_path import NotAddressed
from labctl.gdoi.member_keys import MemberKeys
from labctl.gdoi.member_rekey import Outcome, RekeyCounts, acknowledgement, apply_push
from labctl.gdoi.policy import GroupKeys, KeyEncryptionKey
from labctl.gdoi.push import Opener, Push, ReplayedRekey
from labctl.isakmp.datagram import Datagram, Endpoint
from labctl.isakmp.endpoint import IsakmpEndpoint, Received
from labctl.isakmp.errors import NotifyType, PeerError
from labctl.isakmp.header import ExchangeType
from labctl.isakmp.payloads import Identification, IdType

# The log says at most this often that rekeys are bad.
COMPLAINT_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class TakenRekey:
    """What a rekey did to the keys, and what came early under the KEK that it brought: it can be received now."""

    outcome: Outcome
    early: tuple[Datagram, ...] = ()


class MemberPush:
    """Takes rekeys, which `opener` opens, into `keys`.

    `tell` is given the log's messages; `miss_kek(now)` is called where others seem to have a KEK that the member lacks.
    """

    def __init__(
        self,
        keys: MemberKeys,
        isakmp: IsakmpEndpoint,
        opener: Opener,
        *,
        tell: Callable[[Event], None],
        miss_kek: Callable[[float], None],
    ) -> None:
        self.counts = RekeyCounts()
        self._keys = keys
        self._isakmp = isakmp
        self._open_push = opener
        self._tell = tell
        self._miss_kek = miss_kek
        self._early = EarlyRekeys()
        self._complained_at = float("-inf")

    def registered(self) -> None:
        """A registration has brought what its KEK opens: nothing is missing."""
        if self._keys.current is not None and self._keys.current.kek is not None:
            self._early.registered(self._keys.current.kek.spi)

    def give_up(self, now: float, quiet: float) -> bool:
        """The wait for a KEK is over. True if it has not come; then the next is not waited for within `quiet` s."""
        return self._early.give_up(now, quiet)

    def receive(self, received: Received, registered_with: IPv4Address | None, now: float) -> TakenRekey:
        """A rekey that is acceptable: answered, and taken into the keys. Raises PeerError for all else."""
        under, keys = self._kek_of(received, now), self._keys.current
        if under is None or keys is None:
            self._receive_early(received, registered_with, now)
            raise PeerError("no rekey under a KEK of ours", NotifyType.INVALID_COOKIE)
        server = received.datagram.source.address
        try:
            push = self._open_push(received.datagram.data, under)
            outcome = apply_push(push, under, keys, now)
            require_family((rule.entry for rule in outcome.keys.rules), ipv6=self._keys.membership.ipv6)
        except PeerError as error:
            self._reject(error, server, now)
            if isinstance(error, NotAddressed) and self._early.suspect(received.digest, now):
                self._miss_kek(now)
            raise
        self._acknowledge(received, push, under, now)
        self.counts.received += 1
        self.counts.last_sequence, self.counts.last_at = push.sequence, now
        self._log_rekey(push, under, keys, outcome, server)
        self._keys.take(outcome.keys, under, push.sequence, now)
        kek = outcome.keys.kek
        if kek is None or (keys.kek is not None and keys.kek.spi == kek.spi):
            return TakenRekey(outcome)
        return TakenRekey(outcome, tuple(self._early.learned(kek.spi)))

    def _kek_of(self, received: Received, now: float) -> KeyEncryptionKey | None:
        header = received.header
        return self._keys.kek_of(header.cookies, now) if header.exchange == ExchangeType.GROUPKEY_PUSH else None

    def _receive_early(self, received: Received, registered_with: IPv4Address | None, now: float) -> None:
        """A rekey of our key server under a KEK that we do not have: a key tree has a newer one."""
        keys, header, datagram = self._keys.current, received.header, received.datagram
        if keys is None or keys.path is None or keys.kek is None or header.exchange != ExchangeType.GROUPKEY_PUSH:
            return
        ours = datagram.source.address in (registered_with, keys.kek.source)
        if ours and self._early.keep(header.cookies, datagram, now):
            self._miss_kek(now)

    def _acknowledge(self, received: Received, push: Push, under: KeyEncryptionKey, now: float) -> None:
        """Answer as the KEK asks for; a copy of the rekey gets the same answer again."""
        local = self._keys.membership.local_address
        answer = acknowledgement(under, push.sequence, Identification(IdType.IPV4_ADDR, local.packed))
        if answer is not None:
            self.counts.acknowledged += 1
            # It leaves from the member's own address, also where the rekey came to a multicast group.
            own = Endpoint(local, received.datagram.destination.port)
            received = replace(received, datagram=replace(received.datagram, destination=own))
        self._isakmp.reply(received, answer, now)

    def _log_rekey(
        self, push: Push, under: KeyEncryptionKey, before: GroupKeys, outcome: Outcome, server: IPv4Address
    ) -> None:
        name, local = self._keys.membership.name, self._keys.membership.local_address
        spis = "".join(f", spi 0x{spi:08X}" for spi in outcome.keys.teks.keys() - before.teks.keys())
        text = f"Received Rekey for group {name} from {server} to {under.address or local} with seq # {push.sequence}"
        self._tell(LogMessage("GDOI", 5, "GM_RECV_REKEY", text + spis))

    def _reject(self, error: PeerError, server: IPv4Address, now: float) -> None:
        name, local = self._keys.membership.name, self._keys.membership.local_address
        if isinstance(error, ReplayedRekey):
            self.counts.replayed += 1
            mnemonic = "GDOI_REKEY_SEQ_FAILURE"
            text = f"Failed to process rekey in group {name}: {error.reason}"
        else:
            self.counts.rejected += 1
            mnemonic = "GDOI_REKEY_FAILURE"
            text = (
                f"Processing of REKEY payloads failed on GM {local} in the group {name}, "
                f"with peer at {server}: {error.reason}"
            )
        # Whoever saw a rekey knows its cookies: the log is not theirs to fill.
        if now >= self._complained_at + COMPLAINT_SECONDS:
            self._complained_at = now
            self._tell(LogMessage("GDOI", 3, mnemonic, text))
