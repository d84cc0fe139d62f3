"""What one side tells the other of why phase 1 does not go on, and what it makes of that.

The notify types are RFC 2408's (3.14.1). They are few, so a peer that announces us by vendor ID also gets the general
reason as text in the notification's data; it names nobody, because it travels in clear.
"""

from __future__ import annotations

from collections.abc import Collection

from labctl.isakmp import vendor
from labctl.isakmp.authentication import CertificateRefused, CredentialMissing, SignatureRefused
from labctl.isakmp.errors import AuthenticationFailed, NoProposalChosen, NotifyType, PeerError
from labctl.isakmp.events import Cause
from labctl.isakmp.payloads import Notification
from labctl.isakmp.sa import Phase1Sa

# The longest text of a peer that is shown.
MAX_TEXT_OCTETS = 120

_OF_CERTIFICATES = {
    NotifyType.INVALID_CERT_ENCODING: "it cannot read our certificate",
    NotifyType.INVALID_CERTIFICATE: "it refuses our certificate",
    NotifyType.CERT_TYPE_UNSUPPORTED: "it does not take our kind of certificate",
    NotifyType.INVALID_CERT_AUTHORITY: "it does not trust the CA of our certificate",
    NotifyType.INVALID_SIGNATURE: "it finds our signature wrong",
    NotifyType.INVALID_ID_INFORMATION: "it refuses our identity",
    NotifyType.CERTIFICATE_UNAVAILABLE: "a certificate is missing",
}


def cause_of(error: PeerError) -> str:
    """The word for our own refusal."""
    if isinstance(error, AuthenticationFailed):
        return Cause.AUTHENTICATION
    if isinstance(error, (CertificateRefused, SignatureRefused)):
        return Cause.CERTIFICATE
    if isinstance(error, CredentialMissing):
        return Cause.NO_KEY
    return Cause.NO_PROPOSAL if isinstance(error, NoProposalChosen) else Cause.MALFORMED


def text_for(error: PeerError, vendor_ids: Collection[bytes]) -> bytes:
    """The data of the notification that tells of our refusal."""
    if isinstance(error, (CertificateRefused, SignatureRefused)) and vendor.PRIVATE_PROPOSALS in vendor_ids:
        return error.told.encode("ascii", "replace")[:MAX_TEXT_OCTETS]
    return b""


def explain(notification: Notification, signs: bool, vendor_ids: Collection[bytes]) -> tuple[str, str]:
    """Cause and reason of a peer's refusal. `signs`: the exchange was held with certificates."""
    kind, name = notification.kind, notification.name
    if kind == NotifyType.NO_PROPOSAL_CHOSEN:
        return Cause.NO_PROPOSAL, "it accepts none of our ISAKMP policies"
    if kind == NotifyType.AUTHENTICATION_FAILED:
        differ = "" if signs else ", the pre-shared keys differ"
        return Cause.AUTHENTICATION, f"authentication failed{differ}"
    if kind == NotifyType.INVALID_KEY_INFORMATION:
        return Cause.NO_KEY, "it has no pre-shared key for our address"
    if kind == NotifyType.PAYLOAD_MALFORMED:
        return Cause.MALFORMED, "it cannot read our messages"
    known = next((text for item, text in _OF_CERTIFICATES.items() if item == kind), None)
    if known is None:
        return Cause.MALFORMED, f"it answers {name}"
    text = text_of(notification, vendor_ids)
    return Cause.REFUSED, f"{known} ({name})" + (f": {text}" if text else "")


def refuses_phase1(sa: Phase1Sa, notification: Notification) -> bool:
    """Does the initiator of an SA say that it does not believe the certificate we sent in message 6?"""
    known = any(item == notification.kind for item in _OF_CERTIFICATES)
    return known and not sa.initiator and sa.certificate is not None


def text_of(notification: Notification, vendor_ids: Collection[bytes]) -> str:
    """The words of a peer of ours as far as they can be shown: printable ASCII, not too long; nothing otherwise."""
    data = notification.data
    if vendor.PRIVATE_PROPOSALS not in vendor_ids or len(data) > MAX_TEXT_OCTETS:
        return ""
    return data.decode("ascii") if all(0x20 <= octet < 0x7F for octet in data) else ""
