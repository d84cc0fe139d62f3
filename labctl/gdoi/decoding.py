"""Payloads to policy and keys: what a member makes of a registration or a rekey, and what it refuses.

RFC 6407 5.3-5.6. Unknown algorithms and attributes make a conforming member refuse the policy.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address

from labctl import crypto
from labctl.configuration import (
    MOST_PERMITS,
    AccessListEntry,
    Action,
    Cipher,
    Encryption,
    Hash,
    Integrity,
    Replay,
    ReplayMethod,
    TransformSet,
)
from labctl.gdoi import numbers
from labctl.gdoi.key_path import KeyPath, NotAddressed
from labctl.gdoi.numbers import (
    LONGEST_LIFE_SECONDS,
    SENDER_ID_BITS,
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
from labctl.gdoi.payloads import (
    GdoiSa,
    KeyDownload,
    KeyPacket,
    LkhDownloadArray,
    LkhUpdateArray,
    SaKek,
    SaTek,
)
from labctl.gdoi.policy import GroupKeys, KeyEncryptionKey, PolicyRule, TrafficEncryptionKey
from labctl.gdoi.pseudotime import NOTHING_SAID, ReplayPolicy, ToldTime, read_pseudotime
from labctl.gdoi.tree_key import iv_octets
from labctl.isakmp.attributes import Attribute, single
from labctl.isakmp.errors import MalformedMessage, NotifyType, PeerError
from labctl.isakmp.payloads import IdType
from labctl.isakmp.reader import Reader

MAX_SENDER_IDS = 64

UNDERSTOOD_TEK = {
    SaAttribute.LIFE_TYPE,
    SaAttribute.LIFE_DURATION,
    SaAttribute.GROUP_DESCRIPTION,
    SaAttribute.ENCAPSULATION_MODE,
    SaAttribute.AUTHENTICATION_ALGORITHM,
    SaAttribute.KEY_LENGTH,
    SaAttribute.ADDRESS_PRESERVATION,
    SaAttribute.SA_DIRECTION,
    SaAttribute.REPLAY_MODE,
    SaAttribute.REPLAY_WINDOW,
    SaAttribute.PSEUDOTIME,
    SaAttribute.POLICY_ORDER,
}
UNDERSTOOD_KEK = frozenset(KekAttribute)

# From the wire's numbers to our names.
_KEK_ALGORITHMS = {number: name for name, number in numbers.KEK_ALGORITHMS.items()}
_SIGNATURE_HASHES = {number: name for name, number in numbers.SIGNATURE_HASHES.items()}
_TRANSFORMS = {number: name for name, number in numbers.TRANSFORMS.items()}
_AUTHENTICATIONS = {number: name for name, number in numbers.AUTHENTICATIONS.items()}
_REPLAY_MODES = {number: name for name, number in numbers.REPLAY_MODES.items()}


class PolicyRefused(PeerError):
    """The policy is well-formed and not acceptable."""

    notify = NotifyType.NO_PROPOSAL_CHOSEN


@dataclass(frozen=True, slots=True)
class KekPolicy:
    """SAK, understood."""

    spi: bytes
    encryption: Encryption
    key_octets: int
    signature_hash: Hash
    lifetime: int
    source: IPv4Address | None = None
    address: IPv4Address | None = None
    acknowledgement: int | None = None
    # The KEK comes in arrays of a key tree (in a rekey; registrations do not say it).
    in_tree: bool = False

    @property
    def data_octets(self) -> int:
        """Octets of IV and key."""
        return iv_octets(self.encryption) + self.key_octets


@dataclass(frozen=True, slots=True)
class TekPolicy:
    """One SAT, understood. `spi` and `transform` are None for a deny entry."""

    entry: AccessListEntry
    spi: int | None
    transform: TransformSet | None
    lifetime: int
    order: int | None = None
    receive_only: bool = False
    replay: ReplayPolicy = NOTHING_SAID


@dataclass(frozen=True, slots=True)
class Policy:
    """A whole SA payload, understood. Holds no key."""

    kek: KekPolicy | None
    teks: tuple[TekPolicy, ...]
    activation_delay: int = 0
    deactivation_delay: int = 0
    received: float = field(default=0.0)
    # Permit entries beyond those that a member has room for.
    ignored: int = 0

    @property
    def needs_sender_id(self) -> bool:
        """True where a SAT is of a counter mode (RFC 6407 5.6.4.4)."""
        return any(tek.transform is not None and tek.transform.uses_counter_mode for tek in self.teks)

    @property
    def told(self) -> ToldTime | None:
        """What the clock of the group's time stamps shows."""
        stamped = [tek.replay for tek in self.teks if tek.replay.epoch is not None]
        if not stamped or stamped[0].epoch is None:
            return None
        window = min(item.replay.window for item in stamped)
        return ToldTime(stamped[0].epoch, stamped[0].seconds, self.received, window)


