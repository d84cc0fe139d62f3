"""The keys of a group member: what it holds, what it sends under, and what it tells its agent of them. Sans-IO.

Keys come whole from a registration (`install`) or from a rekey (`take`), and end by themselves (`refresh`). A KEK that
a rekey replaced opens rekeys for a moment longer (RFC 6407 4). Old TEKs are accepted until their end, and sending
changes to the next one before that; an activation delay counts from the rekey (RFC 5374 4.2.1). The direction of the
SAs, and when sending changes: reference/cisco-getvpn.md 2.4, in the formulas of `member_times` and `timing`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Address

from labctl.configuration import MOST_PERMITS, Action, GroupMembership, SaDirection
from labctl.gdoi.events import (
    Event,
    KeysLost,
    LogMessage,
    PolicyInstalled,
    RekeyAddress,
    RekeyKeyLog,
    StateChanged,
)
from labctl.gdoi.member_clock import MemberClock
from labctl.gdoi.member_times import next_change, switch_margin
from labctl.gdoi.policy import GroupKeys, KeyEncryptionKey
from labctl.gdoi.spi import may_be_of
from labctl.gdoi.timing import Timing

# SPIs that were told us, which are remembered beyond their keys.
MAX_KNOWN_SPIS = 256


class MemberKeys:
    """Policy and keys of one membership; `tell` is given every event that they are worth."""

    def __init__(self, membership: GroupMembership, timing: Timing, tell: Callable[[Event], None]) -> None:
        self.membership = membership
        self.current: GroupKeys | None = None
        self.clock = MemberClock(timing, tell)
        self._timing = timing
        self._tell = tell
        # What each rule was last told to send under; empty: tell it again, whatever it is.
        self._sending: tuple[int | None, ...] = ()
        # What an order made of the direction, until the key server says something new; and what was told last.
        self._ordered: SaDirection | None = None
        self._told_direction = SaDirection.BOTH
        # A replaced KEK, and until when rekeys under it are still taken.
        self._replaced_kek: tuple[KeyEncryptionKey, float] | None = None
        self._rekey_address: IPv4Address | None = None
        # Others may send under a key for a moment after it is taken from us.
        self._known_spis: deque[int] = deque(maxlen=MAX_KNOWN_SPIS)

    # What is asked.

    @property
    def usable(self) -> bool:
        """True while there are TEKs."""
        return self.current is not None and bool(self.current.teks)

    @property
    def direction(self) -> SaDirection:
        """What the SAs are for: as ordered, as configured on this member, or as the key server says."""
        if self._ordered is not None:
            return self._ordered
        if self.membership.passive:
            return SaDirection.INBOUND_OPTIONAL
        receive_only = self.current is not None and self.current.receive_only
        return SaDirection.INBOUND_ONLY if receive_only else SaDirection.BOTH

    def kek_of(self, spi: bytes, now: float) -> KeyEncryptionKey | None:
        """The KEK of that SPI that a rekey may be under: the present one, or the one it replaced, a moment longer."""
        candidates = [] if self.current is None or self.current.kek is None else [self.current.kek]
        if self._replaced_kek is not None and now < self._replaced_kek[1]:
            candidates.append(self._replaced_kek[0])
        return next((kek for kek in candidates if kek.spi == spi and now < kek.expires), None)

    def may_lack(self, spi: int) -> bool:
        """May this be the SPI of a TEK of the group that we were never told?"""
        return may_be_of(self.membership.identity, spi) and spi not in self._known_spis

    # What changes them. After `install` and `take` a `refresh` is due, once all else of the news has been told.

    def install(self, keys: GroupKeys, now: float, round_trip: float = 0.0) -> None:
        """Keys of a registration: TEKs that were there before live on until their end.

        `round_trip`: what passed between its first question and the policy (seconds).
        """
        self.clock.hear(keys.told, self.membership.name, now, round_trip=round_trip)
        before = self.current
        self.current = keys.succeeding(before, now, rekey=False)
        self._replaced_kek = None
        self._ordered = None
        self._tell_of_news(self.current, before)

    def take(self, keys: GroupKeys, under: KeyEncryptionKey, sequence: int, now: float) -> None:
        """Keys as a rekey under `under`, with that sequence number, has made them."""
        self.clock.hear(keys.told, self.membership.name, now)
        before = self.current
        self.current = keys
        replaced = None if before is None else before.kek
        if replaced is not None and (keys.kek is None or keys.kek.spi != replaced.spi):
            self._replaced_kek = (replace(replaced, sequence=sequence), now + self._timing.kek_grace)
        elif self._replaced_kek is not None and self._replaced_kek[0].spi == under.spi:
            self._replaced_kek = (replace(under, sequence=sequence), self._replaced_kek[1])
        self._tell_of_news(keys, before)

    def forget(self) -> None:
        """No policy and no keys any more."""
        had, self.current = self.current, None
        self._replaced_kek = None
        self._sending = ()
        self.clock.keep(())
        self._ordered, self._told_direction = None, SaDirection.BOTH
        self._follow_rekeys(None)
        if had is not None:
            self._tell(KeysLost(self.membership.name, policy=False))

    def order(self, direction: SaDirection) -> None:
        """Turn the SAs, until the key server turns receive-only on or off, or gives keys at a registration."""
        self._ordered = direction

    def reconfigure(self, membership: GroupMembership) -> bool:
        """Another configuration of the same membership. True if it turns the SAs: then a `refresh` is due."""
        turned = membership.passive != self.membership.passive
        self.membership = membership
        if turned:
            self._ordered = None
        return turned

    def refresh(self, now: float) -> float | None:
        """Drop keys at their end, and move sending to the next key before the old one ends.

        When that has to happen again; None where nothing is to come.
        """
        keys = self.current
        if keys is None:
            return None
        alive = keys.alive(now)
        changed = alive is not keys
        lost = changed and not alive.teks
        self.current = keys = alive
        self.clock.keep({tek.epoch for tek in keys.teks.values() if tek.epoch is not None})
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
            self._tell(PolicyInstalled(self.membership.name, keys, sending, direction, dict(self.clock.clocks)))
            self._tell(StateChanged(self.membership.name))
        if lost:
            self._tell(KeysLost(self.membership.name, policy=True))
        return next_change(keys, self._timing, now)

    # Telling.

    def _tell_of_news(self, keys: GroupKeys, before: GroupKeys | None) -> None:
        """Log and announce keys that were not there before."""
        self._sending = ()
        old_kek, kek = None if before is None else before.kek, keys.kek
        if kek is not None and (old_kek is None or kek.spi != old_kek.spi):
            self._log(5, "SA_KEK_UPDATED", "SA KEK was updated")
            self._tell(RekeyKeyLog(kek.spi, kek.iv, kek.key))
        if fresh := keys.teks.keys() - (set() if before is None else before.teks.keys()):
            self._known_spis.extend(fresh)
            self._log(5, "SA_TEK_UPDATED", "SA TEK was updated")
        if old_kek is not None and kek is not None and (old_kek.address is None) != (kek.address is None):
            mnemonic, transport = (
                ("GM_REKEY_TRANS_2_UNI", "unicast") if kek.address is None else ("GM_REKEY_TRANS_2_MULTI", "multicast")
            )
            self._log(5, mnemonic, f"Group {self.membership.name} transitioned to {transport} rekey.")
        if keys.ignored and (before is None or before.ignored != keys.ignored):
            text = (
                f"The ACL of group {self.membership.name} contains too many entries. "
                f"GDOI will honor the first {MOST_PERMITS} ACL entries specified."
            )
            self._log(3, "GDOI_ACL_NUM", text)
        if before is not None and before.receive_only != keys.receive_only:
            self._ordered = None
        self._follow_rekeys(kek)

    def _follow_rekeys(self, kek: KeyEncryptionKey | None) -> None:
        address = None if kek is None else kek.address
        if address != self._rekey_address:
            self._rekey_address = address
            source = None if kek is None else kek.source
            self._tell(RekeyAddress(self.membership.name, address, source))

    def _tell_direction(self, direction: SaDirection) -> None:
        if direction is self._told_direction:
            return
        self._told_direction = direction
        mnemonic = "GM_SA_INGRESS" if direction is SaDirection.INBOUND_ONLY else "GM_CONV_SA_DUPLEX"
        text = f"IPSec SA direction of group {self.membership.name} is {direction.value} from now on."
        self._log(5, mnemonic, text)

    def _log(self, severity: int, mnemonic: str, text: str) -> None:
        self._tell(LogMessage("GDOI", severity, mnemonic, text))
