"""The KEK that a configuration asks for: making one, and telling whether one is still what is asked for.

RFC 6407 5.3, 5.6.3; reference 3.4, 3.7.
"""

from __future__ import annotations

from ipaddress import IPv4Address

from labctl import crypto
from labctl.configuration import Encryption, KeyServerGroup, RekeyPolicy, RekeyTransport
from labctl.gdoi import encoding
from labctl.gdoi.key_tree import KeyTree, TreeFull
from labctl.gdoi.numbers import KdType, KekKey
from labctl.gdoi.payloads import KeyPacket
from labctl.gdoi.payloads.sa_kek import KEK_SPI_OCTETS
from labctl.gdoi.policy import KeyEncryptionKey
from labctl.gdoi.rekeying import ack_type
from labctl.gdoi.tree_key import iv_octets
from labctl.isakmp.main_mode import RandomSource


def new_kek(
    configuration: KeyServerGroup, signing_key: crypto.RsaPrivateKey, random: RandomSource, now: float
) -> KeyEncryptionKey:
    """A KEK for the group, whose rekeys `signing_key` signs."""
    rekey = configuration.rekey
    return KeyEncryptionKey(
        random(KEK_SPI_OCTETS),
        rekey.encryption,
        random(iv_octets(rekey.encryption)),
        random(key_octets(rekey)),
        rekey.signature_hash,
        signing_key.public.der,
        rekey.lifetime,
        now + rekey.lifetime,
        source=configuration.address,
        address=rekey.address if rekey.transport is RekeyTransport.MULTICAST else None,
        acknowledgement=ack_type(rekey),
    )


def new_tree(configuration: KeyServerGroup, random: RandomSource) -> KeyTree | None:
    """An empty key tree, for a group that is to have one, with keys of the KEK's size."""
    rekey = configuration.rekey
    return KeyTree(rekey.encryption, key_octets(rekey), random) if rekey.key_tree else None


def in_tree(tree: KeyTree, packets: tuple[KeyPacket, ...], address: IPv4Address) -> tuple[KeyPacket, ...]:
    """`packets` with the member's path for the KEK; the same where it cannot be in the tree."""
    kek = next((packet for packet in packets if packet.kind == KdType.KEK), None)
    size = tree.key_octets + iv_octets(tree.encryption)
    if kek is None or len(kek.octets(KekKey.ALGORITHM_KEY) or b"") != size:
        return packets
    try:
        path = tree.join(address)
    except TreeFull:
        return packets
    others = tuple(packet for packet in packets if packet is not kek)
    return (encoding.path_packet(kek, tree.encryption, path), *others)


def suits(tree: KeyTree | None, configuration: KeyServerGroup) -> bool:
    """Is this the kind of tree (or none) that the configuration asks for?"""
    rekey = configuration.rekey
    if tree is None or not rekey.key_tree:
        return tree is None and not rekey.key_tree
    return (tree.encryption, tree.key_octets) == (rekey.encryption, key_octets(rekey))


def key_octets(rekey: RekeyPolicy) -> int:
    """Octets of the KEK without its IV."""
    return rekey.key_bits // 8 if rekey.encryption is Encryption.AES_CBC else 24


def outdated(kek: KeyEncryptionKey, configuration: KeyServerGroup) -> bool:
    """Does the configuration ask for another KEK than this?"""
    rekey = configuration.rekey
    address = rekey.address if rekey.transport is RekeyTransport.MULTICAST else None
    bits = rekey.key_bits if rekey.encryption is Encryption.AES_CBC else 192
    wanted = (rekey.encryption, bits, rekey.signature_hash, address, ack_type(rekey), rekey.lifetime)
    there = (kek.encryption, len(kek.key) * 8, kek.signature_hash, kek.address, kek.acknowledgement, kek.lifetime)
    return wanted != there
