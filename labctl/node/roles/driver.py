"""Drives one sans-IO party: datagrams in and out, its one deadline on the lab's clock, its events."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from ipaddress import IPv4Address
from typing import Protocol

from labctl.gdoi.events import Event
from labctl.isakmp.datagram import Datagram
from labctl.node.clock import Clock
from labctl.node.roles.port import GdoiPort


class Party(Protocol):
    """docs/internals.md, sans-IO parties."""

    def receive_datagram(self, datagram: Datagram, now: float) -> None: ...

    def datagrams_to_send(self) -> list[Datagram]: ...

    def next_deadline(self) -> float | None: ...

    def handle_timer(self, now: float) -> None: ...

    def next_event(self) -> Event | None: ...


class PartyDriver:
    """A party on a port. `failures` says why the last datagram to an address did not arrive, until one does better."""

    def __init__(
        self,
        party: Party,
        clock: Clock,
        port: GdoiPort,
        on_event: Callable[[Event], None],
        on_path: Callable[[], None],
        peers: tuple[IPv4Address, ...] = (),
    ) -> None:
        self.failures: dict[IPv4Address, str] = {}
        self._party = party
        self._clock = clock
        self._port = port
        self._on_event = on_event
        self._on_path = on_path
        self._peers = frozenset(peers)
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    def receive(self, datagram: Datagram) -> None:
        """Hand a datagram to the party and do what follows."""
        self._clear_failure(datagram.source.address)
        self._party.receive_datagram(datagram, self._clock.now())
        self.pump()

    def path_failed(self, address: IPv4Address, reason: str) -> None:
        """Keep why a peer cannot be reached. Only peers of our own choice: anybody can make a responder talk."""
        if address in self._peers and self.failures.get(address) != reason:
            self.failures[address] = reason
            self._on_path()

    def serves(self, address: IPv4Address) -> bool:
        """True for the peers that this party talks to of its own accord."""
        return address in self._peers

    def pump(self) -> None:
        """After anything happened to the party: send, tell, set the timer."""
        if self._closed:
            return
        try:
            self._send()
            while (event := self._party.next_event()) is not None:
                self._on_event(event)
        finally:
            self._set_timer()

    def close(self) -> None:
        """Send what is left and stop."""
        self.pump()
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()

    def _send(self) -> None:
        for datagram in self._party.datagrams_to_send():
            failure = self._port.send(self, datagram)
            if failure:
                self.path_failed(datagram.destination.address, failure)

    def _clear_failure(self, address: IPv4Address) -> None:
        if self.failures.pop(address, None) is not None:
            self._on_path()

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        deadline = self._party.next_deadline()
        if deadline is not None and not self._closed:
            self._timer = self._clock.call_at(deadline, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._party.handle_timer(self._clock.now())
        self.pump()
