"""Peers with which there is always to be a phase-1 SA: when it is authenticated anew, when it is tried again.

What needs phase 1 only now and then (a registration) does not keep it: data and rekeys outlive it.
"""

from __future__ import annotations

from labctl.isakmp.datagram import Endpoint
from labctl.isakmp.limits import Limits
from labctl.isakmp.main_mode import RandomSource
from labctl.isakmp.requests import Key
from labctl.isakmp.sa import Phase1Sa
from labctl.isakmp.timers import Timers


class KeptPeers:
    """The peers of an endpoint that are kept, on its timers."""

    def __init__(self, limits: Limits, timers: Timers[Key], random: RandomSource) -> None:
        self._limits = limits
        self._timers = timers
        self._random = random
        self._locals: dict[Endpoint, Endpoint] = {}

    def keep(self, local: Endpoint, peer: Endpoint) -> None:
        """From now on."""
        self._locals[peer] = local

    def release(self, peer: Endpoint) -> None:
        """No more."""
        self._locals.pop(peer, None)
        self._timers.cancel(("kept", _octets(peer), 0))

    def __contains__(self, peer: Endpoint) -> bool:
        return peer in self._locals

    def peers(self, octets: bytes) -> list[tuple[Endpoint, Endpoint]]:
        """Our end and the peer's of the timer with that key."""
        return [(local, peer) for peer, local in self._locals.items() if _octets(peer) == octets]

    def established(self, sa: Phase1Sa, now: float) -> None:
        """There is an SA: have it renewed before its end. Its initiator begins; the responder only if that fails."""
        if sa.peer not in self._locals:
            return
        self._timers.cancel(("kept", _octets(sa.peer), 0))
        lead = min(self._limits.renew_share * (sa.expires - now), self._limits.renew_seconds)
        # Both ends may have begun one at the same time: their next ones come apart.
        share = int.from_bytes(self._random(2), "big") / 0xFFFF
        lead *= (0.75 + 0.25 * share) if sa.initiator else 0.5
        self._timers.set(("renew", sa.cookies, 0), sa.expires - lead)

    def ended(self, sa: Phase1Sa) -> None:
        """The SA is gone."""
        self._timers.cancel(("renew", sa.cookies, 0))

    def lost(self, peer: Endpoint, now: float) -> None:
        """There is no SA with the peer: try again after a while."""
        if peer in self._locals:
            share = int.from_bytes(self._random(2), "big") / 0xFFFF
            pause = self._limits.again_seconds * (0.5 + 0.5 * share)
            self._timers.set(("kept", _octets(peer), 0), now + pause)


def _octets(peer: Endpoint) -> bytes:
    return peer.address.packed + peer.port.to_bytes(2, "big")
