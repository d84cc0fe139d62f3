"""Everything a node with a part in a group does: its sockets, its crypto interfaces, its parties.

Imported only by nodes that need it: hosts and provider routers never load a cipher.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from labctl.configuration import NodeConfiguration
from labctl.dataplane import CryptoInterface
from labctl.isakmp.datagram import Datagram
from labctl.node.clock import Clock
from labctl.node.roles.gdoi_socket import GdoiSocket
from labctl.node.roles.member import MemberRole
from labctl.node.roles.server import ServerRole

Tell = Callable[[dict[str, Any]], None]


class Roles:
    """The key server and the memberships of one node."""

    def __init__(self, configuration: NodeConfiguration, clock: Clock, tell: Tell, changed: Callable[[], None]) -> None:
        self._configuration = configuration
        self._clock = clock
        self._tell = tell
        self._changed = changed
        self._socket: GdoiSocket | None = None
        self._server: ServerRole | None = None
        self._members: list[MemberRole] = []
        self._interfaces: dict[str, CryptoInterface] = {}

    async def start(self) -> None:
        """Open interfaces and port, then play. Raises OSError."""
        loop = asyncio.get_running_loop()
        for interface in self._configuration.interfaces:
            if interface.crypto_map:
                name = interface.name
                self._interfaces[name] = CryptoInterface(f"{name}.in", f"{name}.wire", loop)
        if not self._configuration.key_server_groups and not self._configuration.memberships:
            return
        self._socket = GdoiSocket(self._receive)
        if self._configuration.key_server_groups:
            self._server = ServerRole(self._configuration, self._clock, self._socket.send, self._tell, self._changed)
            await self._server.start()
        for membership in self._configuration.memberships:
            role = MemberRole(
                self._configuration,
                membership,
                self._interfaces.get(membership.interface),
                self._clock,
                self._socket.send,
                self._tell,
                self._changed,
            )
            self._members.append(role)
        self._socket.start()
        for member in self._members:
            member.start()

    def stop(self) -> None:
        """Leave the groups, close everything."""
        for role in self._members:
            role.stop()
        if self._server is not None:
            self._server.stop()
        if self._socket is not None:
            self._socket.close()
        for interface in self._interfaces.values():
            interface.close()

    def waiting_for(self) -> str:
        """Why the node is not ready; empty where it is."""
        reasons = [
            f"{role.membership.name}: {role.reason or 'registering'}" for role in self._members if not role.is_ready
        ]
        return "; ".join(reasons)

    def status(self) -> list[dict[str, Any]]:
        """All groups."""
        served = [] if self._server is None else self._server.status()
        return served + [role.status() for role in self._members]

    def counters(self) -> dict[str, Any]:
        """Counters of the crypto interfaces."""
        return {name: interface.counters() for name, interface in self._interfaces.items()}

    def _receive(self, datagram: Datagram) -> None:
        address = datagram.destination.address
        served = {group.address for group in self._configuration.key_server_groups}
        if self._server is not None and self._server.driver is not None and address in served:
            self._server.driver.receive(datagram)
        for role in self._members:
            if role.membership.local_address == address:
                role.driver.receive(datagram)
