"""A group on its key server: keys with their generations, rekeys, sender IDs, members.

RFC 6407 3.5, 4; reference 3.8, 4.4-4.8; lifetimes and orders: reference/cisco-getvpn.md 2.2-2.5.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address

from labctl import crypto
from labctl.configuration import AccessListEntry, Action, Encryption, KeyServerGroup, RekeyTransport
from labctl.gdoi import ack, encoding, numbers, push
from labctl.gdoi.numbers import SENDER_ID_BITS
from labctl.gdoi.payloads import GdoiSa, KeyDownload, KeyPacket, SaTek
from labctl.gdoi.payloads.sa_kek import KEK_SPI_OCTETS
from labctl.gdoi.payloads.sa_tek import SMALLEST_SPI
from labctl.gdoi.policy import KeyEncryptionKey, TrafficEncryptionKey
from labctl.gdoi.rekeying import Rekey, ack_type
from labctl.gdoi.timing import Timing
from labctl.isakmp.errors import LocalError
from labctl.isakmp.header import Doi
from labctl.isakmp.main_mode import RandomSource
from labctl.isakmp.payloads import Delete

# KSSID: the first bits of every sender ID name the key server that gave it (reference 3.8, proposal).
KEY_SERVER_ID_BITS = 8

DOI = int(Doi.GDOI)

# Sequence numbers have 32 bits: the KEK is replaced before they end (reference 4.4).
LAST_SEQUENCE = (1 << 32) - 16


@dataclass(slots=True)
class Member:
    """A registered member, by the address that phase 1 authenticated.

    `private`: it knows our code points. `missed` rekeys in a row have gone without its acknowledgement.
    """

    address: IPv4Address
    registered: float
    registrations: int = 0
    sender_ids: tuple[int, ...] = ()
    # Until when its keys live: without new ones by then it is a member no more.
    keys_until: float = 0.0
    private: bool = False
    acknowledged: int = 0
    acknowledged_at: float | None = None
    missed: int = 0

    @property
    def answers(self) -> bool:
        """True for members that are known to acknowledge: others are never counted as lost (RFC 8263 5)."""
        return self.private or self.acknowledged > 0


@dataclass(frozen=True, slots=True)
class Generation:
    """The TEKs made at one time: one for all entries, or one for each with counter modes; SPIs by entry."""

    teks: dict[int, TrafficEncryptionKey] = field(repr=False)
    entries: dict[AccessListEntry, int]

    @property
    def expires(self) -> float:
        """The end of its life."""
        return next(iter(self.teks.values())).expires

    def ending(self, expires: float) -> Generation:
        """The same, ended earlier; never later."""
        teks = {spi: tek.ending(expires) for spi, tek in self.teks.items()}
        return Generation(teks, self.entries)


@dataclass(frozen=True, slots=True)
class Change:
    """What time or an order has done to a group. `rekey` has just begun."""

    new_keys: bool = False
    departed: tuple[Member, ...] = ()
    rekey: Rekey | None = None


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


class RekeyImpossible(ValueError):
    """The group sends no rekeys."""


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
        self.revoked: set[IPv4Address] = set()
        self.rekeys: list[Rekey] = []
        self.rekeys_begun = 0
        self.signing_key = signing_key
        # What the KEK's rekeys are signed with: members hold its public half.
        self._signer = signing_key
        self._random = random
        self._timing = timing
        # What the configuration said when the newest keys were made: a change waits for the next rekey.
        self._serving = configuration

    @property
    def uses_counter_mode(self) -> bool:
        """True where members need sender IDs."""
        return self._serving.transform.uses_counter_mode

    @property
    def sends_rekeys(self) -> bool:
        """True where there is a transport: multicast without an address sends nothing, as on IOS."""
        rekey = self._serving.rekey
        return rekey.transport is RekeyTransport.UNICAST or rekey.address is not None

    @property
    def _can_tell(self) -> bool:
        """True where there is a KEK, and a way to send rekeys under it."""
        return self.sends_rekeys and self.kek is not None and self._signer is not None

    # Time.

    def next_deadline(self) -> float | None:
        """When something has to be sent or dropped next or, for a group that has members, keys to be made."""
        deadlines = [generation.expires for generation in self.generations]
        deadlines += [] if self.kek is None else [self.kek.expires]
        deadlines += [deadline for rekey in self.rekeys if (deadline := rekey.next_deadline()) is not None]
        if self.members and self.generations:
            deadlines.append(self._tek_due())
        if self.members and self.kek is not None:
            deadlines.append(self._kek_due(self.kek))
        return min(deadlines, default=None)

    def advance(self, now: float) -> Change:
        """Drop what has ended; a group that still has members gets the keys that are due."""
        departed = self._drop(now)
        if not self.members:
            return Change(departed=departed)
        made, rekey = self._make(now)
        return Change(made, departed, rekey)

    def renew(self, now: float) -> Change:
        """Drop what has ended and make the keys that are due, for a member that is about to come."""
        departed = self._drop(now)
        made, rekey = self._make(now)
        return Change(made, departed, rekey)

    def _drop(self, now: float) -> tuple[Member, ...]:
        """Keys at their end, and members with the last key that they were given.

        Who is asked to acknowledge rekeys leaves by missing three of them: its keys may be newer than what it said.
        """
        if self.kek is not None and self.kek.expires <= now:
            self.kek = None
        self.generations = [generation for generation in self.generations if generation.expires > now]
        asked = self._can_tell and ack_type(self._serving.rekey) is not None
        departed = tuple(
            member for member in self.members.values() if member.keys_until <= now and not (asked and member.answers)
        )
        for member in departed:
            self._forget(member)
        return departed

    def _forget(self, member: Member) -> None:
        del self.members[member.address]
        for rekey in self.rekeys:
            rekey.discard(member.address)

    def _make(self, now: float) -> tuple[bool, Rekey | None]:
        under = self.kek
        tek, kek = self._due(now)
        if tek or kek:
            # What is due a moment later travels along: two rekeys at once might overtake each other.
            tek, kek = self._due(now + self._timing.together)
        if tek:
            self._new_generation(now)
        if kek and self.signing_key is not None:
            self._replace_kek(now, self.signing_key)
        return tek or kek, self._start_rekey(under, now) if tek or kek else None

    def _due(self, now: float) -> tuple[bool, bool]:
        """Is it time for new TEKs, and for a new KEK?"""
        tek = not self.generations or now >= self._tek_due()
        kek = self.signing_key is not None and (self.kek is None or now >= self._kek_due(self.kek))
        return tek, kek

    # A timer set for one of these moments finds it come: deadline and decision are one expression, rounding included.

    def _tek_due(self) -> float:
        return self.generations[-1].expires - self._timing.tek_lead(self._serving.tek_lifetime, self._budget())

    def _kek_due(self, kek: KeyEncryptionKey) -> float:
        if kek.sequence >= LAST_SEQUENCE:
            return float("-inf")
        return kek.expires - self._timing.kek_lead(kek.lifetime, self._budget())

    def _budget(self) -> float:
        rekey = self._serving.rekey
        if rekey.transport is not RekeyTransport.UNICAST:
            return 0.0
        return self._timing.unicast_budget(rekey.retransmit_interval, rekey.retransmit_count)

    # Keys.

    def _new_generation(self, now: float, *, told: bool = True) -> None:
        """Make TEKs. `told`: members will have them with a rekey, and count the delays from then."""
        self._serving = self.configuration
        permits = [entry for entry in self._serving.policy if entry.action is Action.PERMIT]
        if self.uses_counter_mode:
            entries = {entry: self._new_tek(now) for entry in permits}
        else:
            entries = dict.fromkeys(permits, self._new_tek(now))
        delay = self._serving.deactivation_delay
        if delay and told and self.sends_rekeys:
            # Members take the replaced keys out by then: those who come later get no more of them (reference 4.6).
            self.generations = [generation.ending(now + delay) for generation in self.generations]
        teks = {tek.spi: tek for tek in entries.values()}
        self.generations.append(Generation(teks, {entry: tek.spi for entry, tek in entries.items()}))

    def _new_tek(self, now: float) -> TrafficEncryptionKey:
        transform = self._serving.transform
        lifetime = self._serving.tek_lifetime
        used = {spi for generation in self.generations for spi in generation.teks}
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

    def _replace_kek(self, now: float, signing_key: crypto.RsaPrivateKey) -> None:
        rekey = self.configuration.rekey
        iv_octets = 16 if rekey.encryption is Encryption.AES_CBC else 8
        key_octets = rekey.key_bits // 8 if rekey.encryption is Encryption.AES_CBC else 24
        self._signer = signing_key
        self.kek = KeyEncryptionKey(
            self._random(KEK_SPI_OCTETS),
            rekey.encryption,
            self._random(iv_octets),
            self._random(key_octets),
            rekey.signature_hash,
            signing_key.public.der,
            rekey.lifetime,
            now + rekey.lifetime,
            source=self.configuration.address,
            address=rekey.address if rekey.transport is RekeyTransport.MULTICAST else None,
            acknowledgement=ack_type(rekey),
        )

    def sa_payload(self, now: float, *, private: bool, with_kek: bool = True) -> GdoiSa:
        """What members are told. `private`: the peer knows our code points, so deny entries can be told too."""
        teks: list[SaTek] = []
        for index, entry in enumerate(self._serving.policy):
            if entry.action is Action.DENY:
                if private:
                    teks.append(encoding.sa_bypass(entry, index))
                continue
            teks += [
                encoding.sa_tek(
                    entry,
                    generation.teks[generation.entries[entry]],
                    now,
                    index if private else None,
                    receive_only=self._serving.receive_only,
                )
                for generation in self.generations
                if entry in generation.entries
            ]
        kek = None
        if with_kek and self.kek is not None and self._signer is not None:
            kek = encoding.sa_kek(self.kek, self._serving.address, self._signer.public.bits, now)
        # Members that register for each key have it at different times: what delays there may be, they do not share.
        delays = (self._serving.activation_delay, self._serving.deactivation_delay) if self.sends_rekeys else (0, 0)
        return GdoiSa(kek, encoding.gap(*delays), tuple(teks))

    def key_packets(self, *, with_kek: bool = True) -> tuple[KeyPacket, ...]:
        """KEK and TEKs of what `sa_payload` says at the same moment."""
        packets = [encoding.kek_packet(self.kek)] if with_kek and self.kek is not None else []
        told = {entry for entry in self._serving.policy if entry.action is Action.PERMIT}
        for generation in self.generations:
            spis = {spi for entry, spi in generation.entries.items() if entry in told}
            packets += [encoding.tek_packet(tek) for spi, tek in generation.teks.items() if spi in spis]
        return tuple(packets)

    # Rekeys.

    def _start_rekey(
        self,
        under: KeyEncryptionKey | None,
        now: float,
        *,
        deletes: tuple[Delete, ...] = (),
        with_sa: bool = True,
        with_kek: bool = True,
        signer: crypto.RsaPrivateKey | None = None,
    ) -> Rekey | None:
        """Tell every member: SEQ, `deletes`, and what is valid now. None where there is nobody or no way to tell.

        `under` is the KEK that members hold; `signer` what they verify its rekeys with, if it is not the present one.
        """
        key = signer or self._signer
        if under is None or key is None or not self.members or not self.sends_rekeys:
            return None
        under = replace(under, sequence=under.sequence + 1)
        if self.kek is not None and self.kek.spi == under.spi:
            self.kek = under
        sas: dict[bool, GdoiSa | None] = {
            private: self.sa_payload(now, private=private, with_kek=with_kek) if with_sa else None
            for private in (True, False)
        }
        keys = KeyDownload(self.key_packets(with_kek=with_kek)) if with_sa else None
        built: dict[bool, bytes] = {}

        def datagram(private: bool) -> bytes:
            if private not in built:
                built[private] = push.build(push.Push(under.sequence, deletes, sas[private], keys), under, key)
            return built[private]

        return self._launch(under, datagram, now)

    def _launch(self, under: KeyEncryptionKey, datagram: Callable[[bool], bytes], now: float) -> Rekey:
        rekey = self._serving.rekey
        members = dict(self.members)
        if under.address is not None:
            everybody = all(member.private for member in members.values())
            started = Rekey(under, lambda _: datagram(everybody), (under.address,), rekey, self._timing, now)
        else:

            def datagram_for(receiver: IPv4Address) -> bytes:
                known = self.members.get(receiver) or members.get(receiver)
                return datagram(known is not None and known.private)

            started = Rekey(under, datagram_for, members, rekey, self._timing, now)
        # A later rekey under the same KEK says all that the one before said.
        for earlier in [item for item in self.rekeys if item.kek.spi == under.spi]:
            self._close(earlier)
        self.rekeys.append(started)
        self.rekeys_begun += 1
        started.number = self.rekeys_begun
        if started.acknowledgement is None:
            self._hold_keys(members.values())
        return started

    def _hold_keys(self, members: Iterable[Member]) -> None:
        """These members have, or are taken to have, the youngest keys."""
        until = max((generation.expires for generation in self.generations), default=0.0)
        for member in members:
            member.keys_until = until

    def _close(self, rekey: Rekey) -> tuple[Member, ...]:
        """A rekey is over: whoever did not answer has missed it. Returns members that have missed too many."""
        self.rekeys.remove(rekey)
        lost = []
        if rekey.acknowledgement is not None:
            for address in rekey.waiting:
                member = self.members.get(address)
                if member is not None and member.answers:
                    member.missed += 1
                    if member.missed >= self._timing.missed_rekeys:
                        lost.append(member)
        for member in lost:
            self._forget(member)
        return tuple(lost)

    def transmit(self, now: float) -> tuple[list[tuple[IPv4Address, bytes]], tuple[Member, ...]]:
        """Copies of rekeys that have to leave now, and members that have missed too many."""
        out: list[tuple[IPv4Address, bytes]] = []
        lost: list[Member] = []
        for rekey in list(self.rekeys):
            out += rekey.due(now)
            if rekey.finished and rekey in self.rekeys:
                lost += self._close(rekey)
        return out, tuple(lost)

    def asked_under(self, spi: bytes) -> bool:
        """Does a rekey under the KEK with this SPI wait for acknowledgements?"""
        return any(rekey.kek.spi == spi and rekey.acknowledgement is not None for rekey in self.rekeys)

    def acknowledge(self, data: bytes, spi: bytes, source: IPv4Address, now: float) -> Member | None:
        """Take an acknowledgement. None for duplicates. Raises PeerError for what none of our rekeys asked for."""
        rekey = next((item for item in self.rekeys if item.kek.spi == spi), None)
        if rekey is None or rekey.acknowledgement is None:
            raise ack.Unsolicited("no rekey waits for this acknowledgement")
        if source in self.members and source not in rekey.waiting:
            return None  # before any cryptography (RFC 8263 5)
        told = ack.open_ack(data, rekey.acknowledgement, rekey.kek.key)
        address = IPv4Address(told.identity.data)
        if told.sequence != rekey.kek.sequence:
            return None
        rekey.discard(address)
        if rekey.finished and rekey in self.rekeys:
            self._close(rekey)
        member = self.members.get(address)
        if member is None:
            return None
        member.acknowledged += 1
        member.acknowledged_at = now
        member.missed = 0
        self._hold_keys([member])
        return member

    # Orders.

    def rekey(self, now: float, *, replace_now: bool = False) -> Change:
        """`crypto gdoi ks rekey`: new TEKs; the old ones live on shortened or, with `replace_now`, end at once.

        Where there is nobody to tell, the old ones live on whole: members that were forgotten may hold them. Raises
        RekeyImpossible where members cannot be told: they would go on under keys that nobody else has.
        """
        if self.generations and not self._can_tell:
            raise RekeyImpossible(f"group {self.configuration.name} has no way to send its members a rekey")
        under, signer, old = self.kek, self._signer, list(self.generations)
        replace_now = replace_now and bool(self.members)
        if replace_now:
            self.generations = []
        elif self.members:
            self._shorten(now)
        self._new_generation(now)
        if self.signing_key is not None and (self.kek is None or self._kek_outdated(self.kek)):
            self._replace_kek(now, self.signing_key)
        deletes = (_delete_teks(old),) if replace_now and old else ()
        return Change(True, (), self._start_rekey(under, now, deletes=deletes, signer=signer))

    def _kek_outdated(self, kek: KeyEncryptionKey) -> bool:
        """Does the configuration ask for another KEK than this?"""
        rekey = self.configuration.rekey
        address = rekey.address if rekey.transport is RekeyTransport.MULTICAST else None
        bits = rekey.key_bits if rekey.encryption is Encryption.AES_CBC else 192
        wanted = (rekey.encryption, bits, rekey.signature_hash, address, ack_type(rekey), rekey.lifetime)
        there = (kek.encryption, len(kek.key) * 8, kek.signature_hash, kek.address, kek.acknowledgement, kek.lifetime)
        return wanted != there or self._signer is not self.signing_key

    def _shorten(self, now: float) -> None:
        self.generations = [
            generation.ending(
                now + self._timing.shortened(generation.expires - now, next(iter(generation.teks.values())).lifetime)
            )
            for generation in self.generations
        ]

    def clear_members(self, now: float, *, immediate: bool = False) -> Change:
        """`clear crypto gdoi ks members`: forget every member, and have them come back for keys.

        They go on under the shortened TEKs of before or, `immediate`, lose everything at once. Members that cannot be
        told are forgotten, and come back before their keys end.
        """
        under = self.kek
        departed = tuple(self.members.values())
        if not self._can_tell:
            self.members.clear()
            return Change(False, departed)
        if immediate and departed:
            rekey = self._wipe(now)
        else:
            if departed:
                self._shorten(now)
            deletes = () if under is None else (Delete(DOI, numbers.SaProtocol.KEK, KEK_SPI_OCTETS, (under.spi,)),)
            rekey = self._start_rekey(under, now, deletes=deletes, with_kek=False)
            self._new_generation(now, told=False)
        self.kek = None
        self.members.clear()
        if self.signing_key is not None:
            self._replace_kek(now, self.signing_key)
        return Change(True, departed, rekey)

    def _wipe(self, now: float) -> Rekey | None:
        """Take everything from every member (reference 4.5)."""
        deletes = (
            Delete(DOI, numbers.SaProtocol.ESP, 4, (bytes(4),)),
            Delete(DOI, numbers.SaProtocol.KEK, KEK_SPI_OCTETS, (bytes(KEK_SPI_OCTETS),)),
        )
        rekey = self._start_rekey(self.kek, now, deletes=deletes, with_sa=False)
        self.generations = []
        self._new_generation(now)
        return rekey

    def reconfigure(self, configuration: KeyServerGroup) -> bool:
        """Another policy from the next keys on (reference/cisco-getvpn.md 2.5). True if it is another one.

        Raises LocalError, changing nothing, for one that no group can keep.
        """
        _check(configuration)
        changed = configuration != self.configuration
        self.configuration = configuration
        return changed

    # Members.

    def authorizes(self, address: IPv4Address) -> bool:
        """May a member with this address register?"""
        if address in self.revoked:
            return False
        networks = self.configuration.authorized
        return not networks or any(address in network for network in networks)

    def register(
        self,
        address: IPv4Address,
        sender_ids: tuple[int, ...],
        now: float,
        *,
        private: bool = False,
        rekeys_seen: int | None = None,
    ) -> Member:
        """Note a member that has its keys, until the end of the youngest.

        It was given those that were there after `rekeys_seen` rekeys (None: all): rekeys since then are sent to it.
        """
        member = self.members.setdefault(address, Member(address, now))
        member.registered = now
        member.registrations += 1
        member.sender_ids = sender_ids
        member.private = private
        member.missed = 0
        self._hold_keys([member])
        for rekey in list(self.rekeys):
            if rekeys_seen is None or rekey.number <= rekeys_seen:
                rekey.discard(address)
            elif rekey.kek.address is None:
                rekey.add(address, now)
        return member

    def take_sender_ids(self, count: int) -> tuple[int, ...]:
        """Sender IDs that nobody had before: KSSID in front, a counter behind. Raises SenderIdsExhausted."""
        counter_bits = _counter_bits(self.configuration)
        if self.sender_ids_given + count > 1 << counter_bits:
            raise SenderIdsExhausted(f"all {1 << counter_bits} sender IDs are given")
        first = self.configuration.key_server_id << counter_bits | self.sender_ids_given
        self.sender_ids_given += count
        return tuple(range(first, first + count))

    def start_over(self, now: float) -> Change:
        """New keys under which every sender ID is free again (RFC 6407 3.5). Members have to register anew."""
        change = self.clear_members(now, immediate=True)
        if not change.new_keys:
            self.generations = []
            self._new_generation(now)
            change = replace(change, new_keys=True)
        self.sender_ids_given = 0
        return change


def _delete_teks(generations: Iterable[Generation]) -> Delete:
    spis = tuple(spi.to_bytes(4, "big") for generation in generations for spi in generation.teks)
    return Delete(DOI, numbers.SaProtocol.ESP, 4, spis)
