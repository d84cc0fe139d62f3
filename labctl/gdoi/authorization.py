"""Who may join a group: `authorization address ipv4`, `authorization identity`, members that were revoked.

reference/cisco-getvpn.md 1.3 and section 4. A member that phase 1 believes but its group does not gets no key.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from labctl import crypto
from labctl.configuration import CertificateIdentity
from labctl.gdoi.events import LogMessage
from labctl.gdoi.group import Group
from labctl.isakmp.errors import LocalError
from labctl.isakmp.sa import Phase1Sa


@dataclass(frozen=True, slots=True)
class Denied:
    """A member that gets nothing: what the log says of it, and (in a few words) what the member is told."""

    logs: tuple[LogMessage, ...]
    told: str


def denial(group: Group, sa: Phase1Sa) -> Denied | None:
    """Why the peer of an SA may not join a group; None: it may."""
    name, address = group.configuration.name, sa.peer.address
    if not group.authorizes(address):
        if address in group.revoked:
            text = f"Group {name} received registration from revoked GM {address}"
            return Denied((LogMessage("GDOI", 3, "KS_GM_REVOKED", text),), "its authorization was revoked")
        text = f"Group {name} received registration from unauthorized ip address: {address}"
        logs = (LogMessage("GDOI", 1, "UNAUTHORIZED_IPADDR", text), _unauthorized(name, sa))
        return Denied(logs, "its address is not authorized")
    identities = group.configuration.authorized_identities
    if identities is None or any(_matches(identity, sa.certificate) for identity in identities):
        return None
    # Without lines to compare with, or without a certificate, a router says that it could not read the name.
    shown = str(sa.certificate) if identities and sa.certificate is not None else "Dist. name parsing failed"
    text = f"Group {name} received registration from unauthorized identity: {shown}. Peer Address: {address}"
    logs = (LogMessage("GDOI", 1, "UNAUTHORIZED_IDENTITY", text), _unauthorized(name, sa))
    return Denied(logs, "its identity is not authorized")


def check_identities(name: str, identities: Sequence[CertificateIdentity] | None) -> None:
    """Raises LocalError for a line that cannot be read."""
    for identity in identities or ():
        if (identity.dn is None) == (identity.fqdn is None):
            raise LocalError(f"group {name}: an authorized identity is either a distinguished name or a domain name")
        if identity.dn is not None:
            try:
                crypto.DistinguishedName.parse(identity.dn)
            except ValueError as error:
                raise LocalError(f"group {name}: {identity.dn} is no distinguished name: {error}") from None


def _matches(identity: CertificateIdentity, certificate: crypto.Certificate | None) -> bool:
    if certificate is None:
        return False
    if identity.dn is not None:
        return certificate.has_subject_attributes(crypto.DistinguishedName.parse(identity.dn))
    return identity.fqdn is not None and certificate.in_domain(identity.fqdn)


def _unauthorized(name: str, sa: Phase1Sa) -> LogMessage:
    text = f"Registration: GM {sa.peer.address} ({sa.proven_identity}) is not authorized to join the group {name}"
    return LogMessage("GDOI", 3, "KS_UNAUTHORIZED", text)
