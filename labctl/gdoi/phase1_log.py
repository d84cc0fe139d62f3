"""What phase 1 has to say in a node's log, in the words of reference/cisco-getvpn.md 4.

SESSION_STATUS and IKE_DENIED_SA_REQUEST are IOS messages that the reference does not list (unverified).
"""

from __future__ import annotations

from collections.abc import Sequence

from labctl.gdoi.events import LogMessage
from labctl.isakmp.events import AdmissionLimit, Event, PeerDead, UnknownCookies

# The log complains at most so often in such a time, over all peers, of each thing that anybody can provoke.
COMPLAINT_SECONDS = 1.0
COMPLAINTS = 20


class Phase1Log:
    """Keeps what anybody can provoke from filling the log."""

    def __init__(self) -> None:
        # Of each mnemonic: since when, and how often.
        self._said: dict[str, tuple[float, int]] = {}

    def may_complain(self, mnemonic: str, now: float, most: int = COMPLAINTS) -> bool:
        """May the log hold this complaint once more?"""
        since, count = self._said.get(mnemonic, (now, 0))
        if now >= since + COMPLAINT_SECONDS:
            since, count = now, 0
        self._said[mnemonic] = (since, count + 1)
        return count < most

    def of(self, event: Event) -> Sequence[LogMessage]:
        """The log message that an event of ISAKMP is worth, if any."""
        if isinstance(event, PeerDead):
            peer = event.sa.peer
            text = f"Crypto tunnel is DOWN. Peer {peer.address}:{peer.port} Id: {event.sa.peer_identity}"
            return [LogMessage("CRYPTO", 5, "SESSION_STATUS", text)]
        if isinstance(event, UnknownCookies) and self.may_complain("IKMP_NO_SA", event.at, most=1):
            text = f"IKE message from {event.peer.address} has no SA and is not an initialization offer"
            return [LogMessage("CRYPTO", 4, "IKMP_NO_SA", text)]
        if isinstance(event, AdmissionLimit) and self.may_complain("IKE_DENIED_SA_REQUEST", event.at, most=1):
            text = f"IKE denied an INCOMING SA request from {event.peer.address} due to IN-NEGOTIATION SA LIMIT REACHED"
            return [LogMessage("CRYPTO", 4, "IKE_DENIED_SA_REQUEST", text)]
        return []
