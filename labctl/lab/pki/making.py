"""Makes the key pairs, certificates and revocation lists that a plan asks for and a lab does not have yet."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from labctl.crypto.authority import Revoked, certificate_facts, generate_key, issue_certificate, make_authority
from labctl.crypto.authority import revocation_list as sign_revocation_list
from labctl.lab.pki.state import KeptAuthority, KeptCertificate, KeptKeyPair, LabPki, RevokedSerial
from labctl.topology.pki import KeyType, PkiPlan, PlannedAuthority, PlannedCertificate

HOUR, DAY = 3600.0, 86400.0
# The clock of a remote engine's machine may be behind ours, and so its nodes: what is issued is dated back, so that it
# holds for all of them.
BACKDATED = DAY
# Expired certificates: valid for a day, until an hour before the lab begins.
_EXPIRED_BEFORE = HOUR

_CA_SERIAL = 1


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A key pair that is missing."""

    kind: KeyType
    bits: int


class _Keys:
    """Hands out key pairs made at once, on as many processors as there are: an RSA pair takes 0.1 s and more."""

    def __init__(self, wanted: Sequence[_Wanted]) -> None:
        self._made: dict[_Wanted, list[bytes]] = {}
        if not wanted:
            return
        with ThreadPoolExecutor(max_workers=min(len(wanted), os.cpu_count() or 1)) as pool:
            keys = pool.map(lambda item: generate_key(item.kind.value, item.bits), wanted)
            for item, key in zip(wanted, keys, strict=True):
                self._made.setdefault(item, []).append(key)

    def take(self, kind: KeyType, bits: int) -> bytes:
        """The next pair of a kind; each is given once."""
        return self._made[_Wanted(kind, bits)].pop()


def covers(kept: LabPki | None, wanted: PkiPlan) -> bool:
    """True if nothing is missing that takes time to make."""
    return (
        kept is not None
        and (kept.validity_days == wanted.validity_days or not kept.authorities)
        and {item.planned for item in kept.authorities} >= set(wanted.authorities)
        and {item.planned for item in kept.certificates} >= set(wanted.certificates)
        and {pair.label for pair in kept.key_pairs} >= {item.label for item in wanted.rsa_keys}
    )


def complete(kept: LabPki | None, wanted: PkiPlan, nodes: Sequence[str], started: float) -> LabPki:
    """What is kept, with all that the plan asks for beside it, and without what it does not ask for any more.

    `nodes` are all of the lab: key pairs that somebody made for one of them stay. `started` is for a lab that begins.
    """
    old = kept or LabPki(started)
    if old.validity_days != wanted.validity_days:
        old = replace(old, authorities=(), certificates=())
    standing = {item.planned: item for item in old.authorities}
    fresh = [planned for planned in wanted.authorities if planned not in standing]
    unchanged = {item.name for item in old.authorities if item.planned in wanted.authorities}
    certificates = {item.planned: item for item in old.certificates if item.authority in unchanged}
    unissued = [planned for planned in wanted.certificates if planned not in certificates]
    unlabelled = [item for item in wanted.rsa_keys if not any(pair.label == item.label for pair in old.key_pairs)]
    keys = _Keys(
        [_Wanted(item.key_type, item.key_bits) for item in fresh]
        + [_Wanted(item.key_type, item.key_bits) for item in unissued]
        + [_Wanted(KeyType.RSA, item.bits) for item in unlabelled]
    )
    pki = replace(
        old,
        validity_days=wanted.validity_days,
        check_revocation=wanted.check_revocation,
        authorities=tuple(
            standing.get(planned) or _authority(planned, keys, old.started, wanted.validity_days)
            for planned in wanted.authorities
        ),
        certificates=(),
    )
    for planned in wanted.certificates:
        if planned in certificates:
            pki = replace(pki, certificates=(*pki.certificates, certificates[planned]))
        else:
            pki = _issue_as_planned(pki, planned, keys.take(planned.key_type, planned.key_bits))
    pki = replace(pki, authorities=tuple(item if item.crl else sign_list(pki, item) for item in pki.authorities))
    return replace(pki, key_pairs=_key_pairs(old, wanted, nodes, keys))


def begin_anew(pki: LabPki, started: float) -> LabPki:
    """The same for a lab that begins again: its clock shows 0 at another time, before which lists must be signed."""
    moved = replace(pki, started=started)
    return replace(moved, authorities=tuple(sign_list(moved, item) for item in moved.authorities))


