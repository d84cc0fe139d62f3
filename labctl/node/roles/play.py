"""All roles of one node, started and stopped together. Imported only by nodes that have any."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from labctl import crypto
from labctl.configuration import NodeConfiguration, RsaKeyPair, Trustpoint
from labctl.isakmp.authentication import Credentials
from labctl.isakmp.datagram import GDOI_PORT
from labctl.isakmp.errors import LocalError
from labctl.node.clock import Clock
from labctl.node.key_listeners import Key, KeyListeners
from labctl.node.roles.crypto_map import CryptoMap, crypto_maps
from labctl.node.roles.group_member import GroupMemberRole
from labctl.node.roles.key_server import KeyServerRole
from labctl.node.roles.port import GdoiPort
from labctl.node.roles.role import Role, RoleFailure, Tell, World


class Roles:
    """The key server and the memberships of one node, its port and its crypto maps."""

    def __init__(
        self,
        configuration: NodeConfiguration,
        clock: Clock,
        tell: Tell,
        changed: Callable[[], None],
        keys: KeyListeners,
    ) -> None:
        self._world = World(configuration, clock, GdoiPort(), tell, changed, keys)
        self._crypto_maps: dict[str, CryptoMap] = {}
        self._roles: list[Role] = []

    async def start(self) -> None:
        """Open the port and the crypto maps, then begin to serve and to register. Raises RoleFailure."""
        configuration, port = self._world.configuration, self._world.port
        self._crypto_maps = crypto_maps(self._world)
        if not configuration.key_server_groups and not configuration.memberships:
            return
        try:
            port.open()
        except OSError as error:
            raise RoleFailure(f"UDP port {GDOI_PORT} cannot be opened: {os.strerror(error.errno or 0)}") from None
        try:
            members = await self._make_roles()
        except LocalError as error:
            raise RoleFailure(f"its configuration cannot be played: {error}") from None
        port.listen()
        for member in members:
            member.start()
        if members and not configuration.key_server_groups:
            self._world.log("CRYPTO", 6, "GDOI_ON_OFF", "GDOI is ON")

    async def _make_roles(self) -> list[GroupMemberRole]:
        """The key server, and the memberships, which are returned. Raises LocalError."""
        configuration = self._world.configuration
        if configuration.key_server_groups:
            # It takes tens of milliseconds, without the interpreter's lock. What members send meanwhile waits in the
            # port's buffer.
            key = await asyncio.get_running_loop().run_in_executor(None, crypto.generate_rsa_key)
            self._roles.append(KeyServerRole(self._world, key))
        members = [
            GroupMemberRole(self._world, membership, self._crypto_maps[membership.interface])
            for membership in configuration.memberships
        ]
        self._roles += members
        return members

    def set_trustpoints(self, trustpoints: Sequence[Trustpoint]) -> None:
        """Replace the trustpoints of every role. Raises ValueError, changing nothing, for one that does not parse."""
        try:
            Credentials(trustpoints=trustpoints)
        except LocalError as error:
            raise ValueError(str(error)) from None
        for role in self._roles:
            role.set_trustpoints(trustpoints)

    def set_rsa_keys(self, pairs: Sequence[RsaKeyPair]) -> bool:
        """Replace the key server's labelled pairs; False where there is none. Raises ValueError, changing nothing."""
        servers = [role for role in self._roles if isinstance(role, KeyServerRole)]
        for server in servers:
            server.set_rsa_keys(pairs)
        return bool(servers)

    def unready(self) -> str:
        """Why the node is not ready; empty if it is."""
        return "; ".join(reason for role in self._roles if (reason := role.unready()))

    def groups(self) -> list[dict[str, Any]]:
        """Facts that change only when something happens."""
        return [group for role in self._roles for group in role.groups()]

    def status(self) -> list[dict[str, Any]]:
        """`groups`, with what changes by itself."""
        return [
            {**group, **details}
            for role in self._roles
            for group, details in zip(role.groups(), role.details(), strict=True)
        ]

    def isakmp(self) -> dict[str, Any]:
        """Phase 1 of every role, as one: `associations`, and `counters` added up."""
        found = [role.isakmp() for role in self._roles]
        counters = Counter[str]()
        for item in found:
            counters.update(item.counters)
        return {
            "associations": [asdict(association) for item in found for association in item.associations],
            "counters": {name: counters[name] for name in (found[0].counters if found else ())},
        }

    def held_keys(self) -> list[Key]:
        """What the roles hold."""
        return [key for role in self._roles for key in role.held_keys()]

    def counters(self) -> dict[str, Any]:
        """The crypto maps' and the port's."""
        return {
            "crypto": {name: item.counters() for name, item in self._crypto_maps.items()},
            "gdoi_port": dict(self._world.port.counters),
        }

    def order(self, action: str, group: str | None, arguments: Mapping[str, Any]) -> list[str]:
        """Do what a user asks of one group, or (None) of every group of the roles that have the action.

        Returns the groups. Raises LookupError (problem, hint) where nothing here fits, ValueError for bad arguments.
        """
        wanted = [
            (role, item["name"])
            for role in self._roles
            if action in role.ACTIONS
            for item in role.groups()
            if group in (None, item["name"])
        ]
        if not wanted:
            raise LookupError(*self._why_not(action, group))
        for role, name in wanted:
            role.order(action, name, arguments)
        return [name for _, name in wanted]

    def adjust_mss(self, size: int | None) -> None:
        """Have the crypto maps do what the kernel cannot: adjust the MSS of TCP."""
        for item in self._crypto_maps.values():
            item.adjust_mss(size)

    def reconfigure(self, configuration: NodeConfiguration) -> list[str]:
        """What differs counts from now on (configuration/live.py); the groups whose policy waits for a rekey now.

        Raises ValueError where a role cannot keep it.
        """
        for item in self._crypto_maps.values():
            item.set_tunnel(configuration.tunnel)
        return [name for role in self._roles for name in role.reconfigure(configuration)]

    def _why_not(self, action: str, group: str | None) -> tuple[str, str]:
        """Why no role can do it, and a hint."""
        actions = sorted({name for role in self._roles for name in role.ACTIONS})
        if action not in actions:
            hint = f"it can {', '.join(actions)}" if actions else "it is neither a key server nor a group member"
            return f"this node cannot {action}", hint
        known = [item["name"] for role in self._roles for item in role.groups()]
        return f"this node has no group {group}", f"it has {', '.join(known)}"

    async def stop(self) -> None:
        """Leave the groups and close everything."""
        for role in self._roles:
            role.stop()
        if self._roles and self._crypto_maps:
            # Our farewell is a frame in front of the crypto map by now. The loop finds it in its next turn, and has
            # carried it to the wire before the turn after that.
            for _ in range(2):
                await asyncio.sleep(0)
        self._roles = []
        self._world.port.close()
        for item in self._crypto_maps.values():
            item.close()
        self._crypto_maps = {}
