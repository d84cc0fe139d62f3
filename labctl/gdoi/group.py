"""A group on its key server: keys with their generations, sender IDs, members (RFC 6407 3.5, 4.6; reference 3.8)."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Address

from labctl import crypto
from labctl.configuration import Action, Encryption, KeyServerGroup
from labctl.gdoi import encoding, numbers
from labctl.gdoi.numbers import SENDER_ID_BITS
from labctl.gdoi.payloads import GdoiSa, KeyPacket, SaTek
from labctl.gdoi.payloads.sa_kek import KEK_SPI_OCTETS
from labctl.gdoi.payloads.sa_tek import SMALLEST_SPI
from labctl.gdoi.policy import KeyEncryptionKey, TrafficEncryptionKey
from labctl.gdoi.timing import Timing
from labctl.isakmp.errors import LocalError
from labctl.isakmp.main_mode import RandomSource

# KSSID: the first bits of every sender ID name the key server that gave it (reference 3.8, proposal).
KEY_SERVER_ID_BITS = 8

UNSPECIFIED = IPv4Address("0.0.0.0")


@dataclass(slots=True)
class Member:
    """A registered member, by the address that phase 1 authenticated."""

    address: IPv4Address
    registered: float
    registrations: int = 0
    sender_ids: tuple[int, ...] = ()
    # Until when its keys live: without a registration by then it is a member no more.
    keys_until: float = 0.0


@dataclass(frozen=True, slots=True)
class Generation:
    """The TEKs made at one time: one for all entries, or one for each with counter modes; by entry index."""

    teks: tuple[TrafficEncryptionKey, ...]
    by_entry: dict[int, TrafficEncryptionKey] = field(repr=False)

    @property
    def expires(self) -> float:
        """The end of its life."""
        return self.teks[0].expires


@dataclass(frozen=True, slots=True)
class Change:
    """What time has done to a group."""

    new_keys: bool
    departed: tuple[Member, ...] = ()


def _counter_bits(configuration: KeyServerGroup) -> int:
    """Bits of a sender ID behind the KSSID. Small IDs have no room for one: such a group has one key server."""
    bits = configuration.sender_id_bits
    return bits - KEY_SERVER_ID_BITS if bits > KEY_SERVER_ID_BITS else bits


def _check(configuration: KeyServerGroup) -> None:
    """Raises LocalError for a configuration that no group can keep."""
    group = f"group {configuration.name}"
    bits = configuration.sender_id_bits
    if configuration.tek_lifetime <= 0 or configuration.rekey.lifetime <= 0:
        raise LocalError(f"{group}: a key's lifetime is at least a second")
    if not any(entry.action is Action.PERMIT for entry in configuration.policy):
        raise LocalError(f"{group}: the policy permits nothing, so there is nothing to encrypt")
    if bits not in SENDER_ID_BITS:
        raise LocalError(
            f"{group}: sender IDs have {SENDER_ID_BITS.start} to {SENDER_ID_BITS.stop - 1} bits, not {bits}"
        )
    if configuration.key_server_id >> (bits - _counter_bits(configuration)):
        raise LocalError(f"{group}: key server ID {configuration.key_server_id} does not fit sender IDs of {bits} bits")


class SenderIdsExhausted(Exception):
    """Every sender ID of this key server is given; the group has to start over (RFC 6407 3.5)."""


class Group:
    """One group. Keys are made when the first member comes, and replaced before they end."""

    def __init__(
        self,
        configuration: KeyServerGroup,
        random: RandomSource,
        signing_key: crypto.RsaPrivateKey | None,
        timing: Timing,
    ) -> None:
        _check(configuration)
        self.configuration = configuration
        self.members: dict[IPv4Address, Member] = {}
        self.generations: list[Generation] = []
        self.kek: KeyEncryptionKey | None = None
        self.sender_ids_given = 0
        self._random = random
        self._signing_key = signing_key
        self._timing = timing

    @property
    def uses_counter_mode(self) -> bool:
        """True where members need sender IDs."""
        return self.configuration.transform.uses_counter_mode

    def next_deadline(self) -> float | None:
        """When keys or members have to be dropped next or, for a group that has members, keys to be made."""
        deadlines = [generation.expires for generation in self.generations]
        deadlines += [] if self.kek is None else [self.kek.expires]
        if self.members and self.generations:
            deadlines.append(self._tek_due())
        if self.members and self.kek is not None:
            deadlines.append(self._kek_due(self.kek))
        return min(deadlines, default=None)

    def advance(self, now: float) -> Change:
        """Drop what has ended; a group that still has members gets the keys that are due."""
        departed = self._drop(now)
        return Change(bool(self.members) and self._make(now), departed)

    def renew(self, now: float) -> Change:
        """Drop what has ended and make the keys that are due, for a member that is about to come."""
        departed = self._drop(now)
        return Change(self._make(now), departed)

    def _drop(self, now: float) -> tuple[Member, ...]:
        """Keys at their end, and members with the last key that they were given."""
        if self.kek is not None and self.kek.expires <= now:
            self.kek = None
        alive = [generation for generation in self.generations if generation.expires > now]
        if len(alive) == len(self.generations):
            return ()
        self.generations = alive
        departed = tuple(member for member in self.members.values() if member.keys_until <= now)
        for member in departed:
            del self.members[member.address]
        return departed

    def _make(self, now: float) -> bool:
        made = False
        if not self.generations or now >= self._tek_due():
            self.generations.append(self._new_generation(now))
            made = True
        if self._signing_key is not None and (self.kek is None or now >= self._kek_due(self.kek)):
            self.kek = self._new_kek(now, self._signing_key)
            made = True
        return made

    # A timer set for one of these moments finds it come: deadline and decision are one expression, rounding included.

    def _tek_due(self) -> float:
        return self.generations[-1].expires - self._timing.tek_lead(self.configuration.tek_lifetime)

    def _kek_due(self, kek: KeyEncryptionKey) -> float:
        return kek.expires - self._timing.kek_lead(kek.lifetime)

    def _new_generation(self, now: float) -> Generation:
        permits = [index for index, entry in enumerate(self.configuration.policy) if entry.action is Action.PERMIT]
        if self.uses_counter_mode:
            by_entry = {index: self._new_tek(now) for index in permits}
        else:
            shared = self._new_tek(now)
            by_entry = dict.fromkeys(permits, shared)
        return Generation(tuple({tek.spi: tek for tek in by_entry.values()}.values()), by_entry)

    def _new_tek(self, now: float) -> TrafficEncryptionKey:
        transform = self.configuration.transform
        lifetime = self.configuration.tek_lifetime
        used = {tek.spi for generation in self.generations for tek in generation.teks}
        while (spi := int.from_bytes(self._random(4), "big")) < SMALLEST_SPI or spi in used:
            pass
        return TrafficEncryptionKey(
            spi,
            transform,
            self._random(numbers.encryption_key_octets(transform)),
            self._random(numbers.INTEGRITY_OCTETS[transform.integrity]),
            lifetime,
            now + lifetime,
        )

    def _new_kek(self, now: float, signing_key: crypto.RsaPrivateKey) -> KeyEncryptionKey:
        rekey = self.configuration.rekey
        iv_octets = 16 if rekey.encryption is Encryption.AES_CBC else 8
        key_octets = rekey.key_bits // 8 if rekey.encryption is Encryption.AES_CBC else 24
        return KeyEncryptionKey(
            self._random(KEK_SPI_OCTETS),
            rekey.encryption,
            self._random(iv_octets),
            self._random(key_octets),
            rekey.signature_hash,
            signing_key.public.der,
            rekey.lifetime,
            now + rekey.lifetime,
        )

    def sa_payload(self, now: float, *, private: bool) -> GdoiSa:
        """What members are told. `private`: the peer knows our code points, so deny entries can be told too."""
        teks: list[SaTek] = []
        for index, entry in enumerate(self.configuration.policy):
            if entry.action is Action.DENY:
                if private:
                    teks.append(encoding.sa_bypass(entry, index))
                continue
            teks += [
                encoding.sa_tek(entry, generation.by_entry[index], now, index if private else None)
                for generation in self.generations
            ]
        kek = None
        if self.kek is not None and self._signing_key is not None:
            bits = self._signing_key.public.bits
            kek = encoding.sa_kek(self.kek, self.configuration.address, UNSPECIFIED, bits, now)
        return GdoiSa(
            kek, encoding.gap(self.configuration.activation_delay, self.configuration.deactivation_delay), tuple(teks)
        )

    def key_packets(self) -> tuple[KeyPacket, ...]:
        """KEK and TEKs of what `sa_payload` says at the same moment."""
        packets = [] if self.kek is None else [encoding.kek_packet(self.kek)]
        packets += [encoding.tek_packet(tek) for generation in self.generations for tek in generation.teks]
        return tuple(packets)

    def authorizes(self, address: IPv4Address) -> bool:
        """May a member with this address register?"""
        networks = self.configuration.authorized
        return not networks or any(address in network for network in networks)

    def register(self, address: IPv4Address, sender_ids: tuple[int, ...], now: float) -> None:
        """Note a member that has its keys, until the end of the youngest."""
        member = self.members.setdefault(address, Member(address, now))
        member.registered = now
        member.registrations += 1
        member.sender_ids = sender_ids
        member.keys_until = max((generation.expires for generation in self.generations), default=now)

    def take_sender_ids(self, count: int) -> tuple[int, ...]:
        """Sender IDs that nobody had before: KSSID in front, a counter behind. Raises SenderIdsExhausted."""
        counter_bits = _counter_bits(self.configuration)
        if self.sender_ids_given + count > 1 << counter_bits:
            raise SenderIdsExhausted(f"all {1 << counter_bits} sender IDs are given")
        first = self.configuration.key_server_id << counter_bits | self.sender_ids_given
        self.sender_ids_given += count
        return tuple(range(first, first + count))

    def start_over(self, now: float) -> None:
        """New keys under which every sender ID is free again (RFC 6407 3.5). Members have to register anew."""
        self.generations = []
        self.kek = None
        self.members.clear()
        self.sender_ids_given = 0
        self._make(now)
