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


Event = Phase1Established | Phase1Failed | Phase1Hint | Phase1Deleted | NotificationReceived | MessageDropped


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