def read_policy(sa: GdoiSa, now: float) -> Policy:
    """Understand an SA payload that came at `now`. Raises PeerError."""
    delays = (0, 0)
    if sa.gap is not None:
        if sa.gap.unknown:
            raise PolicyRefused(f"GAP attributes {sa.gap.unknown}", NotifyType.ATTRIBUTES_NOT_SUPPORTED)
        delays = (
            sa.gap.value(GapAttribute.ACTIVATION_TIME_DELAY) or 0,
            sa.gap.value(GapAttribute.DEACTIVATION_TIME_DELAY) or 0,
        )
    kek = None if sa.kek is None else read_kek(sa.kek)
    teks = [read_tek(tek) for tek in sa.teks]
    transforms: dict[int | None, TransformSet | None] = {}
    for tek in teks:
        if transforms.setdefault(tek.spi, tek.transform) != tek.transform:
            raise PolicyRefused(f"two transforms for SPI {tek.spi:#010x}")
    if len({(tek.replay.epoch, tek.replay.seconds) for tek in teks if tek.replay.epoch is not None}) > 1:
        raise PolicyRefused("two pseudotimes in one message")
    # A key server that knows our private order says it of every entry; else entries count as they come.
    if all(tek.order is not None for tek in teks):
        teks.sort(key=lambda tek: tek.order or 0)
    kept, ignored = _bounded(teks)
    return Policy(kek, kept, *delays, now, ignored)


def require_family(entries: Iterable[AccessListEntry], *, ipv6: bool) -> None:
    """Raises PolicyRefused for an entry of the other family: a crypto map has one (reference/cisco-getvpn.md 2.12)."""
    version = 6 if ipv6 else 4
    if any(entry.source.version != version for entry in entries):
        other = 4 if ipv6 else 6
        raise PolicyRefused(f"a policy of IPv{other} for a group that is IPv{version} here")


def _bounded(teks: list[TekPolicy]) -> tuple[tuple[TekPolicy, ...], int]:
    """The list up to the last permit that there is room for, and how many are left out (reference/cisco-getvpn.md 2.6).

    The same entry under the keys of before takes no room of its own.
    """
    permits = dict.fromkeys(tek.entry for tek in teks if tek.entry.action is Action.PERMIT)
    if len(permits) <= MOST_PERMITS:
        return tuple(teks), 0
    excess = set(list(permits)[MOST_PERMITS:])
    first = next(place for place, tek in enumerate(teks) if tek.entry in excess)
    kept = [*teks[:first], *(tek for tek in teks[first:] if tek.entry in permits and tek.entry not in excess)]
    return tuple(kept), len(excess)


def _number(attributes: tuple[Attribute, ...], kind: int) -> int | None:
    found = single(attributes, kind)
    return None if found is None else found.number


