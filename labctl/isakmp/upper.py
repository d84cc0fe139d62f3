"""What an ISAKMP endpoint hands up, and the party above that takes it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from labctl.isakmp import events
from labctl.isakmp.datagram import Datagram
from labctl.isakmp.header import Header
from labctl.isakmp.payloads import Notification
from labctl.isakmp.sa import Phase1Sa


@dataclass(frozen=True, slots=True)
class Received:
    """A message that is no duplicate, as it goes up: its header, its datagram, and its digest for the reply."""

    header: Header
    datagram: Datagram
    digest: bytes = field(repr=False)


class UpperExchanges(Protocol):
    """What the party above serves."""

    def on_established(self, sa: Phase1Sa, now: float) -> None:
        """Phase 1 has succeeded, either way."""

    def on_failed(self, failure: events.Phase1Failed, now: float) -> None:
        """Phase 1 has failed, either way."""

    def on_deleted(self, sa: Phase1Sa, reason: str, now: float) -> None:
        """An SA is gone."""

    def on_notification(self, sa: Phase1Sa, notification: Notification, now: float) -> None:
        """An authenticated notification that is not phase 1's own."""

    def on_exchange(self, sa: Phase1Sa, received: Received, now: float) -> None:
        """A message of another protected exchange. May raise PeerError."""

    def on_group_datagram(self, received: Received, now: float) -> None:
        """GROUPKEY-PUSH or its acknowledgement. May raise PeerError."""

    def on_request_failed(self, sa: Phase1Sa, message_id: int, now: float) -> None:
        """A request of ours was not answered in time."""
