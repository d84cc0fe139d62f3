"""A group on its key server: its keys and when they are renewed, rekeys, orders, members.

RFC 6407 3.5, 4; reference 3.8, 4.4-4.8; lifetimes and orders: reference/cisco-getvpn.md 2.2-2.5.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from ipaddress import IPv4Address

from labctl import crypto
from labctl.configuration import KeyServerGroup, RekeyTransport, SaIpsec
from labctl.gdoi import access_lists, encoding, group_check, group_clock, key_encryption, numbers, push
from labctl.gdoi.exclusion import Exclusion, Farewell, fits_one_datagram
from labctl.gdoi.group_clock import GroupClock
from labctl.gdoi.key_tree import KeyTree
from labctl.gdoi.members import Member, Members
from labctl.gdoi.payloads import GdoiSa, KeyDownload, KeyPacket
from labctl.gdoi.payloads.sa_kek import KEK_SPI_OCTETS
from labctl.gdoi.policy import KeyEncryptionKey
from labctl.gdoi.pseudotime import Pseudotime
from labctl.gdoi.rekeying import Rekey, ack_type
from labctl.gdoi.rekeys_under_way import RekeysUnderWay
from labctl.gdoi.sender_ids import SenderIds
from labctl.gdoi.timing import Timing
from labctl.gdoi.traffic_keys import Generation, TrafficKeys, delete_teks
from labctl.isakmp.header import Doi
from labctl.isakmp.main_mode import RandomSource
from labctl.isakmp.payloads import Delete

DOI = int(Doi.GDOI)

# Takes every key from a member (reference 4.5).
DELETE_ALL = (
    Delete(DOI, numbers.SaProtocol.ESP, 4, (bytes(4),)),
    Delete(DOI, numbers.SaProtocol.KEK, KEK_SPI_OCTETS, (bytes(KEK_SPI_OCTETS),)),
)

# Sequence numbers have 32 bits: the KEK is replaced before they end (reference 4.4).
LAST_SEQUENCE = (1 << 32) - 16


@dataclass(frozen=True, slots=True)
class Change:
    """What time or an order has done to a group. `rekey` has just begun, and `second` behind it, under its new KEK."""

    new_keys: bool = False
    departed: tuple[Member, ...] = ()
    rekey: Rekey | None = None
    second: Rekey | None = None


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
        group_check.check(configuration)
        self.configuration = configuration
        self.members = Members()
        self.kek: KeyEncryptionKey | None = None
        self.revoked: set[IPv4Address] = set()
        self.signing_key = signing_key
        # What the KEK's rekeys are signed with: members hold its public half.
        self._signer = signing_key
        self._teks = TrafficKeys(configuration.identity, random, timing)
        self._under_way = RekeysUnderWay(self.members, timing)
        self._sender_ids = SenderIds()
        self._clock = GroupClock(random, timing)
        self._tree = key_encryption.new_tree(configuration, random)
        self._random = random
        self._timing = timing
        # What the configuration said when the newest keys were made: a change waits for the next rekey.
        self._serving = configuration
        self._sas: tuple[SaIpsec, ...] = access_lists.honoured(configuration)

    @property
    def generations(self) -> list[Generation]:
        """The TEKs that live."""
        return self._teks.generations

    @property
    def rekeys(self) -> list[Rekey]:
        """Rekeys on their way."""
        return self._under_way.rekeys

    @property
    def rekeys_begun(self) -> int:
        """How many rekeys there have been."""
        return self._under_way.begun

    @property
    def sender_ids_given(self) -> int:
        """How many sender IDs are taken."""
        return self._sender_ids.given

    @property
    def tree(self) -> KeyTree | None:
        """The key tree, where the group has one. For reading."""
        return self._tree

    @property
    def pseudotime(self) -> Pseudotime | None:
        """The clock of time stamps, since keys first needed one."""
        return self._clock.pseudotime

    @property
    def shares_a_window(self) -> bool:
        """True where the packets of all members are counted in one anti-replay window."""
        return group_clock.shares_a_window(self._sas)

    @property
    def uses_counter_mode(self) -> bool:
        """True where members need sender IDs."""
        return any(sa.transform.uses_counter_mode for sa in self._sas)

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
        deadlines = self._teks.ends()
        deadlines += [] if self.kek is None else [self.kek.expires]
        rekeys = self._under_way.next_deadline()
        deadlines += [] if rekeys is None else [rekeys]
        if self.members and self.generations:
            deadlines.append(self._tek_due())
        if self.members and self.kek is not None:
            deadlines.append(self._kek_due(self.kek))
        if self.members and self._can_tell and self._clock.due is not None:
            deadlines.append(self._clock.due)
        return min(deadlines, default=None)

    def advance(self, now: float) -> Change:
        """Drop what has ended; a group that still has members gets the keys that are due."""
        departed = self._drop(now)
        if not self.members:
            return Change(departed=departed)
        made, rekey = self._make(now)
        if not made and self._can_tell and self._clock.due is not None and now >= self._clock.due:
            # Nothing is new but the time: members' clocks drift (reference 7.3).
            self._clock.tell(now)
            rekey = self._start_rekey(self.kek, now)
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
        self._teks.drop(now)
        asked = self._can_tell and ack_type(self._serving.rekey) is not None
        departed = tuple(member for member in self.members.without_keys(now) if not (asked and member.answers))
        for member in departed:
            self._under_way.forget(member)
        return departed

    def _make(self, now: float) -> tuple[bool, Rekey | None]:
        under = self.kek
        teks, kek = self._due(now)
        if teks or kek:
            # What is due a moment later travels along: two rekeys at once might overtake each other.
            teks, kek = self._due(now + self._timing.together)
        if teks:
            self._renew_teks(now, teks)
        if kek and self.signing_key is not None:
            self._replace_kek(now, self.signing_key)
        made = bool(teks) or kek
        return made, self._start_rekey(under, now) if made else None

    def _due(self, now: float) -> tuple[set[int], bool]:
        """The `sa ipsec` entries that it is time for new TEKs of, and whether it is for a new KEK."""
        budget = self._budget()
        teks = {sa.number for sa in self._sas if now >= self._teks.due(sa, budget)}
        kek = self.signing_key is not None and (self.kek is None or now >= self._kek_due(self.kek))
        return teks, kek

    # A timer set for one of these moments finds it come: deadline and decision are one expression, rounding included.

    def _tek_due(self) -> float:
        budget = self._budget()
        return min(self._teks.due(sa, budget) for sa in self._sas)

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

    def _renew_teks(self, now: float, due: Collection[int] | None = None, *, told: bool = True) -> None:
        """Make TEKs for the `sa ipsec` entries that are due (None: for all), and for those that are new or changed.

        `told`: members will have them with a rekey, and count the delays from then.
        """
        self._serving = self.configuration
        self._sas = access_lists.honoured(self._serving)
        renewed = {sa.number for sa in self._sas} if due is None else due
        delay = self._serving.deactivation_delay
        # Members take the replaced keys out by then: those who come later get no more of them (reference 4.6).
        ends = now + delay if delay and told and self.sends_rekeys else None
        self._teks.make(self._sas, renewed, now, ends)
        self._clock.serve(self._sas, now)

    def _replace_kek(self, now: float, signing_key: crypto.RsaPrivateKey) -> None:
        self._signer = signing_key
        self.kek = key_encryption.new_kek(self.configuration, signing_key, self._random, now)
        if not key_encryption.suits(self._tree, self.configuration):
            # Members are in the new tree once they have registered again.
            self._tree = key_encryption.new_tree(self.configuration, self._random)

    def sa_payload(self, now: float, *, private: bool, with_kek: bool = True) -> GdoiSa:
        """What members are told. `private`: the peer knows our code points, so deny entries can be told too."""
        kek = None
        if with_kek and self.kek is not None and self._signer is not None:
            kek = encoding.sa_kek(self.kek, self._serving.address, self._signer.public.bits, now)
        # Members that register for each key have it at different times: what delays there may be, they do not share.
        delays = (self._serving.activation_delay, self._serving.deactivation_delay) if self.sends_rekeys else (0, 0)
        teks = self._teks.policy(
            self._sas, now, private=private, receive_only=self._serving.receive_only, clock=self._clock.pseudotime
        )
        return GdoiSa(kek, encoding.gap(*delays), teks)

    def key_packets(self, *, with_kek: bool = True) -> tuple[KeyPacket, ...]:
        """KEK and TEKs of what `sa_payload` says at the same moment."""
        packets = (encoding.kek_packet(self.kek),) if with_kek and self.kek is not None else ()
        return packets + self._teks.packets(self._sas)

    def in_tree(self, packets: tuple[KeyPacket, ...], address: IPv4Address) -> tuple[KeyPacket, ...]:
        """`packets` as a member of the key tree gets them: it is given a leaf. Only who has proved to be alive is asked
        about (RFC 6407 7.2.5)."""
        return packets if self._tree is None else key_encryption.in_tree(self._tree, packets, address)

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
        self._clock.tell(now)
        under = replace(under, sequence=under.sequence + 1)
        if self.kek is not None and self.kek.spi == under.spi:
            self.kek = under
        # For those who know our code points, and for those who do not; a multicast rekey has one form for all.
        forms = (True, False) if under.address is None else (self.members.all_private,)
        sas: dict[bool, GdoiSa | None] = {
            private: self.sa_payload(now, private=private, with_kek=with_kek) if with_sa else None for private in forms
        }
        keys = KeyDownload(self.key_packets(with_kek=with_kek)) if with_sa else None
        built: dict[bool, bytes] = {}

        def datagram(private: bool) -> bytes:
            if private not in built:
                built[private] = push.build(push.Push(under.sequence, deletes, sas[private], keys), under, key)
            return built[private]

        started = self._under_way.launch(under, datagram, self._serving.rekey, now)
        if started.acknowledgement is None:
            self.members.all_hold(self._teks.expires)
        return started

    def transmit(self, now: float) -> tuple[list[tuple[IPv4Address, bytes]], tuple[Member, ...]]:
        """Copies of rekeys that have to leave now, and members that have missed too many."""
        return self._under_way.transmit(now)

    def asked_under(self, spi: bytes) -> bool:
        """Does a rekey under the KEK with this SPI wait for acknowledgements?"""
        return self._under_way.asked_under(spi)

    def acknowledge(self, data: bytes, spi: bytes, source: IPv4Address, now: float) -> Member | None:
        """Take an acknowledgement. None for duplicates. Raises PeerError for what none of our rekeys asked for."""
        member = self._under_way.acknowledge(data, spi, source, now)
        if member is not None:
            self.members.hold(member, self._teks.expires)
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
            self._teks.generations = []
        elif self.members:
            self._teks.shorten(now)
        self._renew_teks(now)
        if self.signing_key is not None and (self.kek is None or self._kek_outdated(self.kek)):
            self._replace_kek(now, self.signing_key)
        deletes = (delete_teks(old),) if replace_now and old else ()
        return Change(True, (), self._start_rekey(under, now, deletes=deletes, signer=signer))

    def _kek_outdated(self, kek: KeyEncryptionKey) -> bool:
        return key_encryption.outdated(kek, self.configuration) or self._signer is not self.signing_key

    def clear_members(self, now: float, *, immediate: bool = False) -> Change:
        """`clear crypto gdoi ks members`: forget every member, and have them come back for keys.

        They go on under the shortened TEKs of before or, `immediate`, lose everything at once. Members that cannot be
        told are forgotten, and come back before their keys end.
        """
        under = self.kek
        departed = tuple(self.members.values())
        self._tree = key_encryption.new_tree(self.configuration, self._random)
        if not self._can_tell:
            self.members.clear()
            return Change(False, departed)
        if immediate and departed:
            rekey = self._wipe(now)
        else:
            if departed:
                self._teks.shorten(now)
            deletes = () if under is None else (Delete(DOI, numbers.SaProtocol.KEK, KEK_SPI_OCTETS, (under.spi,)),)
            rekey = self._start_rekey(under, now, deletes=deletes, with_kek=False)
            self._renew_teks(now, told=False)
        self.kek = None
        self.members.clear()
        if self.signing_key is not None:
            self._replace_kek(now, self.signing_key)
        return Change(True, departed, rekey)

    def _wipe(self, now: float) -> Rekey | None:
        """Take everything from every member."""
        rekey = self._start_rekey(self.kek, now, deletes=DELETE_ALL, with_sa=False)
        self._teks.generations = []
        self._renew_teks(now)
        return rekey

    def exclude(self, addresses: Iterable[IPv4Address], now: float, *, immediate: bool = False) -> Change:
        """Renew every key that these members have, so that the others go on without registering again.

        The old TEKs live on shortened or, `immediate`, end with the rekey. Where there is no key tree, or no way to
        send rekeys, all members come back for new keys: `clear_members`.
        """
        tree, under, signer = self._tree, self.kek, self._signer
        able = self._can_tell and self.signing_key is not None and key_encryption.suits(tree, self.configuration)
        if tree is None or under is None or signer is None or self.signing_key is None or not able:
            return self.clear_members(now, immediate=immediate)
        gone = [address for address in addresses if address in self.members or address in tree]
        if not gone:
            return Change()  # whoever it is holds nothing
        departed = [member for address in gone if (member := self.members.get(address)) is not None]
        for member in departed:
            self._under_way.forget(member)
        members = self.members.items()
        leaves = {address: tree.leaf(address) for address, member in members if address in tree and member.private}
        strangers = {address: member.private for address, member in members if address not in leaves}
        update = tree.exclude(gone)
        multicast = under.address is not None
        if multicast and ((immediate and strangers) or not fits_one_datagram(update, tree.key_octets)):
            change = self.clear_members(now, immediate=immediate)
            return replace(change, departed=(*departed, *change.departed))
        self._teks.shorten(now)
        old = list(self.generations)
        farewell = self._farewell(under, now, immediate=immediate)
        self._replace_kek(now, self.signing_key)
        first = None
        if self.members and self.kek is not None:
            bits = self.signing_key.public.bits
            sak = encoding.sa_kek(self.kek, self._serving.address, bits, now, in_tree=True)
            under = replace(under, sequence=under.sequence + 1)
            told = Exclusion(update, self.kek, sak, leaves, strangers, farewell).datagrams(under, signer)
            first = self._under_way.launch_to_each(under, told, self._serving.rekey, now)
        departed += self.members.leave(strangers)
        if immediate:
            self._teks.generations = []
        self._renew_teks(now)
        deletes = (delete_teks(old),) if immediate and old else ()
        return Change(True, tuple(departed), first, self._start_rekey(self.kek, now, deletes=deletes))

    def _farewell(self, under: KeyEncryptionKey, now: float, *, immediate: bool) -> Farewell:
        """What members that are in no tree are told: as `clear_members` does it."""
        if immediate:
            return Farewell(DELETE_ALL, {True: None, False: None}, ())
        sas = {private: self.sa_payload(now, private=private, with_kek=False) for private in (True, False)}
        delete = Delete(DOI, numbers.SaProtocol.KEK, KEK_SPI_OCTETS, (under.spi,))
        return Farewell((delete,), dict(sas), self.key_packets(with_kek=False))

    def exclude_departed(self, now: float) -> Change | None:
        """Exclude those from the tree that are members no more (three missed rekeys, keys that ended). None: nobody."""
        forgotten, self._under_way.forgotten = self._under_way.forgotten, set()
        tree = self._tree
        gone = [
            address for address in forgotten if address not in self.members and tree is not None and address in tree
        ]
        return self.exclude(gone, now) if gone else None

    def reconfigure(self, configuration: KeyServerGroup) -> bool:
        """Another policy from the next keys on (reference/cisco-getvpn.md 2.5). True if it is another one.

        Raises LocalError, changing nothing, for one that no group can keep.
        """
        group_check.check(configuration)
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
        self.members.registered(member, private=private)
        member.missed = 0
        self.members.hold(member, self._teks.expires)
        self._under_way.joined(address, rekeys_seen, now)
        return member

    def take_sender_ids(self, count: int) -> tuple[int, ...]:
        """Sender IDs that nobody had before: KSSID in front, a counter behind. Raises SenderIdsExhausted."""
        return self._sender_ids.take(self.configuration, count)

    def start_over(self, now: float) -> Change:
        """New keys under which every sender ID is free again (RFC 6407 3.5). Members have to register anew."""
        change = self.clear_members(now, immediate=True)
        if not change.new_keys:
            self._teks.generations = []
            self._renew_teks(now)
            change = replace(change, new_keys=True)
        self._sender_ids = SenderIds()
        return change
