"""A group on its key server: keys with their generations, sender IDs, members (RFC 6407 3.5, 4.6; reference 3.8)."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Address

from labctl import crypto
from labctl.configuration import Action, Encryption, KeyServerGroup
from labctl.gdoi import encoding, numbers
from labctl.gdoi.payloads import GdoiSa, KeyDownload, SaTek
from labctl.gdoi.payloads.sa_kek import KEK_SPI_OCTETS
from labctl.gdoi.payloads.sa_tek import SMALLEST_SPI
from labctl.gdoi.policy import KeyEncryptionKey, TrafficEncryptionKey
from labctl.gdoi.timing import Timing
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


@dataclass(frozen=True, slots=True)
class Generation:
    """The TEKs made at one time: one for all entries, or one for each with counter modes; by entry index."""

    teks: tuple[TrafficEncryptionKey, ...]
    by_entry: dict[int, TrafficEncryptionKey] = field(repr=False)

    @property
    def expires(self) -> float:
        """The end of its life."""
        return self.teks[0].expires


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
        """When keys have to be made or dropped next."""
        deadlines = [generation.expires for generation in self.generations]
        if self.generations:
            newest = self.generations[-1]
            deadlines.append(newest.expires - self._timing.tek_lead(self.configuration.tek_lifetime))
        if self.kek is not None:
            deadlines.append(self.kek.expires - self._timing.kek_lead(self.kek.lifetime))
        return min(deadlines, default=None)

    def renew(self, now: float) -> bool:
        """Drop what has expired and make what is due. Returns whether a new key was made."""
        self.generations = [generation for generation in self.generations if generation.expires > now]
        made = False
        if not self.generations or self._due(self.generations[-1].expires, now):
            self.generations.append(self._new_generation(now))
            made = True
        lead = self._timing.kek_lead(self.configuration.rekey.lifetime)
        if self._signing_key is not None and (self.kek is None or self.kek.expires - now <= lead):
            self.kek = self._new_kek(now, self._signing_key)
            made = True
        return made

    def _due(self, expires: float, now: float) -> bool:
        return expires - now <= self._timing.tek_lead(self.configuration.tek_lifetime)

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

    def key_download(self, offered: GdoiSa, sender_ids: tuple[int, ...]) -> KeyDownload:
        """The keys of exactly what was offered."""
        packets = []
        if self.kek is not None and offered.kek is not None:
            packets.append(encoding.kek_packet(self.kek))
        wanted = {tek.spi_number for tek in offered.teks}
        packets += [
            encoding.tek_packet(tek) for generation in self.generations for tek in generation.teks if tek.spi in wanted
        ]
        if sender_ids:
            packets.append(encoding.sid_packet(self.configuration.sender_id_bits, sender_ids))
        return KeyDownload(tuple(packets))

    def take_sender_ids(self, count: int) -> tuple[int, ...]:
        """Sender IDs that nobody had before: KSSID in front, a counter behind. Raises SenderIdsExhausted."""
        counter_bits = self.configuration.sender_id_bits - KEY_SERVER_ID_BITS
        if counter_bits <= 0:
            counter_bits, prefix = self.configuration.sender_id_bits, 0
        else:
            prefix = self.configuration.key_server_id << counter_bits
        if self.sender_ids_given + count > 1 << counter_bits:
            raise SenderIdsExhausted(f"all {1 << counter_bits} sender IDs are given")
        first = self.sender_ids_given
        self.sender_ids_given += count
        return tuple(prefix | number for number in range(first, first + count))

    def start_over(self, now: float) -> None:
        """New keys under which every sender ID is free again (RFC 6407 3.5). Members have to register anew."""
        self.generations = []
        self.kek = None
        self.members.clear()
        self.sender_ids_given = 0
        self.renew(now)
