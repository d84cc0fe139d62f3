"""Exchanges of phase 1 that are not over yet, and how many of them there may be."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address

from labctl.isakmp.datagram import Endpoint
from labctl.isakmp.errors import PeerError
from labctl.isakmp.events import Phase1Hint
from labctl.isakmp.limits import Limits
from labctl.isakmp.main_mode import MainMode


@dataclass(slots=True)
class HalfOpen:
    """An exchange in the making. `reported`: its failure has been told; `hint`: what the peer said in clear."""

    exchange: MainMode
    reported: bool = False
    hint: Phase1Hint | None = None


class HalfOpenExchanges:
    """By own cookie; those that peers began also by peer and initiator cookie."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._by_cookie: dict[bytes, HalfOpen] = {}
        self._by_initiator: dict[tuple[Endpoint, bytes], bytes] = {}
        self._of_peer: dict[IPv4Address, int] = {}

    def __len__(self) -> int:
        return len(self._by_cookie)

    def __contains__(self, cookie: bytes) -> bool:
        return cookie in self._by_cookie

    def __iter__(self) -> Iterator[tuple[bytes, HalfOpen]]:
        return iter(list(self._by_cookie.items()))

    def get(self, cookie: bytes) -> HalfOpen | None:
        """The exchange with this cookie of ours."""
        return self._by_cookie.get(cookie)

    def admit(self, peer: Endpoint, initiator_cookie: bytes) -> None:
        """May a peer begin another one? Raises PeerError."""
        if (peer, initiator_cookie) in self._by_initiator:
            raise PeerError("another message 1 under a cookie in use")
        if len(self._by_cookie) >= self._limits.half_open:
            raise PeerError("too many phase-1 exchanges under way")
        if self._of_peer.get(peer.address, 0) >= self._limits.half_open_per_peer:
            raise PeerError("too many phase-1 exchanges under way with this peer")

    def add(self, exchange: MainMode) -> bytes:
        """Keep an exchange; returns our cookie of it."""
        if exchange.initiator:
            cookie = exchange.cookies[:8]
        else:
            cookie = exchange.cookies[8:]
            self._by_initiator[exchange.peer, exchange.cookies[:8]] = cookie
            address = exchange.peer.address
            self._of_peer[address] = self._of_peer.get(address, 0) + 1
        self._by_cookie[cookie] = HalfOpen(exchange)
        return cookie

    def remove(self, cookie: bytes) -> None:
        """It is over."""
        exchange = self._by_cookie.pop(cookie).exchange
        if exchange.initiator:
            return
        self._by_initiator.pop((exchange.peer, exchange.cookies[:8]), None)
        address = exchange.peer.address
        self._of_peer[address] -= 1
        if not self._of_peer[address]:
            del self._of_peer[address]