def issue(
    pki: LabPki, old: KeptCertificate, authority: KeptAuthority, fqdns: Sequence[str], not_after: float
) -> LabPki:
    """Replace a node's certificate by a new one for the same key."""
    validity = (pki.started - BACKDATED, not_after)
    pki, certificate = _issue(pki, old.planned, authority, old.key, fqdns, validity)
    renewed = replace(old, authority=authority.name, certificate=certificate)
    return replace(pki, certificates=tuple(renewed if item is old else item for item in pki.certificates))


def revoke(pki: LabPki, authority: KeptAuthority, serial: int, now: float) -> LabPki:
    """Put a certificate on its authority's list, and sign that anew."""
    listed = replace(authority, revoked=(*authority.revoked, RevokedSerial(serial, now)))
    return _with_authority(pki, sign_list(pki, listed))


def sign_list(pki: LabPki, authority: KeptAuthority) -> KeptAuthority:
    """The authority with its next revocation list, which holds as long as its certificates do."""
    number = authority.crl_number + 1
    entries = [Revoked(item.serial, item.time) for item in authority.revoked]
    until = _end(pki.started, pki.validity_days)
    pair = (authority.key, authority.certificate)
    crl = sign_revocation_list(pair, entries, number, pki.started - HOUR, until)
    return replace(authority, crl=crl, crl_number=number)


def serial_of(certificate: KeptCertificate) -> int:
    """The number that its authority gave it."""
    return certificate_facts(certificate.certificate).serial


def _authority(planned: PlannedAuthority, keys: _Keys, started: float, days: int) -> KeptAuthority:
    key = keys.take(planned.key_type, planned.key_bits)
    # It must have been there when the expired certificates were issued.
    begin = started - BACKDATED - 2 * DAY
    certificate = make_authority(key, planned.name, _CA_SERIAL, begin, _end(started, days))
    return KeptAuthority(planned, key, certificate, next_serial=_CA_SERIAL + 1)


def _issue_as_planned(pki: LabPki, planned: PlannedCertificate, key: bytes) -> LabPki:
    authority = pki.authority(planned.authority)
    assert authority is not None, "a plan names every authority that issues"
    begin, end = pki.started - BACKDATED, _end(pki.started, pki.validity_days)
    if planned.expired:
        begin, end = begin - DAY, pki.started - _EXPIRED_BEFORE
    serial = authority.next_serial
    pki, certificate = _issue(pki, planned, authority, key, planned.fqdns, (begin, end))
    kept = KeptCertificate(planned, authority.name, key, certificate)
    pki = replace(pki, certificates=(*pki.certificates, kept))
    if planned.revoked:
        issuer = pki.authority(authority.name)
        assert issuer is not None
        pki = revoke(pki, issuer, serial, pki.started - HOUR)
    return pki


def _issue(
    pki: LabPki,
    planned: PlannedCertificate,
    authority: KeptAuthority,
    key: bytes,
    fqdns: Sequence[str],
    validity: tuple[float, float],
) -> tuple[LabPki, bytes]:
    serial = authority.next_serial
    pair = (authority.key, authority.certificate)
    certificate = issue_certificate(pair, key, planned.subject, fqdns, serial, validity)
    return _with_authority(pki, replace(authority, next_serial=serial + 1)), certificate


def _with_authority(pki: LabPki, changed: KeptAuthority) -> LabPki:
    kept = tuple(changed if item.name == changed.name else item for item in pki.authorities)
    return replace(pki, authorities=kept)


def _key_pairs(old: LabPki, wanted: PkiPlan, nodes: Sequence[str], keys: _Keys) -> tuple[KeptKeyPair, ...]:
    """Every pair of a node that is still there; for each label, the same pair on all nodes that lack it."""
    pairs = [pair for pair in old.key_pairs if pair.node in nodes]
    for planned in wanted.rsa_keys:
        known = next((pair for pair in (*pairs, *old.key_pairs) if pair.label == planned.label), None)
        if known is None:
            private = keys.take(KeyType.RSA, planned.bits)
            known = KeptKeyPair(planned.nodes[0], planned.label, private, planned.exportable, old.started)
        has = {pair.node for pair in pairs if pair.label == planned.label}
        pairs += [replace(known, node=node) for node in planned.nodes if node not in has]
    return tuple(pairs)


def _end(started: float, days: int) -> float:
    return started + days * DAY
