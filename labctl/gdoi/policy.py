"""Group policy and keys, as key server and member hold them: no wire form, no clock of their own."""

from __future__ import annotations

from dataclasses import dataclass, field

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
    """One line of the policy, in order. A PERMIT has the SPIs of its TEKs, oldest first; a DENY has none."""

    entry: AccessListEntry
    spis: tuple[int, ...] = ()

    def sending(self, teks: dict[int, TrafficEncryptionKey], now: float, margin: float) -> int | None:
        """The SPI to send under: the oldest key with more than `margin` seconds left, else the youngest alive."""
        alive = [spi for spi in self.spis if spi in teks and teks[spi].expires > now]
        for spi in alive:
            if teks[spi].expires - now > margin:
                return spi
        return alive[-1] if alive else None


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

    @property
    def needs_sender_id(self) -> bool:
        """True where a TEK is of a counter mode."""
        return any(tek.transform.uses_counter_mode for tek in self.teks.values())

    @property
    def permits(self) -> int:
        """Rules that protect."""
        return sum(rule.entry.action is Action.PERMIT for rule in self.rules)