def read_kek(sak: SaKek) -> KekPolicy:
    """Understand SAK. Raises PolicyRefused for algorithms that we do not have (RFC 6407 5.3.2)."""
    unknown = [item.kind for item in sak.attributes if item.kind not in UNDERSTOOD_KEK]
    if unknown:
        raise PolicyRefused(f"SAK attributes {unknown}", NotifyType.ATTRIBUTES_NOT_SUPPORTED)
    algorithm = _number(sak.attributes, KekAttribute.ALGORITHM)
    encryption = _KEK_ALGORITHMS.get(algorithm or 0)
    if encryption is None:
        raise PolicyRefused(f"KEK algorithm {algorithm}")
    bits = _number(sak.attributes, KekAttribute.KEY_LENGTH)
    if encryption is Encryption.AES_CBC and bits not in numbers.AES_KEY_BITS:
        raise PolicyRefused(f"an AES KEK of {bits} bits")
    if encryption is Encryption.TRIPLE_DES and bits not in (None, 192):
        raise PolicyRefused(f"a 3DES KEK of {bits} bits")
    if _number(sak.attributes, KekAttribute.SIG_ALGORITHM) != numbers.SIGNATURE_RSA:
        raise PolicyRefused(f"signature algorithm {_number(sak.attributes, KekAttribute.SIG_ALGORITHM)}")
    hash_number = _number(sak.attributes, KekAttribute.SIG_HASH_ALGORITHM)
    signature_hash = _SIGNATURE_HASHES.get(hash_number or 0)
    if signature_hash is None:
        raise PolicyRefused(f"signature hash {hash_number}")
    lifetime = _lifetime(_number(sak.attributes, KekAttribute.KEY_LIFETIME) or 0, "a KEK")
    source, address = _address(sak.source_kind, sak.source), _address(sak.destination_kind, sak.destination)
    return KekPolicy(
        sak.spi,
        encryption,
        (bits or 192) // 8,
        signature_hash,
        lifetime,
        source,
        address if address is not None and address.is_multicast else None,
        _number(sak.attributes, KekAttribute.ACK_REQUESTED),
        _number(sak.attributes, KekAttribute.MANAGEMENT_ALGORITHM) == numbers.MANAGEMENT_LKH,
    )


def _address(kind: int, data: bytes) -> IPv4Address | None:
    return IPv4Address(data) if kind == IdType.IPV4_ADDR and len(data) == 4 else None


def read_tek(sat: SaTek) -> TekPolicy:
    """Understand a SAT. Raises PolicyRefused."""
    entry = sat.entry()
    if sat.sa_protocol == SaProtocol.BYPASS:
        return TekPolicy(entry, None, None, 0, _number(sat.attributes, SaAttribute.POLICY_ORDER))
    if sat.sa_protocol != SaProtocol.ESP:
        raise PolicyRefused("AH is not supported", NotifyType.INVALID_PROTOCOL_ID)
    unknown = [item.kind for item in sat.attributes if item.kind not in UNDERSTOOD_TEK]
    if unknown:
        raise PolicyRefused(f"SAT attributes {unknown}", NotifyType.ATTRIBUTES_NOT_SUPPORTED)

    def value(kind: SaAttribute, default: int) -> int:
        found = _number(sat.attributes, kind)
        return default if found is None else found

    cipher = _TRANSFORMS.get(sat.transform)
    if cipher is None:
        raise PolicyRefused(f"ESP transform {sat.transform}", NotifyType.INVALID_TRANSFORM_ID)
    if value(SaAttribute.ENCAPSULATION_MODE, numbers.TUNNEL_MODE) != numbers.TUNNEL_MODE:
        raise PolicyRefused("an encapsulation mode other than tunnel")
    if value(SaAttribute.ADDRESS_PRESERVATION, numbers.PRESERVE_BOTH) != numbers.PRESERVE_BOTH:
        raise PolicyRefused("an address preservation other than of both addresses")
    direction = value(SaAttribute.SA_DIRECTION, numbers.SYMMETRIC)
    if direction not in (numbers.RECEIVER_ONLY, numbers.SYMMETRIC):
        raise PolicyRefused("an SA direction other than symmetric and receiver-only")
    if value(SaAttribute.LIFE_TYPE, numbers.LIFE_SECONDS) != numbers.LIFE_SECONDS:
        raise PolicyRefused("a lifetime that is not in seconds")
    transform = _transform(cipher, value(SaAttribute.KEY_LENGTH, 0), value(SaAttribute.AUTHENTICATION_ALGORITHM, 0))
    lifetime = _lifetime(value(SaAttribute.LIFE_DURATION, numbers.DEFAULT_LIFE_SECONDS), "a TEK")
    order = _number(sat.attributes, SaAttribute.POLICY_ORDER)
    receive_only = direction == numbers.RECEIVER_ONLY
    return TekPolicy(entry, sat.spi_number, transform, lifetime, order, receive_only, _replay(sat.attributes))


