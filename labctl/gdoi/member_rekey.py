"""What a rekey does to a member's keys (RFC 6407 4, 5.9; reference 4.3-4.6). Nothing changes before all is checked."""

from __future__ import annotations

from dataclasses import dataclass, replace

from labctl.gdoi import ack
from labctl.gdoi.ack import AckType
from labctl.gdoi.decoding import Policy, combine, read_policy
from labctl.gdoi.key_path import NotAddressed
from labctl.gdoi.numbers import SaProtocol
from labctl.gdoi.payloads import KeyDownload
from labctl.gdoi.policy import GroupKeys, KeyEncryptionKey
from labctl.gdoi.push import Push
from labctl.isakmp.errors import MalformedMessage, NotifyType, PeerError
from labctl.isakmp.payloads import Identification

# Remaining lives travel in whole seconds, and the network takes its time: less than this is no age.
ROUNDING = 2.0


class StaleRekey(PeerError):
    """A rekey of long ago."""

    notify = NotifyType.INVALID_KEY_INFORMATION


@dataclass(frozen=True, slots=True)
class Outcome:
    """The keys after a rekey, and what kind of a rekey it was."""

    keys: GroupKeys
    # TEKs taken away by Delete; `wiped` says that nothing came in their place.
    deleted: frozenset[int] = frozenset()
    kek_deleted: bool = False
    wiped: bool = False


@dataclass(slots=True)
class RekeyCounts:
    """What a member has seen of rekeys, for `show crypto gdoi gm rekey`."""

    received: int = 0
    rejected: int = 0
    replayed: int = 0
    acknowledged: int = 0
    last_sequence: int | None = None
    last_at: float | None = None


def apply_push(push: Push, under: KeyEncryptionKey, keys: GroupKeys, now: float) -> Outcome:
    """`keys` after a verified rekey that came under `under`. Raises PeerError for policy that is not acceptable."""
    deleted, kek_deleted = _deletes(push, keys)
    kek = keys.kek
    if kek is not None and kek.spi == under.spi:
        kek = replace(kek, sequence=push.sequence)
    held = replace(keys, kek=kek)
    left = {spi: tek for spi, tek in keys.teks.items() if spi not in deleted}
    if push.sa is None or push.keys is None:
        after = replace(held, teks=left, kek=None if kek_deleted else kek)
        return Outcome(after, deleted, kek_deleted, not left)
    policy = read_policy(push.sa, now)
    sequence = push.sequence if policy.kek is not None and policy.kek.spi == under.spi else 0
    try:
        told = _told(policy, push.keys, sequence, held, now)
    except NotAddressed:
        if not kek_deleted:
            raise
        # Others are given a new KEK through their key tree, which we are not in: we come back for it.
        return Outcome(_told_without_kek(policy, push.keys, replace(held, teks=left), now), deleted, True, not left)
    # What was deleted shall not count as held: a key server may give the same SPI to another key.
    if not policy.teks:
        # The first half of leaving a member out: a KEK alone (RFC 6407 7.4.1). What is protected, and how, stays.
        told = replace(held, teks=left, kek=told.kek, path=told.path)
    after = told.succeeding(replace(held, teks=left), now)
    if policy.kek is None:
        after = replace(after, kek=None if kek_deleted else kek)
    return Outcome(after, deleted, kek_deleted, not after.teks)


def _told_without_kek(policy: Policy, keys: KeyDownload, held: GroupKeys, now: float) -> GroupKeys:
    """The TEKs of a rekey, whose lives may have been shortened, and no KEK any more."""
    if not policy.teks:
        return replace(held, kek=None)
    told = _told(replace(policy, kek=None), keys, 0, held, now)
    return replace(told.succeeding(held, now), kek=None)


def _told(policy: Policy, keys: KeyDownload, sequence: int, held: GroupKeys, now: float) -> GroupKeys:
    """What a rekey brings to a member that holds `held`, without the time that has passed since it was made."""
    told = combine(policy, keys, sequence, held)
    age = age_of(told, held, now)
    if age > 0:
        told = combine(replace(policy, received=now - age), keys, sequence, held)
    return _living(told, now)


def age_of(told: GroupKeys, held: GroupKeys, now: float) -> float:
    """How long before `now` a rekey was made (seconds, 0 where it cannot be told, or is no more than rounding).

    A rekey says what was left of its keys when it was made, not when that was. Whoever holds it back, or sends late
    what a member has missed, would lengthen their lives. Keys that the member holds, or held, tell how old it is.
    """
    ends: list[tuple[float, float]] = []
    if told.kek is not None and held.kek is not None and told.kek.spi == held.kek.spi:
        ends.append((told.kek.expires, held.kek.expires))
    for spi, tek in told.teks.items():
        known = held.teks.get(spi)
        if known is not None and known.mark == tek.mark:
            ends.append((tek.expires, known.expires))
        elif (spi, tek.mark) in held.ended:
            ends.append((tek.expires, held.ended[spi, tek.mark]))
    age = max((said - known for said, known in ends), default=0.0)
    return age if age > ROUNDING else 0.0


def _living(told: GroupKeys, now: float) -> GroupKeys:
    """What a rekey brought without keys that have ended since it was made. Raises StaleRekey where a rule has none."""
    if all(tek.expires > now for tek in told.teks.values()):
        return told
    teks = {spi: tek for spi, tek in told.teks.items() if tek.expires > now}
    rules = tuple(replace(rule, spis=tuple(spi for spi in rule.spis if spi in teks)) for rule in told.rules)
    if any(before.spis and not after.spis for before, after in zip(told.rules, rules, strict=True)):
        raise StaleRekey("a rekey so late that its keys have ended")
    return replace(told, rules=rules, teks=teks)


def _deletes(push: Push, keys: GroupKeys) -> tuple[frozenset[int], bool]:
    teks: set[int] = set()
    kek_deleted = False
    for delete in push.deletes:
        if delete.protocol == SaProtocol.ESP:
            named = {int.from_bytes(spi, "big") for spi in delete.spis}
            teks |= set(keys.teks) if 0 in named else named & keys.teks.keys()
        elif delete.protocol == SaProtocol.KEK:
            ours = b"" if keys.kek is None else keys.kek.spi
            kek_deleted |= any(spi == ours or not any(spi) for spi in delete.spis)
        else:
            raise MalformedMessage(f"a Delete of protocol {delete.protocol} in a rekey")
    return frozenset(teks), kek_deleted


def acknowledgement(under: KeyEncryptionKey, sequence: int, identity: Identification) -> bytes | None:
    """The answer to the rekey with `sequence` (RFC 8263). None where none is asked for, or of a kind we cannot make."""
    if under.acknowledgement not in (AckType.KEK_SHA256, AckType.KEK_SHA512):
        return None
    kind = AckType(under.acknowledgement)
    return ack.build(kind, under.key, ack.Acknowledgement(under.spi, sequence, identity))
