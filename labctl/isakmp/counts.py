"""What an ISAKMP endpoint counts."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Counts:
    """Since the endpoint began. A user sees them by these names, with blanks for the underscores."""

    established: int = 0
    failed: int = 0
    # Offers that found no place, and exchanges that made place for newer ones.
    refused_by_admission: int = 0
    half_open_dropped: int = 0
    half_open_timed_out: int = 0
    # Exchanges that were made anew from their cookie after they had made place.
    half_open_restored: int = 0
    # Copies of messages that have been dealt with.
    duplicates: int = 0
    expired: int = 0
    renewed: int = 0
    deleted_by_peer: int = 0
    replaced_by_initial_contact: int = 0
    keepalives_sent: int = 0
    keepalives_answered: int = 0
    dead_peers: int = 0
    unknown_cookies: int = 0
    messages_dropped: int = 0
