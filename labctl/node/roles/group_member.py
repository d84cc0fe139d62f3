"""The role of a group member: registers, and keeps the crypto map of its interface as its keys are."""

from __future__ import annotations

import os
from typing import Any

from labctl.configuration import GroupMembership
from labctl.gdoi import GroupMember
from labctl.gdoi.events import Event, PolicyInstalled
from labctl.node.keylog import esp_line
from labctl.node.roles.crypto_map import CryptoMap
from labctl.node.roles.driver import PartyDriver
from labctl.node.roles.keys import Associations, policy_entries
from labctl.node.roles.role import World


class GroupMemberRole:
    """One membership."""

    def __init__(self, world: World, membership: GroupMembership, crypto_map: CryptoMap) -> None:
        self.membership = membership
        self._world = world
        self._crypto_map = crypto_map
        self._associations = Associations()
        configuration = world.configuration
        self._party = GroupMember(
            membership,
            configuration.isakmp_policies,
            configuration.pre_shared_keys,
            random=os.urandom,
            # Another membership of this node may hold a phase 1 with the same key server, from the same address.
            initial_contact=len(configuration.memberships) == 1,
        )
        self._driver = PartyDriver(
            self._party, world.clock, world.port, self._take, world.changed, membership.key_servers
        )
        world.port.attach(self._driver)

    @property
    def party(self) -> GroupMember:
        """For reading."""
        return self._party

    def start(self) -> None:
        """Register with the first key server of the list."""
        self._party.start(self._world.clock.now())
        self._driver.pump()

    def unready(self) -> str:
        """Until there are keys: the group, the key server and the cause."""
        if self._party.registered:
            return ""
        return f"{self.membership.name}: {self._reason() or 'not registered yet'}"

    def groups(self) -> list[dict[str, Any]]:
        """`state` is registered or registering; `exchange` says where a registration under way stands."""
        party = self._party
        return [
            {
                "name": self.membership.name,
                "identity": str(self.membership.identity),
                "role": "gm",
                "state": "registered" if party.registered else "registering",
                "exchange": party.state.value,
                "key_server": None if party.key_server is None else str(party.key_server),
                "registered_with": None if party.registered_with is None else str(party.registered_with),
                "reason": self._reason(),
                "interface": self.membership.interface,
                "attempts": party.attempts,
                "registrations": party.successes,
            }
        ]

    def details(self) -> list[dict[str, Any]]:
        """Keys, and the life left in them in lab seconds."""
        now = self._world.clock.now()
        keys, renewal = self._party.keys, self._party.next_registration
        if keys is None:
            return [{"teks": [], "kek_left": None, "sender_ids": [], "re_registers_in": None}]
        return [
            {
                "teks": [
                    {"spi": f"{tek.spi:#010x}", "transform": str(tek.transform), "left": round(tek.expires - now, 1)}
                    for tek in keys.teks.values()
                ],
                "kek_left": None if keys.kek is None else round(keys.kek.expires - now, 1),
                "sender_ids": list(keys.sender_ids),
                "re_registers_in": None if renewal is None else round(renewal - now, 1),
            }
        ]

    def stop(self) -> None:
        """Leave the group, and take its policy off the interface."""
        self._party.stop(self._world.clock.now())
        self._driver.close()
        self._crypto_map.withdraw(self.membership.name)

    def _reason(self) -> str:
        """Why there are no (new) keys. What the kernel says of the path explains more than a time-out does."""
        server = self._party.key_server
        failure = None if server is None else self._driver.failures.get(server)
        # The party already tries the next key server, or pauses: its own reason still speaks of the one that failed.
        if failure is not None and (not self._party.reason or self._party.reason.startswith(f"{server}:")):
            return f"{server}: {failure}"
        return self._party.reason

    def _take(self, event: Event) -> None:
        if isinstance(event, PolicyInstalled):
            self._install(event)
        else:
            self._world.take(event)

    def _install(self, event: PolicyInstalled) -> None:
        associations, fresh = self._associations.update(event.keys)
        entries = policy_entries(event.keys, event.sending)
        self._crypto_map.install(self.membership.name, entries, associations)
        if self._world.configuration.keylog:
            for tek in fresh:
                self._world.tell({"type": "keylog", "kind": "esp", "line": esp_line(tek)})
