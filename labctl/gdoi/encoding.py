"""Policy and keys to payloads: what a key server says (RFC 6407 5.3-5.6; reference 3.4-3.8)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address

from labctl.configuration import AccessListEntry, Cipher, Encryption, GroupIdentity, Integrity, Replay, ReplayMethod
from labctl.gdoi import numbers
from labctl.gdoi.key_tree import Cover
from labctl.gdoi.numbers import (
    GapAttribute,
    KdType,
    KekAttribute,
    KekKey,
    LkhAttribute,
    SaAttribute,
    SaProtocol,
    SidKey,
    TekKey,
)
from labctl.gdoi.payloads import GroupAssociatedPolicy, KeyPacket, LkhDownloadArray, SaKek, SaTek, Selector
from labctl.gdoi.policy import KeyEncryptionKey, TrafficEncryptionKey
from labctl.gdoi.pseudotime import Pseudotime
from labctl.gdoi.tree_key import TreeKey, update_array
from labctl.isakmp.attributes import Attribute
from labctl.isakmp.datagram import GDOI_PORT
from labctl.isakmp.payloads import Identification, IdType

UNSPECIFIED = IPv4Address("0.0.0.0")


def group_identity(identity: GroupIdentity) -> Identification:
    """The ID payload of a group: a four-octet KEY_ID in network order, or an address (reference 3.2)."""
    if identity.address is not None:
        return Identification(IdType.IPV4_ADDR, identity.address.packed)
    return Identification(IdType.KEY_ID, (identity.number or 0).to_bytes(4, "big"))


def seconds_left(expires: float, now: float) -> int:
    """Whole seconds of life left, at least one: always the remaining life is sent (reference 3.6)."""
    return max(1, int(expires - now))


def sa_kek(
    kek: KeyEncryptionKey, source: IPv4Address, signature_bits: int, now: float, *, in_tree: bool = False
) -> SaKek:
    """The policy of rekeys. Their destination is 0.0.0.0 where each member gets its own copy (reference 3.4).

    `in_tree`: the KEK itself comes in arrays of the key tree. A registration never says so (RFC 6407 5.3.1).
    """
    destination = kek.address or UNSPECIFIED
    attributes = [Attribute.tv(KekAttribute.MANAGEMENT_ALGORITHM, numbers.MANAGEMENT_LKH)] if in_tree else []
    attributes.append(Attribute.tv(KekAttribute.ALGORITHM, numbers.KEK_ALGORITHMS[kek.encryption]))
    if kek.encryption is Encryption.AES_CBC:
        attributes.append(Attribute.tv(KekAttribute.KEY_LENGTH, len(kek.key) * 8))
    attributes += [
        Attribute.tlv(KekAttribute.KEY_LIFETIME, seconds_left(kek.expires, now).to_bytes(4, "big")),
        Attribute.tv(KekAttribute.SIG_HASH_ALGORITHM, numbers.SIGNATURE_HASHES[kek.signature_hash]),
        Attribute.tv(KekAttribute.SIG_ALGORITHM, numbers.SIGNATURE_RSA),
        Attribute.tv(KekAttribute.SIG_KEY_LENGTH, signature_bits),
    ]
    if kek.acknowledgement is not None:
        attributes.append(Attribute.tv(KekAttribute.ACK_REQUESTED, kek.acknowledgement))
    kind = IdType.IPV4_ADDR
    return SaKek(kind, source.packed, GDOI_PORT, kind, destination.packed, GDOI_PORT, kek.spi, tuple(attributes))


def gap(activation_delay: int, deactivation_delay: int) -> GroupAssociatedPolicy | None:
    """The delays, where there are any."""
    values = {
        GapAttribute.ACTIVATION_TIME_DELAY: activation_delay,
        GapAttribute.DEACTIVATION_TIME_DELAY: deactivation_delay,
    }
    values = {kind: value for kind, value in values.items() if value}
    return GroupAssociatedPolicy.of(values) if values else None


def sa_tek(
    entry: AccessListEntry,
    tek: TrafficEncryptionKey,
    now: float,
    order: int | None,
    *,
    receive_only: bool = False,
    clock: Pseudotime | None = None,
) -> SaTek:
    """A permit entry under its TEK. `order` and anti-replay are private attributes, for peers that announced them.

    `clock` is what time stamps under the TEK are of.

    `receive_only`: members take the key for decryption alone and send in clear (reference/cisco-getvpn.md 2.7).
    """
    transform = tek.transform
    attributes = [
        Attribute.tv(SaAttribute.LIFE_TYPE, numbers.LIFE_SECONDS),
        Attribute.tlv(SaAttribute.LIFE_DURATION, seconds_left(tek.expires, now).to_bytes(4, "big")),
        Attribute.tv(SaAttribute.ENCAPSULATION_MODE, numbers.TUNNEL_MODE),
    ]
    if transform.integrity is not Integrity.NONE:
        attributes.append(
            Attribute.tv(SaAttribute.AUTHENTICATION_ALGORITHM, numbers.AUTHENTICATIONS[transform.integrity])
        )
    if transform.cipher in numbers.SIZED_CIPHERS:
        attributes.append(Attribute.tv(SaAttribute.KEY_LENGTH, transform.key_bits))
    attributes += [
        Attribute.tv(SaAttribute.ADDRESS_PRESERVATION, numbers.PRESERVE_BOTH),
        Attribute.tv(SaAttribute.SA_DIRECTION, numbers.RECEIVER_ONLY if receive_only else numbers.SYMMETRIC),
    ]
    if order is not None:
        attributes += [*_replay(tek.replay, clock, now), Attribute.tv(SaAttribute.POLICY_ORDER, order)]
    return SaTek(
        SaProtocol.ESP,
        entry.protocol,
        Selector.of(entry.source, entry.source_port),
        Selector.of(entry.destination, entry.destination_port),
        numbers.TRANSFORMS[transform.cipher],
        tek.spi.to_bytes(4, "big"),
        tuple(attributes),
    )


def _replay(replay: Replay, clock: Pseudotime | None, now: float) -> list[Attribute]:
    """What members are told of anti-replay (reference 7.3); nothing where there is none."""
    if replay.method is ReplayMethod.NONE:
        return []
    attributes = [
        Attribute.tv(SaAttribute.REPLAY_MODE, numbers.REPLAY_MODES[replay.method]),
        Attribute.tv(SaAttribute.REPLAY_WINDOW, replay.window),
    ]
    if replay.method is ReplayMethod.TIME and clock is not None:
        attributes.append(Attribute.tlv(SaAttribute.PSEUDOTIME, clock.pack(now)))
    return attributes


def sa_bypass(entry: AccessListEntry, order: int) -> SaTek:
    """A deny entry, in our private form (reference 3.6)."""
    return SaTek(
        SaProtocol.BYPASS,
        entry.protocol,
        Selector.of(entry.source, entry.source_port),
        Selector.of(entry.destination, entry.destination_port),
        0,
        bytes(4),
        (Attribute.tv(SaAttribute.POLICY_ORDER, order),),
    )


def kek_packet(kek: KeyEncryptionKey) -> KeyPacket:
    """KEK: IV | key, and the public key that verifies rekeys (reference 3.7)."""
    return KeyPacket(
        KdType.KEK,
        kek.spi,
        (
            Attribute.tlv(KekKey.ALGORITHM_KEY, kek.iv + kek.key),
            Attribute.tlv(KekKey.SIG_ALGORITHM_KEY, kek.signature_key),
        ),
    )


def path_packet(kek: KeyPacket, encryption: Encryption, path: Iterable[TreeKey]) -> KeyPacket:
    """What a member of a key tree is given for the KEK packet: its keys, of which the KEK is the last (RFC 6407 5.6.3).

    `path`: from the leaf to below the root.
    """
    root = TreeKey.of_root(kek.spi, encryption, kek.octets(KekKey.ALGORITHM_KEY) or b"")
    array = LkhDownloadArray(tuple(key.in_clear() for key in (*path, root)))
    return KeyPacket(
        KdType.LKH,
        kek.spi,
        (
            Attribute.tlv(LkhAttribute.DOWNLOAD_ARRAY, array.pack()),
            Attribute.tlv(LkhAttribute.SIG_ALGORITHM_KEY, kek.octets(KekKey.SIG_ALGORITHM_KEY) or b""),
        ),
    )


def update_packet(kek: KeyEncryptionKey, covers: Iterable[Cover]) -> KeyPacket:
    """A new KEK for those below the covers alone, and the public key that verifies rekeys under it."""
    root = TreeKey.of_root(kek.spi, kek.encryption, kek.iv + kek.key)
    arrays = [update_array(cover.header, (*cover.keys, root)).pack() for cover in covers]
    attributes = [Attribute.tlv(LkhAttribute.UPDATE_ARRAY, array) for array in arrays]
    attributes.append(Attribute.tlv(LkhAttribute.SIG_ALGORITHM_KEY, kek.signature_key))
    return KeyPacket(KdType.LKH, kek.spi, tuple(attributes))


def tek_packet(tek: TrafficEncryptionKey) -> KeyPacket:
    """TEK: cipher key with salt, integrity key. GMAC's key travels as integrity key (reference 3.7)."""
    attributes = []
    if tek.transform.cipher is Cipher.AES_GMAC:
        attributes.append(Attribute.tlv(TekKey.INTEGRITY_KEY, tek.encryption_key))
    else:
        if tek.encryption_key:
            attributes.append(Attribute.tlv(TekKey.ALGORITHM_KEY, tek.encryption_key))
        if tek.integrity_key:
            attributes.append(Attribute.tlv(TekKey.INTEGRITY_KEY, tek.integrity_key))
    return KeyPacket(KdType.TEK, tek.spi.to_bytes(4, "big"), tuple(attributes))


def sid_packet(bits: int, sender_ids: Sequence[int]) -> KeyPacket:
    """Sender IDs: their width, and each right-aligned in whole octets (reference 3.7)."""
    octets = (bits + 7) // 8
    values = tuple(Attribute.tlv(SidKey.SID_VALUE, number.to_bytes(octets, "big")) for number in sender_ids)
    return KeyPacket(KdType.SID, b"", (Attribute.tv(SidKey.NUMBER_OF_SID_BITS, bits), *values))
