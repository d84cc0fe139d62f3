"""`labctl pki`: who has which certificate of whom, new certificates, revocation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from labctl.configuration.certificate_identity import is_domain_name
from labctl.crypto.authority import certificate_facts, certificate_pem
from labctl.lab.directory import LabDirectory
from labctl.lab.errors import BadRequest
from labctl.lab.pki import making
from labctl.lab.pki.change import Told, apply, changing, close_to, lab_time
from labctl.lab.pki.state import KeptAuthority, KeptCertificate, LabPki, load_pki
from labctl.lab.standing import require_node, standing_plan


@dataclass(frozen=True, slots=True)
class AuthorityReport:
    """A CA. `revoked` are serial numbers, `trusted_by` the nodes that believe it."""

    name: str
    key: str
    not_after: float
    crl_number: int
    revoked: tuple[int, ...]
    trusted_by: tuple[str, ...]
    pem: str


@dataclass(frozen=True, slots=True)
class CertificateReport:
    """A node's certificate. `status` is valid, expired or revoked; `calls_itself` what the node says in phase 1."""

    node: str
    trustpoint: str
    authority: str
    serial: int
    subject: str
    fqdns: tuple[str, ...]
    calls_itself: str
    key: str
    not_before: float
    not_after: float
    status: str
    pem: str


@dataclass(frozen=True, slots=True)
class PkiReport:
    """Times are seconds since 1970 on the lab's clock, which shows `now`."""

    now: float
    check_revocation: bool
    authorities: tuple[AuthorityReport, ...]
    certificates: tuple[CertificateReport, ...]


@dataclass(frozen=True, slots=True)
class Changed:
    """A certificate that was issued or revoked, and who was told."""

    certificate: CertificateReport
    told: Told


@dataclass(frozen=True, slots=True)
class NewCertificate:
    """What `pki issue` may ask for; what is left out is as the topology would have it without faults.

    `seconds` of validity, from now on the lab's clock.
    """

    trustpoint: str | None = None
    authority: str | None = None
    fqdns: tuple[str, ...] = ()
    seconds: float | None = None


def show(directory: LabDirectory, node: str | None) -> PkiReport:
    """Everything, or what concerns one node. Raises BadRequest."""
    if node is not None:
        require_node(directory, node)
    pki, now = load_pki(directory), 0.0
    if pki is None:
        return PkiReport(now, True, (), ())
    now = lab_time(pki, standing_plan(directory).clock_scale)
    certificates = pki.certificates if node is None else pki.of_node(node)
    concerned = {item.authority for item in certificates}
    authorities = [item for item in pki.authorities if node is None or item.name in concerned]
    return PkiReport(
        now,
        pki.check_revocation,
        tuple(_authority(pki, item) for item in authorities),
        tuple(_certificate(pki, item, now) for item in certificates),
    )


async def issue(directory: LabDirectory, node: str, wanted: NewCertificate) -> Changed:
    """Give a node a new certificate for the key it has, now. Raises BadRequest, NotReady."""
    require_node(directory, node)
    for name in wanted.fqdns:
        if not is_domain_name(name):
            raise BadRequest(f"{name!r} is not a domain name", "for example 'ce1.lab.example'")
    with changing(directory, "pki issue") as pki:
        now = lab_time(pki, standing_plan(directory).clock_scale)
        old = _of_node(pki, node, wanted.trustpoint)
        authority = _issuer(pki, wanted.authority)
        end = certificate_facts(authority.certificate).not_after
        not_after = end if wanted.seconds is None else now + wanted.seconds
        if not_after > end:
            raise BadRequest(
                f"it would outlive its authority, which ends in {(end - now) / making.DAY:.0f} days",
                "ask for less, or give 'pki' of the topology a longer validity",
            )
        fqdns = wanted.fqdns or _own_names(old)
        after = making.issue(pki, old, authority, fqdns, not_after)
        told = await apply(directory, pki, after)
        issued = _of_node(after, node, old.planned.trustpoint)
        return Changed(_certificate(after, issued, now), told)


async def revoke(directory: LabDirectory, node: str, trustpoint: str | None) -> Changed:
    """Put a node's certificate on its authority's list, and give that to everybody. Raises BadRequest, NotReady."""
    require_node(directory, node)
    with changing(directory, "pki revoke") as pki:
        now = lab_time(pki, standing_plan(directory).clock_scale)
        certificate = _of_node(pki, node, trustpoint)
        authority, serial = _issuer(pki, certificate.authority), making.serial_of(certificate)
        if authority.has_revoked(serial):
            raise BadRequest(
                f"certificate {serial:02X} of {node} is revoked already", f"'labctl pki issue {node}' makes a new one"
            )
        after = making.revoke(pki, authority, serial, now)
        told = await apply(directory, pki, after)
        return Changed(_certificate(after, certificate, now), told)


def _of_node(pki: LabPki, node: str, trustpoint: str | None) -> KeptCertificate:
    own = pki.of_node(node)
    if not own:
        holders = dict.fromkeys(item.planned.node for item in pki.certificates)
        hint = f"these have one: {', '.join(holders)}" if holders else "say 'isakmp: {authentication: rsa-sig}'"
        raise BadRequest(f"{node} has no certificate", hint)
    names = [item.planned.trustpoint for item in own]
    if trustpoint is None:
        return own[0]
    if trustpoint not in names:
        raise BadRequest(f"{node} has no trustpoint {trustpoint!r}", close_to(trustpoint, names))
    return own[names.index(trustpoint)]


def _issuer(pki: LabPki, name: str | None) -> KeptAuthority:
    """An authority by name; the lab's own is the first."""
    names = [item.name for item in pki.authorities]
    if name is None:
        return pki.authorities[0]
    if name not in names:
        raise BadRequest(f"no authority is called {name!r}", close_to(name, names))
    return pki.authorities[names.index(name)]


def _own_names(old: KeptCertificate) -> Sequence[str]:
    """What the node calls itself; who goes by the subject keeps the names it has."""
    return (old.planned.identity,) if old.planned.identity is not None else old.planned.fqdns


def _authority(pki: LabPki, authority: KeptAuthority) -> AuthorityReport:
    facts = certificate_facts(authority.certificate)
    trusting = dict.fromkeys(item.planned.node for item in pki.certificates if item.authority == authority.name)
    return AuthorityReport(
        authority.name,
        facts.key,
        facts.not_after,
        authority.crl_number,
        tuple(item.serial for item in authority.revoked),
        tuple(trusting),
        certificate_pem(authority.certificate),
    )


def _certificate(pki: LabPki, kept: KeptCertificate, now: float) -> CertificateReport:
    facts = certificate_facts(kept.certificate)
    authority = pki.authority(kept.authority)
    assert authority is not None, "an authority stays as long as a certificate of it"
    status = "valid" if now <= facts.not_after else "expired"
    if authority.has_revoked(facts.serial):
        status = "revoked"
    return CertificateReport(
        kept.planned.node,
        kept.planned.trustpoint,
        kept.authority,
        facts.serial,
        facts.subject,
        facts.fqdns,
        kept.planned.identity or facts.subject,
        facts.key,
        facts.not_before,
        facts.not_after,
        status,
        certificate_pem(kept.certificate),
    )
