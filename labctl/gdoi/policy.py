"""Group policy and keys, as key server and member hold them: no wire form, no clock of their own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from labctl.configuration import AccessListEntry, Action, Encryption, Hash, TransformSet


@dataclass(frozen=True, slots=True)
class TrafficEncryptionKey:
    """A TEK: `encryption_key` is cipher key and, for counter modes, salt. Times on the caller's clock."""

    spi: int
    transform: TransformSet
    encryption_key: bytes = field(repr=False)
    integrity_key: bytes = field(repr=False)
    lifetime: float
    expires: float


@dataclass(frozen=True, slots=True)
class KeyEncryptionKey:
    """The KEK under which rekeys come, with the public half of the key that signs them (DER)."""

    spi: bytes
    encryption: Encryption
    iv: bytes = field(repr=False)
    key: bytes = field(repr=False)
    signature_hash: Hash
    signature_key: bytes = field(repr=False)
    lifetime: float
    expires: float
    sequence: int = 0


@dataclass(frozen=True, slots=True)
class PolicyRule:
    """One line of the policy, in order. A PERMIT accepts all of `spis`, oldest first; a DENY has none.

    `retired` are those of them that the key server no longer hands out: others may still send under them, we do not.
    """

    entry: AccessListEntry
    spis: tuple[int, ...] = ()
    retired: frozenset[int] = frozenset()

    def sending(self, teks: Mapping[int, TrafficEncryptionKey], now: float, margin: float) -> int | None:
        """The SPI to send under: the oldest key with more than `margin` seconds left, else the youngest alive."""
        alive = [spi for spi in self.spis if spi in teks and spi not in self.retired and teks[spi].expires > now]
        for spi in alive:
            # As a timer for the moment computes it, rounding included.
            if now < teks[spi].expires - margin:
                return spi
        return alive[-1] if alive else None

    def succeeding(self, old: PolicyRule | None, teks: Mapping[int, TrafficEncryptionKey]) -> PolicyRule:
        """This rule, which also accepts what the old rule of the same entry did, as far as it is in `teks`."""
        if old is None:
            return self
        retired = tuple(spi for spi in old.spis if spi in teks and spi not in self.spis)
        return PolicyRule(self.entry, retired + self.spis, frozenset(retired))


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

    def succeeding(self, old: GroupKeys | None, now: float) -> GroupKeys:
        """These keys beside the old ones that still live: others may send under them until their end.

        A KEK that was there before keeps the higher sequence number (RFC 6407 3.3).
        """
        if old is None:
            return self
        teks = {**{spi: tek for spi, tek in old.teks.items() if tek.expires > now}, **self.teks}
        known = {rule.entry: rule for rule in old.rules}
        rules = tuple(rule.succeeding(known.get(rule.entry), teks) for rule in self.rules)
        kek = self.kek
        if kek is not None and old.kek is not None and kek.spi == old.kek.spi:
            kek = replace(kek, sequence=max(kek.sequence, old.kek.sequence))
        return replace(self, rules=rules, teks=teks, kek=kek)

    def alive(self, now: float) -> GroupKeys:
        """The same without TEKs that have ended; the same object where there are none."""
        teks = {spi: tek for spi, tek in self.teks.items() if tek.expires > now}
        return self if len(teks) == len(self.teks) else replace(self, teks=teks)

    @property
    def needs_sender_id(self) -> bool:
        """True where a TEK is of a counter mode."""
        return any(tek.transform.uses_counter_mode for tek in self.teks.values())

    @property
    def permits(self) -> int:
        """Rules that protect."""
        return sum(rule.entry.action is Action.PERMIT for rule in self.rules)