def _replay(attributes: tuple[Attribute, ...]) -> ReplayPolicy:
    """What a SAT says of anti-replay. Raises PeerError."""
    method = _REPLAY_MODES.get(_number(attributes, SaAttribute.REPLAY_MODE) or 0)
    if method is None:
        raise PolicyRefused(f"replay mode {_number(attributes, SaAttribute.REPLAY_MODE)}")
    if method is ReplayMethod.NONE:
        return NOTHING_SAID
    replay = Replay(method, _number(attributes, SaAttribute.REPLAY_WINDOW) or 0)
    if not replay.is_possible:
        raise PolicyRefused(f"an anti-replay window of {replay}")
    if method is ReplayMethod.COUNTER:
        return ReplayPolicy(replay)
    told = single(attributes, SaAttribute.PSEUDOTIME)
    if told is None:
        raise PolicyRefused("time-based anti-replay without a pseudotime")
    return ReplayPolicy(replay, *read_pseudotime(told.value))


def _lifetime(seconds: int, what: str) -> int:
    if not 0 < seconds <= LONGEST_LIFE_SECONDS:
        raise PolicyRefused(f"{what} without lifetime" if not seconds else f"{what} with an absurd lifetime")
    return seconds


def _transform(cipher: Cipher, key_bits: int, authentication: int) -> TransformSet:
    integrity = _AUTHENTICATIONS.get(authentication)
    counter_mode = cipher in (Cipher.AES_GCM, Cipher.AES_GMAC)
    # GCM and GMAC bring their own integrity; an algorithm named beside GMAC (11-13) says the same again.
    if counter_mode:
        integrity = Integrity.NONE
    elif integrity is None:
        raise PolicyRefused(f"authentication algorithm {authentication}")
    if cipher in numbers.SIZED_CIPHERS and key_bits not in numbers.AES_KEY_BITS:
        raise PolicyRefused(f"an AES key of {key_bits} bits")
    fixed = {Cipher.TRIPLE_DES: 192, Cipher.NULL: 0}
    return TransformSet(cipher, fixed.get(cipher, key_bits), integrity)


def combine(policy: Policy, download: KeyDownload, sequence: int, held: GroupKeys | None = None) -> GroupKeys:
    """Policy and keys together. Packets that no policy names are ignored (RFC 6407 5.6). Raises PeerError.

    A rekey may leave out what the member holds: sender IDs always, a KEK that stays.
    """
    packets = {int.from_bytes(packet.spi, "big"): packet for packet in download.of(KdType.TEK)}
    teks: dict[int, TrafficEncryptionKey] = {}
    for tek in policy.teks:
        if tek.spi is None or tek.transform is None or tek.spi in teks:
            continue
        packet = packets.get(tek.spi)
        if packet is None:
            raise MalformedMessage(f"no key for SPI {tek.spi:#010x}")
        gmac = tek.transform.cipher is Cipher.AES_GMAC
        key = packet.octets(TekKey.ALGORITHM_KEY)
        if key is None:
            key = (packet.octets(TekKey.INTEGRITY_KEY) if gmac else None) or b""
        integrity = b"" if gmac else packet.octets(TekKey.INTEGRITY_KEY) or b""
        expected = (
            numbers.encryption_key_octets(tek.transform),
            numbers.INTEGRITY_OCTETS[tek.transform.integrity],
        )
        if (len(key), len(integrity)) != expected:
            raise MalformedMessage(f"keys of the wrong size for SPI {tek.spi:#010x}")
        expires = policy.received + tek.lifetime
        said = tek.replay
        teks[tek.spi] = TrafficEncryptionKey(
            tek.spi, tek.transform, key, integrity, tek.lifetime, expires, said.replay, said.epoch
        )
    bits, sender_ids = _sender_ids(download)
    if held is not None and not sender_ids:
        bits, sender_ids = held.sender_id_bits, held.sender_ids
    if policy.needs_sender_id and not sender_ids:
        raise MalformedMessage("a counter-mode policy without a sender ID")
    kek, path = _kek(policy, download, sequence, held)
    return GroupKeys(
        _rules(policy),
        teks,
        kek,
        sender_ids,
        bits,
        policy.activation_delay,
        policy.deactivation_delay,
        any(tek.receive_only for tek in policy.teks),
        path=path,
        ignored=policy.ignored,
        told=policy.told,
    )


