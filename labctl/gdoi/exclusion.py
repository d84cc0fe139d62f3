"""Leaving members out of a group with a key tree: what each of the others is sent (RFC 6407 7.4.1; reference 4.6, 5).

Two rekeys. The first, under the KEK that those left out still hold, brings the new KEK in arrays that they cannot open,
and no TEK that they do not know. The second, under the new KEK, brings new TEKs. Unicast copies of the first hold one
array, the receiver's; a multicast one holds all.

Members that are in no tree ("strangers": their software announces nothing of it, or they came when the tree was full or
not there yet) cannot take part: the first rekey takes the KEK from them, and they come back for another, as all members
do in groups without a tree.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import IPv4Address

from labctl import crypto
from labctl.gdoi import encoding, push
from labctl.gdoi.key_tree import Cover, Update
from labctl.gdoi.payloads import GdoiSa, KeyDownload, KeyPacket, SaKek
from labctl.gdoi.payloads.lkh_key import LKH_KEY_HEADER_OCTETS, MAX_LKH_KEYS
from labctl.gdoi.policy import KeyEncryptionKey
from labctl.isakmp.attributes import MAX_ATTRIBUTES
from labctl.isakmp.payloads import Delete

# What one datagram may bring: one attribute of a key packet is the public key, and lengths have 16 bits.
MOST_ARRAYS = MAX_ATTRIBUTES - 1
MOST_UPDATE_OCTETS = 48_000


@dataclass(frozen=True, slots=True)
class Farewell:
    """What strangers are told: the KEK is taken from them; what is left of the old TEKs' lives. By `private`."""

    deletes: tuple[Delete, ...]
    sas: dict[bool, GdoiSa | None]
    packets: tuple[KeyPacket, ...] = field(repr=False)

    def push(self, sequence: int, *, private: bool) -> push.Push:
        """As a rekey of its own."""
        sa = self.sas[private]
        return push.Push(sequence, self.deletes, sa, None if sa is None else KeyDownload(self.packets))


@dataclass(frozen=True, slots=True)
class Exclusion:
    """The first of the two rekeys. `leaves` of those in the tree, `strangers` by whether they know our code points."""

    update: Update
    kek: KeyEncryptionKey
    sak: SaKek
    leaves: dict[IPv4Address, int]
    strangers: dict[IPv4Address, bool]
    farewell: Farewell

    def datagrams(self, under: KeyEncryptionKey, signing_key: crypto.RsaPrivateKey) -> Callable[[IPv4Address], bytes]:
        """The octets for a receiver, which may be a multicast group. Built when first asked for, and kept."""
        built: dict[object, bytes] = {}

        def datagram(receiver: IPv4Address) -> bytes:
            key, told = self._told(receiver, under.sequence)
            if key not in built:
                built[key] = push.build(told, under, signing_key)
            return built[key]

        return datagram

    def _told(self, receiver: IPv4Address, sequence: int) -> tuple[object, push.Push]:
        if receiver in self.strangers:
            private = self.strangers[receiver]
            return private, self.farewell.push(sequence, private=private)
        leaf = self.leaves.get(receiver)
        cover = None if leaf is None else self.update.cover_of(leaf)
        if cover is not None:
            return cover.header, self._push(sequence, (cover,))
        return None, self._push(sequence, tuple(self.update.covers.values()), with_strangers=bool(self.strangers))

    def _push(self, sequence: int, covers: tuple[Cover, ...], *, with_strangers: bool = False) -> push.Push:
        packet = encoding.update_packet(self.kek, covers)
        goodbye = self.farewell.sas[False] if with_strangers else None
        if goodbye is None:
            return push.Push(sequence, (), GdoiSa(self.sak, None, ()), KeyDownload((packet,)))
        sa = GdoiSa(self.sak, goodbye.gap, goodbye.teks)
        return push.Push(sequence, self.farewell.deletes, sa, KeyDownload((packet, *self.farewell.packets)))


def fits_one_datagram(update: Update, key_octets: int) -> bool:
    """Can all arrays travel together, as they must where rekeys are multicast?"""
    entry = LKH_KEY_HEADER_OCTETS + key_octets + MAX_LKH_KEYS
    return len(update.covers) <= MOST_ARRAYS and update.keys * entry <= MOST_UPDATE_OCTETS
