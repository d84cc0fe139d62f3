"""The role of a group member: registers, and keeps the crypto map of its interface as its keys are."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from ipaddress import IPv4Address
from typing import Any, ClassVar

from labctl.configuration import GroupMembership, NodeConfiguration, SaDirection, Trustpoint
from labctl.esp import DropReason
from labctl.esp.exemptions import RekeyFlow
from labctl.gdoi import GroupMember
from labctl.gdoi.events import Event, KeysLost, Phase1KeyLog, PolicyInstalled, RekeyAddress
from labctl.isakmp.standing import IsakmpStanding, standing
from labctl.node.key_listeners import Key
from labctl.node.keylog import esp_line, exchange_line, rekey_line
from labctl.node.roles.crypto_map import CryptoMap
from labctl.node.roles.driver import PartyDriver
from labctl.node.roles.keys import Associations, clock_lines, policy_entries, policy_lines
from labctl.node.roles.role import World


class GroupMemberRole:
    """One membership."""

    ACTIONS: ClassVar[frozenset[str]] = frozenset({"clear", "reregister", "direction"})

    def __init__(self, world: World, membership: GroupMembership, crypto_map: CryptoMap) -> None:
        self.membership = membership
        self._world = world
        self._crypto_map = crypto_map
        self._associations = Associations(world.clock.now)
        configuration = world.configuration
        self._party = GroupMember(
            membership,
            configuration.isakmp_policies,
            configuration.pre_shared_keys,
            trustpoints=configuration.trustpoints,
            started=world.started,
            random=os.urandom,
            settings=configuration.isakmp,
            # Another membership of this node may hold a phase 1 with the same key server, from the same address.
            initial_contact=len(configuration.memberships) == 1,
        )
        self._driver = PartyDriver(
            self._party, world.clock, world.port, self._take, world.changed, membership.key_servers
        )
        world.port.attach(self._driver)
        self._joined: IPv4Address | None = None
        # The SPI that each rule of the policy in force sends under.
        self._sending: tuple[int | None, ...] = ()
        self._watch_data_plane()

    def order(self, action: str, group: str, arguments: Mapping[str, Any]) -> None:
        """Do one of `ACTIONS`. Raises ValueError for arguments that are none."""
        now = self._world.clock.now()
        if action == "clear":
            self._party.clear(now)
        elif action == "reregister":
            self._party.reregister(now)
        elif action == "direction":
            if self._party.keys is None:
                raise ValueError(f"group {group} has no SAs to turn: it is not registered")
            self._party.turn(SaDirection(arguments["direction"]), now)
        self._driver.pump()

    def reconfigure(self, configuration: NodeConfiguration) -> list[str]:
        """Take what is another now of this membership (configuration/live.py)."""
        wanted = next(item for item in configuration.memberships if item.name == self.membership.name)
        if wanted == self.membership:
            return []
        self.membership = wanted
        self._crypto_map.reconfigure(wanted)
        self._party.reconfigure(wanted, self._world.clock.now())
        self._watch_data_plane()
        self._driver.pump()
        return []

    def _watch_data_plane(self) -> None:
        watched = self.membership.recovery_check is not None
        self._crypto_map.on_error(self.membership.name, self._on_error if watched else None)

    def set_trustpoints(self, trustpoints: Sequence[Trustpoint]) -> None:
        """See Role."""
        self._party.set_trustpoints(trustpoints, self._world.clock.now())
        self._driver.pump()

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
        """Rekeys and keys, and the life left in them in lab seconds."""
        now = self._world.clock.now()
        keys, renewal, rekeys = self._party.keys, self._party.next_registration, self._party.rekeys
        teks = () if keys is None else keys.teks.values()
        kek = None if keys is None else keys.kek
        return [
            {
                "crypto_path": "ipv6" if self.membership.ipv6 else "ipv4",
                "key_management_path": "ipv4",
                "teks": [
                    {
                        "spi": f"{tek.spi:#010x}",
                        "transform": str(tek.transform),
                        "replay": str(tek.replay),
                        "left": round(tek.expires - now, 1),
                    }
                    for tek in teks
                ],
                **clock_lines(self._party.clock, now),
                "policy": [] if keys is None else policy_lines(keys, self._sending),
                "kek_left": None if kek is None else round(kek.expires - now, 1),
                "direction": None if keys is None else self._party.direction.value,
                "sender_ids": [] if keys is None else list(keys.sender_ids),
                "re_registers_in": None if renewal is None else round(renewal - now, 1),
                "rekey": None if kek is None or kek.address is None else f"multicast {kek.address}",
                "rekeys_received": rekeys.received,
                "rekeys_acknowledged": rekeys.acknowledged,
                "rekeys_rejected": rekeys.rejected + rekeys.replayed,
                "last_sequence": rekeys.last_sequence,
                # Of a key tree, beside the KEK.
                "tree_keys": None if keys is None or keys.path is None else len(keys.path.keys),
            }
        ]

    def stop(self) -> None:
        """Leave the group, and take its policy off the interface."""
        self._party.stop(self._world.clock.now())
        self._driver.close()
        self._follow(None, None)
        self._crypto_map.withdraw(self.membership.name)

    def isakmp(self) -> IsakmpStanding:
        """Phase 1 of this role."""
        return standing(self._party.isakmp, self._world.clock.now())

    def held_keys(self) -> list[Key]:
        """See Role: of phase 1, and of the group."""
        phase1 = [("exchange", exchange_line(Phase1KeyLog.of(sa))) for sa in self._party.isakmp.associations]
        keys = self._party.keys
        if keys is None:
            return phase1
        found = [*phase1, *(("esp", esp_line(tek, ipv6=self.membership.ipv6)) for tek in keys.teks.values())]
        kek = keys.kek
        return found if kek is None else [*found, ("rekey", rekey_line(kek.spi, kek.iv, kek.key))]

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
        elif isinstance(event, RekeyAddress):
            self._follow(event.address, event.source)
        elif isinstance(event, KeysLost):
            self._lose(event)
        else:
            self._world.take(event)

    def _install(self, event: PolicyInstalled) -> None:
        self._sending = event.sending
        associations, fresh = self._associations.update(event.keys, event.clocks)
        entries = policy_entries(event.keys, event.sending, event.direction)
        self._crypto_map.install(self.membership.name, entries, associations)
        for tek in fresh:
            self._world.log_key("esp", esp_line(tek, ipv6=self.membership.ipv6))

    def _lose(self, event: KeysLost) -> None:
        if not event.policy:
            self._crypto_map.withdraw(self.membership.name)
        elif self.membership.fail_close_revert:
            self._crypto_map.close_group(self.membership.name)
        self._world.changed()

    def _follow(self, address: IPv4Address | None, source: IPv4Address | None) -> None:
        """Be in the multicast group that rekeys come to, and let them pass the crypto map in clear."""
        port, name = self._world.port, self.membership.name
        if self._joined is not None:
            port.leave(self._joined, self.membership.local_address)
        self._joined = address
        flows = []
        if address is not None:
            failure = port.join(address, self.membership.local_address)
            if failure:
                self._world.log("GDOI", 3, "GM_JOIN_FAILED", f"Group {name} cannot join {address}: {failure}")
            flows = [RekeyFlow(address, server) for server in self.membership.key_servers]
            if source is not None and source not in self.membership.key_servers:
                flows.append(RekeyFlow(address, source))
        self._crypto_map.exempt(name, flows)

    def _on_error(self, reason: DropReason, spi: int) -> None:
        attempts, now = self._party.attempts, self._world.clock.now()
        if reason is DropReason.INVALID_SPI:
            self._party.unknown_spi(spi, now)
        else:
            self._party.data_plane_error(f"a packet that failed its replay check (SPI 0x{spi:08X})", now)
        if self._party.attempts != attempts:
            self._driver.pump()
