"""Exchanges of phase 1 that are not over yet, and which of them make place when there are too many.

Message 1 may come from anywhere: only message 3, which holds the cookie that we sent, shows that its sender is where it
says. Until then an exchange cost us no key agreement, and it makes place for newer ones, the oldest first. An exchange
that has shown it is never dropped for another: it keeps its place until it ends or its time is over.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Address

from labctl.isakmp.datagram import Endpoint
from labctl.isakmp.errors import PeerError
from labctl.isakmp.events import Phase1Hint
from labctl.isakmp.limits import Limits
from labctl.isakmp.main_mode import MainMode


class NotAdmitted(PeerError):
    """A message 1 that begins nothing, and is not answered."""


class AdmissionRefused(NotAdmitted):
    """There is no place for another exchange."""


@dataclass(slots=True)
class HalfOpen:
    """An exchange in the making. `reported`: its failure has been told; `hint`: what the peer said in clear."""

    exchange: MainMode
    reported: bool = False
    hint: Phase1Hint | None = None


@dataclass(slots=True)
class _Share:
    """The exchanges that one address began: cookies, oldest first."""

    unproven: OrderedDict[bytes, None] = field(default_factory=OrderedDict)
    proven: set[bytes] = field(default_factory=set)


class HalfOpenExchanges:
    """By own cookie; those that peers began also by peer and initiator cookie."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._by_cookie: dict[bytes, HalfOpen] = {}
        self._by_initiator: dict[tuple[Endpoint, bytes], bytes] = {}
        self._shares: dict[IPv4Address, _Share] = {}
        # Of all peers, oldest first.
        self._unproven: OrderedDict[bytes, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._by_cookie)

    def __contains__(self, cookie: bytes) -> bool:
        return cookie in self._by_cookie

    def __iter__(self) -> Iterator[tuple[bytes, HalfOpen]]:
        return iter(list(self._by_cookie.items()))

    def get(self, cookie: bytes) -> HalfOpen | None:
        """The exchange with this cookie of ours."""
        return self._by_cookie.get(cookie)

    def initiated_with(self, peer: Endpoint) -> bool:
        """Is an exchange of ours with this peer under way?"""
        return any(entry.exchange.initiator and entry.exchange.peer == peer for entry in self._by_cookie.values())

    def admit(self, peer: Endpoint, initiator_cookie: bytes) -> bytes | None:
        """May a peer begin another one? Returns our cookie of the exchange that has to make place for it, if any.

        Raises NotAdmitted for a cookie in use, AdmissionRefused where nothing can make place.
        """
        if (peer, initiator_cookie) in self._by_initiator:
            raise NotAdmitted("another message 1 under a cookie in use")
        share = self._shares.get(peer.address)
        if share is not None and len(share.unproven) + len(share.proven) >= self._limits.half_open_per_peer:
            if not share.unproven:
                raise AdmissionRefused("too many phase-1 exchanges under way with this peer")
            return next(iter(share.unproven))
        if len(self._by_initiator) >= self._limits.half_open:
            if not self._unproven:
                raise AdmissionRefused("too many phase-1 exchanges under way")
            return next(iter(self._unproven))
        return None

    def admit_proven(self, peer: Endpoint) -> bytes | None:
        """`admit` for an exchange that was dropped and whose peer has shown by now that it gets our answers."""
        share = self._shares.get(peer.address)
        if share is not None and len(share.proven) >= self._limits.half_open_per_peer:
            raise AdmissionRefused("too many phase-1 exchanges under way with this peer")
        if len(self._by_initiator) < self._limits.half_open:
            return None
        if not self._unproven:
            raise AdmissionRefused("too many phase-1 exchanges under way")
        return next(iter(self._unproven))

    def add(self, exchange: MainMode) -> bytes:
        """Keep an exchange; returns our cookie of it."""
        if exchange.initiator:
            cookie = exchange.cookies[:8]
        else:
            cookie = exchange.cookies[8:]
            self._by_initiator[exchange.peer, exchange.cookies[:8]] = cookie
            self._unproven[cookie] = None
            self._shares.setdefault(exchange.peer.address, _Share()).unproven[cookie] = None
        self._by_cookie[cookie] = HalfOpen(exchange)
        return cookie

    def prove(self, cookie: bytes) -> None:
        """The peer of an exchange that it began has shown that it gets our answers."""
        if cookie in self._unproven:
            del self._unproven[cookie]
            share = self._shares[self._by_cookie[cookie].exchange.peer.address]
            del share.unproven[cookie]
            share.proven.add(cookie)

    def remove(self, cookie: bytes) -> None:
        """It is over."""
        exchange = self._by_cookie.pop(cookie).exchange
        if exchange.initiator:
            return
        self._by_initiator.pop((exchange.peer, exchange.cookies[:8]), None)
        self._unproven.pop(cookie, None)
        share = self._shares[exchange.peer.address]
        share.unproven.pop(cookie, None)
        share.proven.discard(cookie)
        if not share.unproven and not share.proven:
            del self._shares[exchange.peer.address]
