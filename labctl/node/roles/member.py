"""The role of a group member: registers, and installs what it gets into the crypto map of its interface."""

from __future__ import annotations

import os
from collections.abc import Callable
from ipaddress import IPv4Address
from typing import Any

from labctl.configuration import GroupMembership, NodeConfiguration
from labctl.dataplane import CryptoInterface
from labctl.esp import CryptoPolicy, PolicyEntry, SecurityAssociation
from labctl.gdoi import GroupMember, TrafficEncryptionKey
from labctl.gdoi.events import Event, LogMessage, Phase1KeyLog, PolicyInstalled, StateChanged
from labctl.isakmp.datagram import Datagram
from labctl.node import keylog
from labctl.node.clock import Clock
from labctl.node.log import log_event
from labctl.node.roles.driver import Driver

Tell = Callable[[dict[str, Any]], None]


class MemberRole:
    """One membership on a node."""

    def __init__(
        self,
        configuration: NodeConfiguration,
        membership: GroupMembership,
        interface: CryptoInterface | None,
        clock: Clock,
        send: Callable[[Datagram], str],
        tell: Tell,
        changed: Callable[[], None],
    ) -> None:
        self.membership = membership
        self._configuration = configuration
        self._interface = interface
        self._clock = clock
        self._tell = tell
        self._changed = changed
        self._logged_keys: set[int] = set()
        self._associations: dict[int, SecurityAssociation] = {}
        self.party = GroupMember(
            membership, configuration.isakmp_policies, configuration.pre_shared_keys, random=os.urandom
        )
        self.driver = Driver(self.party, clock, send, self._event)

    def start(self) -> None:
        """Register."""
        self._tell(log_event("CRYPTO", 6, "GDOI_ON_OFF", "GDOI is ON"))
        self.party.start(self._clock.now())
        self.driver.pump()

    def stop(self) -> None:
        """Leave the group."""
        self.party.stop(self._clock.now())
        self.driver.stop()

    @property
    def is_ready(self) -> bool:
        """True while there are keys."""
        return self.party.registered

    @property
    def reason(self) -> str:
        """Why there are none."""
        reason = self.party.reason
        return f"{reason} ({self.driver.send_error})" if self.driver.send_error and reason else reason

    def status(self) -> dict[str, Any]:
        """The member as `status` shows it."""
        now = self._clock.now()
        party = self.party
        keys = party.keys
        renewal = party.next_registration
        return {
            "name": self.membership.name,
            "identity": str(self.membership.identity),
            "role": "gm",
            "state": "registered" if party.registered else "registering",
            "exchange": party.state.value,
            "key_server": None if party.key_server is None else str(party.key_server),
            "registered_with": None if party.registered_with is None else str(party.registered_with),
            "reason": self.reason,
            "attempts": party.attempts,
            "registrations": party.successes,
            "re_registers_in": None if renewal is None or not party.registered else round(renewal - now, 1),
            "interface": self.membership.interface,
            "teks": []
            if keys is None
            else [
                {"spi": f"{tek.spi:#010x}", "transform": str(tek.transform), "left": round(tek.expires - now, 1)}
                for tek in keys.teks.values()
            ],
            "kek_left": None if keys is None or keys.kek is None else round(keys.kek.expires - now, 1),
            "sender_ids": [] if keys is None else list(keys.sender_ids),
        }

    def _event(self, event: Event) -> None:
        if isinstance(event, LogMessage):
            self._tell(log_event(event.facility, event.severity, event.mnemonic, event.text))
        elif isinstance(event, PolicyInstalled):
            self._install(event)
        elif isinstance(event, StateChanged):
            self._changed()
        elif isinstance(event, Phase1KeyLog) and self._configuration.keylog:
            line = keylog.isakmp_line(event.initiator_cookie, event.cipher_key)
            self._tell({"type": "keylog", "kind": "isakmp", "line": line})

    def _install(self, event: PolicyInstalled) -> None:
        """Keys into the crypto map. An SA that stays keeps its object: its counters and nonces must go on."""
        keys = event.keys
        self._associations = {
            spi: self._associations.get(spi) or self._association(event, tek) for spi, tek in keys.teks.items()
        }
        entries = [
            PolicyEntry(rule.entry, sending, frozenset(rule.spis))
            for rule, sending in zip(keys.rules, event.sending, strict=True)
        ]
        if self._interface is not None:
            policy = CryptoPolicy(entries, self._associations, own=self._own_addresses(), mtu=self._mtu())
            previous = self._interface.policy
            if previous is not None and [entry.entry for entry in previous.entries] == [item.entry for item in entries]:
                policy.hits = previous.hits
            self._interface.install(policy)
        for tek in keys.teks.values():
            if self._configuration.keylog and tek.spi not in self._logged_keys:
                self._logged_keys.add(tek.spi)
                self._tell({"type": "keylog", "kind": "esp", "line": keylog.esp_line(tek)})

    def _association(self, event: PolicyInstalled, tek: TrafficEncryptionKey) -> SecurityAssociation:
        keys = event.keys
        return SecurityAssociation(
            tek.spi,
            tek.transform,
            tek.encryption_key,
            tek.integrity_key,
            random=os.urandom,
            sender_id=keys.sender_ids[0] if keys.sender_ids else None,
            sender_id_bits=keys.sender_id_bits if keys.sender_ids else 0,
        )

    def _own_addresses(self) -> list[bytes]:
        """The node's addresses, that of the membership first: it is the source of ICMP errors."""
        first = self.membership.local_address
        rest = [
            address.ip
            for interface in self._configuration.interfaces
            for address in interface.addresses
            if address.ip != first
        ]
        return [first.packed, *(address.packed for address in rest if isinstance(address, IPv4Address))]

    def _mtu(self) -> int:
        name = self.membership.interface
        return next((item.mtu for item in self._configuration.interfaces if item.name == name), 1500)
