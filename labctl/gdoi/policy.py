"""Group policy and keys, as key server and member hold them: no wire form, no clock of their own."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address
from types import MappingProxyType

from labctl import crypto
from labctl.configuration import NO_REPLAY, AccessListEntry, Action, Encryption, Hash, Replay, TransformSet
from labctl.gdoi.key_path import KeyPath
from labctl.gdoi.pseudotime import ToldTime

# TEKs whose end a member remembers.
ENDED = 64


@dataclass(frozen=True, slots=True)
class TrafficEncryptionKey:
    """A TEK: `encryption_key` is cipher key and, for counter modes, salt. Times on the caller's clock.

    `replay` is what receivers do against packets that come again; `epoch` the clock of time stamps under it.
    """

    spi: int
    transform: TransformSet
    encryption_key: bytes = field(repr=False)
    integrity_key: bytes = field(repr=False)
    lifetime: float
    expires: float
    replay: Replay = NO_REPLAY
    epoch: int | None = None

    @property
    def mark(self) -> bytes:
        """Eight octets that tell this key from another with its SPI, and nothing of the key."""
        return crypto.digest(Hash.SHA256, b"labctl TEK", self.encryption_key, self.integrity_key)[:8]

    def ending(self, expires: float) -> TrafficEncryptionKey:
        """The same key, ended earlier; never later."""
        return self if self.expires <= expires else replace(self, expires=expires)

    def continuing(self, old: TrafficEncryptionKey | None) -> TrafficEncryptionKey:
        """This key as its owner knew it already: it ends no later than before, and its life is counted from its
        first day. Remaining lives travel in whole seconds, so a difference of less than two is none."""
        if old is None or (old.encryption_key, old.integrity_key) != (self.encryption_key, self.integrity_key):
            return self
        return old if self.expires > old.expires - 2.0 else replace(old, expires=self.expires)


@dataclass(frozen=True, slots=True)
class KeyEncryptionKey:
    """The KEK under which rekeys come, with the public half of the key that signs them (DER).

    Rekeys come from `source` and go to the multicast group `address`, or (None) to each member. `acknowledgement` is
    KEK_ACK_REQUESTED (RFC 8263): what members answer with, None for nothing.
    """

    spi: bytes
    encryption: Encryption
    iv: bytes = field(repr=False)
    key: bytes = field(repr=False)
    signature_hash: Hash
    signature_key: bytes = field(repr=False)
    lifetime: float
    expires: float
    sequence: int = 0
    source: IPv4Address | None = None
    address: IPv4Address | None = None
    acknowledgement: int | None = None


@dataclass(frozen=True, slots=True)
class PolicyRule:
    """One line of the policy, in order. A PERMIT accepts all of `spis`, oldest first; a DENY has none.

    `retired` are those of them that the key server no longer hands out: others may still send under them, we do not.
    """

    entry: AccessListEntry
    spis: tuple[int, ...] = ()
    retired: frozenset[int] = frozenset()

    def sending(
        self,
        teks: Mapping[int, TrafficEncryptionKey],
        now: float,
        margin: float,
        activations: Mapping[int, float] = MappingProxyType({}),
    ) -> int | None:
        """The SPI to send under: the oldest key with more than `margin` seconds left, else the youngest alive.

        A key with an activation time is sent under from that moment on, and before it only where there is no other.
        """
        alive = [spi for spi in self.spis if spi in teks and spi not in self.retired and teks[spi].expires > now]
        usable = [spi for spi in alive if now >= activations.get(spi, now)] or alive
        activated = [place for place, spi in enumerate(usable) if spi in activations and now >= activations[spi]]
        for spi in usable[activated[-1] :] if activated else usable:
            # As a timer for the moment computes it, rounding included.
            if now < teks[spi].expires - margin:
                return spi
        return usable[-1] if usable else None

    def succeeding(self, old: PolicyRule | None, teks: Mapping[int, TrafficEncryptionKey]) -> PolicyRule:
        """This rule, which also accepts what the old rule of the same entry did, as far as it is in `teks`.

        A rule that a rekey takes over as it is, because it brings no TEKs, retires what it did before.
        """
        if old is None:
            return self
        retired = tuple(spi for spi in old.spis if spi in teks and spi not in self.spis)
        return PolicyRule(self.entry, retired + self.spis, frozenset(retired) | self.retired)


@dataclass(frozen=True, slots=True)
class GroupKeys:
    """What a member holds of a group. `sender_ids` are its own (RFC 6054)."""

    rules: tuple[PolicyRule, ...]
    teks: dict[int, TrafficEncryptionKey]
    kek: KeyEncryptionKey | None = None
    sender_ids: tuple[int, ...] = ()
    sender_id_bits: int = 0
    activation_delay: int = 0
    deactivation_delay: int = 0
    # `sa receive-only`: TEKs are for decryption alone.
    receive_only: bool = False
    # When sending under a TEK begins, for those that came with an activation delay while others were there.
    activations: Mapping[int, float] = field(default_factory=dict)
    # Its part of the group's key tree, where it was given one.
    path: KeyPath | None = None
    # Permit entries of the key server that there was no room for.
    ignored: int = 0
    # When TEKs ended that were held before, by SPI and mark, for the last ENDED of them: they tell the age of a rekey
    # that brings them again.
    ended: Mapping[tuple[int, bytes], float] = field(default_factory=dict)
    # What the last message of the key server's said of its clock.
    told: ToldTime | None = None

    def succeeding(self, old: GroupKeys | None, now: float, *, rekey: bool = True) -> GroupKeys:
        """These keys beside the old ones that still live: others may send under them until their end.

        The delays are for those who have the new keys with a `rekey`, all at a time. A registration comes alone: its
        keys live as long as the key server says, who counts the delays itself.

        A TEK that was there before keeps the shorter of its lives: no message lengthens one. A KEK that was there
        keeps the higher sequence number (RFC 6407 3.3). The delays count from `now` (RFC 5374 4.2.1).
        """
        if old is None:
            return self
        known_rules = {rule.entry: rule for rule in old.rules}
        living = {spi: tek for spi, tek in old.teks.items() if tek.expires > now}
        fresh = self.teks.keys() - living.keys()
        if rekey and fresh and self.deactivation_delay:
            gone = self._replaced(living.keys(), fresh)
            living |= {spi: living[spi].ending(now + self.deactivation_delay) for spi in gone}
        teks = {**living, **{spi: tek.continuing(living.get(spi)) for spi, tek in self.teks.items()}}
        activations = {spi: moment for spi, moment in old.activations.items() if spi in teks}
        if rekey and living and self.activation_delay:
            activations |= dict.fromkeys(fresh, now + self.activation_delay)
        kek = self.kek
        if kek is not None and old.kek is not None and kek.spi == old.kek.spi:
            kek = replace(kek, sequence=max(kek.sequence, old.kek.sequence))
        rules = tuple(rule.succeeding(known_rules.get(rule.entry), teks) for rule in self.rules)
        return replace(self, rules=rules, teks=teks, kek=kek, activations=activations, ended=old.ended)

    def _replaced(self, living: Set[int], fresh: Set[int]) -> Set[int]:
        """Of the keys that lived before: those that fresh ones came for, and those that no rule names any more.

        Each `sa ipsec` entry renews its own: a rekey of one says again what the others have.
        """
        still = {spi for rule in self.rules if fresh.isdisjoint(rule.spis) for spi in rule.spis}
        return living - still

    def alive(self, now: float) -> GroupKeys:
        """The same without TEKs that have ended; the same object where there are none."""
        if all(tek.expires > now for tek in self.teks.values()):
            return self
        ended = {**self.ended, **{(spi, tek.mark): tek.expires for spi, tek in self.teks.items() if tek.expires <= now}}
        return replace(
            self,
            teks={spi: tek for spi, tek in self.teks.items() if tek.expires > now},
            ended=dict(list(ended.items())[-ENDED:]),
        )

    @property
    def needs_sender_id(self) -> bool:
        """True where a TEK is of a counter mode."""
        return any(tek.transform.uses_counter_mode for tek in self.teks.values())

    @property
    def permits(self) -> int:
        """Rules that protect."""
        return sum(rule.entry.action is Action.PERMIT for rule in self.rules)
