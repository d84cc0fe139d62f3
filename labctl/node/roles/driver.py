"""Drives one sans-IO party: its datagrams, its timers, its events."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from labctl.gdoi.events import Event
from labctl.isakmp.datagram import Datagram
from labctl.node.clock import Clock


class Party(Protocol):
    """The sans-IO interface (docs/internals.md)."""

    def receive_datagram(self, datagram: Datagram, now: float) -> None: ...

    def datagrams_to_send(self) -> list[Datagram]: ...

    def next_deadline(self) -> float | None: ...

    def handle_timer(self, now: float) -> None: ...

    def next_event(self) -> Event | None: ...


class Driver:
    """One party on the lab's clock. After every input it sends, tells, and sets one timer."""

    def __init__(
        self,
        party: Party,
        clock: Clock,
        send: Callable[[Datagram], str],
        on_event: Callable[[Event], None],
    ) -> None:
        self.send_error = ""
        self._party = party
        self._clock = clock
        self._send = send
        self._on_event = on_event
        self._timer: asyncio.TimerHandle | None = None

    def receive(self, datagram: Datagram) -> None:
        """A datagram for the party."""
        self._party.receive_datagram(datagram, self._clock.now())
        self.pump()

    def pump(self) -> None:
        """Send what waits, tell what happened, and see when to look again."""
        for datagram in self._party.datagrams_to_send():
            self.send_error = self._send(datagram)
        while (event := self._party.next_event()) is not None:
            self._on_event(event)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        deadline = self._party.next_deadline()
        if deadline is not None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self._clock.seconds_until(deadline), self._fire)

    def stop(self) -> None:
        """Send the last words and set no more timers."""
        self.pump()
        if self._timer is not None:
            self._timer.cancel()

    def _fire(self) -> None:
        self._timer = None
        self._party.handle_timer(self._clock.now())
        self.pump()