def _rules(policy: Policy) -> tuple[PolicyRule, ...]:
    """SATs of one selector, in whatever generation of keys, are one rule; order is that of first sight."""
    spis: dict[AccessListEntry, list[int]] = {}
    for tek in policy.teks:
        known = spis.setdefault(tek.entry, [])
        if tek.spi is not None:
            known.append(tek.spi)
    return tuple(
        PolicyRule(entry, tuple(found) if entry.action is Action.PERMIT else ()) for entry, found in spis.items()
    )


def _kek(
    policy: Policy, download: KeyDownload, sequence: int, held: GroupKeys | None
) -> tuple[KeyEncryptionKey | None, KeyPath | None]:
    """The KEK and, in a key tree, the keys that lead to it."""
    path = None if held is None else held.path
    if policy.kek is None:
        return None, path
    packet = _kek_packet(policy.kek, download)
    if packet is None and held is not None and held.kek is not None and held.kek.spi == policy.kek.spi:
        return replace(held.kek, sequence=sequence), path
    if packet is None:
        raise MalformedMessage("no key for the KEK")
    if packet.kind == KdType.LKH:
        path, both = _through_tree(policy.kek, packet, held)
        signature_key = packet.octets(LkhAttribute.SIG_ALGORITHM_KEY)
    else:
        both = packet.octets(KekKey.ALGORITHM_KEY) or b""
        signature_key = packet.octets(KekKey.SIG_ALGORITHM_KEY)
    size = iv_octets(policy.kek.encryption)
    if len(both) != policy.kek.data_octets:
        raise MalformedMessage("a KEK of the wrong size")
    if not signature_key:
        raise MalformedMessage("no public key to verify rekeys with")
    try:
        crypto.RsaPublicKey.from_der(signature_key)
    except crypto.SignatureError as error:
        raise MalformedMessage(f"the public key to verify rekeys with: {error}") from None
    kek = KeyEncryptionKey(
        policy.kek.spi,
        policy.kek.encryption,
        both[:size],
        both[size:],
        policy.kek.signature_hash,
        signature_key,
        policy.kek.lifetime,
        policy.received + policy.kek.lifetime,
        sequence,
        policy.kek.source,
        policy.kek.address,
        policy.kek.acknowledgement,
    )
    return kek, path


def _kek_packet(kek: KekPolicy, download: KeyDownload) -> KeyPacket | None:
    """The packet that brings a KEK. One for a key tree goes first: it also brings the keys that lead there."""
    packets = (*download.of(KdType.LKH), *download.of(KdType.KEK))
    return next((packet for packet in packets if packet.spi == kek.spi), None)


def _through_tree(kek: KekPolicy, packet: KeyPacket, held: GroupKeys | None) -> tuple[KeyPath, bytes]:
    """The KEK's IV | key from a key tree: downloaded in a registration, updated in a rekey (RFC 6407 5.6.3)."""
    if held is None:
        download = packet.octets(LkhAttribute.DOWNLOAD_ARRAY)
        if download is None:
            raise MalformedMessage("a registration without the keys of a key tree that it names")
        return KeyPath.downloaded(LkhDownloadArray.parse(Reader(download), kek.data_octets), kek.encryption)
    if not kek.in_tree:
        raise MalformedMessage("LKH arrays under a SAK without key management algorithm")
    if held.path is None:
        raise NotAddressed("we have no keys of its key tree")
    arrays = [
        LkhUpdateArray.parse(Reader(item.value), kek.data_octets)
        for item in packet.attributes
        if item.kind == LkhAttribute.UPDATE_ARRAY
    ]
    return held.path.updated(arrays, kek.encryption)


def _sender_ids(download: KeyDownload) -> tuple[int, tuple[int, ...]]:
    packets = download.of(KdType.SID)
    if not packets:
        return 0, ()
    attributes = packets[0].attributes
    bits = _number(attributes, SidKey.NUMBER_OF_SID_BITS)
    if bits is None or bits not in SENDER_ID_BITS:
        raise MalformedMessage(f"sender IDs of {bits} bits")
    values = tuple(item.number for item in attributes if item.kind == SidKey.SID_VALUE)
    if not values or len(values) > MAX_SENDER_IDS or any(value >> bits for value in values):
        raise MalformedMessage("sender IDs that do not fit their width")
    return bits, values
