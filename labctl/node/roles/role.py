"""What the agent knows of a role, and what a role is given of the agent."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from labctl.configuration import NodeConfiguration, Trustpoint
from labctl.gdoi.events import Event, LogMessage, Phase1KeyLog, RekeyKeyLog, StateChanged
from labctl.isakmp.standing import IsakmpStanding
from labctl.node.clock import Clock
from labctl.node.key_listeners import Key, KeyListeners
from labctl.node.keylog import exchange_line, isakmp_line, rekey_line
from labctl.node.log import log_event
from labctl.node.roles.port import GdoiPort

Tell = Callable[[dict[str, Any]], None]


class RoleFailure(Exception):
    """A role cannot start: the text is for the user."""


@dataclass(frozen=True, slots=True)
class World:
    """What roles share: `tell` sends an event to whoever listens, `changed` has the agent look at its roles anew."""

    configuration: NodeConfiguration
    clock: Clock
    port: GdoiPort
    tell: Tell
    changed: Callable[[], None]
    keys: KeyListeners

    @property
    def started(self) -> float:
        """The wall clock of the lab, in seconds since 1970, at which its own clock showed 0."""
        started = self.configuration.started
        return time.time() - self.clock.now() if started is None else started

    def log(self, facility: str, severity: int, mnemonic: str, text: str) -> None:
        """Say something as a router does."""
        self.tell(log_event(facility, severity, mnemonic, text))

    def log_key(self, kind: str, line: str) -> None:
        """A key goes to those who listen, and becomes an event where the configuration asks for a key log."""
        self.keys.put(kind, line)
        if self.configuration.keylog:
            self.tell({"type": "keylog", "kind": kind, "line": line})

    def take(self, event: Event) -> None:
        """What events of every party lead to."""
        if isinstance(event, LogMessage):
            self.log(event.facility, event.severity, event.mnemonic, event.text)
        elif isinstance(event, StateChanged):
            self.changed()
        elif isinstance(event, Phase1KeyLog):
            self.log_key("isakmp", isakmp_line(event.cookies[:8], event.cipher_key))
            self.log_key("exchange", exchange_line(event))
        elif isinstance(event, RekeyKeyLog):
            self.log_key("rekey", rekey_line(event.spi, event.iv, event.key))


class Role(Protocol):
    """A key server or a group member. `ACTIONS` are what `order` can do."""

    ACTIONS: ClassVar[frozenset[str]]

    def order(self, action: str, group: str, arguments: Mapping[str, Any]) -> None:
        """Do one of `ACTIONS` on a group of this role, as a user asks. Raises ValueError for bad arguments."""

    def reconfigure(self, configuration: NodeConfiguration) -> list[str]:
        """Take another configuration of the node while running; groups that have to be rekeyed. Raises ValueError."""

    def held_keys(self) -> list[Key]:
        """What packets may come under now, each as the line of a key log."""

    def set_trustpoints(self, trustpoints: Sequence[Trustpoint]) -> None:
        """Other certificates, CAs and CRLs from now on. Raises LocalError, changing nothing, for a bad one."""

    def unready(self) -> str:
        """Why the node is not ready because of this role; empty if it is."""

    def groups(self) -> list[dict[str, Any]]:
        """Facts that change only when something happens, one object a group."""

    def details(self) -> list[dict[str, Any]]:
        """What changes by itself: lifetimes; in the order of `groups`."""

    def isakmp(self) -> IsakmpStanding:
        """Phase 1 of this role: its SAs, exchanges under way and counts."""

    def stop(self) -> None:
        """Leave, telling the peers."""
