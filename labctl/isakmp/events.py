"""What an ISAKMP endpoint tells its owner."""

from __future__ import annotations

from dataclasses import dataclass, field

from labctl.isakmp.datagram import Endpoint
from labctl.isakmp.sa import Phase1Sa


@dataclass(frozen=True, slots=True)
class Phase1Established:
    """Both sides have proved who they are."""

    sa: Phase1Sa = field(repr=False)


@dataclass(frozen=True, slots=True)
class Phase1Failed:
    """Phase 1 with a peer did not come to an end. `cause` is a stable word of `Cause`, `reason` a sentence."""

    peer: Endpoint
    initiator: bool
    cause: str
    reason: str


@dataclass(frozen=True, slots=True)
class Phase1Hint:
    """A peer said in clear why it does not go on. Not authenticated: worth showing, not worth acting on."""

    peer: Endpoint
    cause: str
    reason: str


@dataclass(frozen=True, slots=True)
class Phase1Deleted:
    """An SA is gone: deleted by the peer, replaced, or at the end of its life."""

    sa: Phase1Sa = field(repr=False)
    reason: str = ""


@dataclass(frozen=True, slots=True)
class NotificationReceived:
    """A notification under an SA, authenticated."""

    sa: Phase1Sa = field(repr=False)
    kind: int = 0
    name: str = ""


@dataclass(frozen=True, slots=True)
class MessageDropped:
    """A datagram that led to nothing, and why."""

    peer: Endpoint
    reason: str


@dataclass(frozen=True, slots=True)
class PeerDead:
    """A peer does not answer questions whether it lives any more (RFC 3706): its SA is deleted."""

    sa: Phase1Sa = field(repr=False)


@dataclass(frozen=True, slots=True)
class AdmissionLimit:
    """There are as many exchanges half open as there may be: this one of a peer was refused, or made place."""

    peer: Endpoint
    at: float


@dataclass(frozen=True, slots=True)
class UnknownCookies:
    """A protected message under an SA that we do not have, and that we answered so: we may have restarted."""

    peer: Endpoint
    at: float


Event = (
    Phase1Established
    | Phase1Failed
    | Phase1Hint
    | Phase1Deleted
    | NotificationReceived
    | MessageDropped
    | PeerDead
    | AdmissionLimit
    | UnknownCookies
)


class Cause:
    """Words of `Phase1Failed.cause`."""

    TIMEOUT = "timeout"
    NO_PROPOSAL = "no-proposal"
    NO_KEY = "no-key"
    AUTHENTICATION = "authentication"
    # The peer's certificate, or its signature, is not believed here; and ours not there.
    CERTIFICATE = "certificate"
    REFUSED = "refused"
    MALFORMED = "malformed"
    UNREACHABLE = "unreachable"


class Ending:
    """Words of `Phase1Deleted.reason`, and of what the party above hears of an SA that is gone."""

    EXPIRED = "lifetime expired"
    DELETED_BY_PEER = "deleted by the peer"
    INITIAL_CONTACT = "the peer began anew (INITIAL-CONTACT)"
    DEAD = "the peer does not answer whether it lives"
    FORGOTTEN = "the peer has forgotten it"
    TOO_MANY = "too many associations"
