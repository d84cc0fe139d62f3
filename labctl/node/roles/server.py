"""The role of a key server."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Any

from labctl import crypto
from labctl.configuration import NodeConfiguration
from labctl.gdoi import KeyServer
from labctl.gdoi.events import Event, LogMessage, Phase1KeyLog, StateChanged
from labctl.isakmp.datagram import Datagram
from labctl.node import keylog
from labctl.node.clock import Clock
from labctl.node.log import log_event
from labctl.node.roles.driver import Driver

Tell = Callable[[dict[str, Any]], None]


class ServerRole:
    """All groups that a node serves."""

    def __init__(
        self,
        configuration: NodeConfiguration,
        clock: Clock,
        send: Callable[[Datagram], str],
        tell: Tell,
        changed: Callable[[], None],
    ) -> None:
        self._configuration = configuration
        self._clock = clock
        self._send = send
        self._tell = tell
        self._changed = changed
        self.party: KeyServer | None = None
        self.driver: Driver | None = None

    async def start(self) -> None:
        """Make the signing key, which takes a moment of a thread, then serve."""
        loop = asyncio.get_running_loop()
        signing_key = await loop.run_in_executor(None, crypto.generate_rsa_key)
        configuration = self._configuration
        self.party = KeyServer(
            configuration.key_server_groups,
            configuration.isakmp_policies,
            configuration.pre_shared_keys,
            random=os.urandom,
            signing_key=signing_key,
        )
        self.driver = Driver(self.party, self._clock, self._send, self._event)
        self._tell(log_event("CRYPTO", 6, "GDOI_ON_OFF", "GDOI is ON"))
        for group in configuration.key_server_groups:
            text = f"KS {group.address} serves group {group.name}, identity {group.identity}"
            self._tell(log_event("GDOI", 5, "KS_GROUP_ADD", text))

    def stop(self) -> None:
        """Serve no more."""
        if self.driver is not None:
            self.driver.stop()

    def status(self) -> list[dict[str, Any]]:
        """The groups as `status` shows them."""
        if self.party is None:
            return []
        now = self._clock.now()
        addresses = {group.name: str(group.address) for group in self._configuration.key_server_groups}
        return [
            {
                "name": group.name,
                "identity": group.identity,
                "role": "ks",
                "state": "serving",
                "key_server": addresses[group.name],
                "reason": "",
                "members": [
                    {
                        "address": str(member.address),
                        "registered_for": round(now - member.registered, 1),
                        "registrations": member.registrations,
                    }
                    for member in group.members
                ],
                "teks": [{"spi": f"{spi:#010x}", "left": round(left, 1)} for spi, left in group.teks],
                "kek_left": None if group.kek_left is None else round(group.kek_left, 1),
            }
            for group in self.party.status(now)
        ]

    def _event(self, event: Event) -> None:
        if isinstance(event, LogMessage):
            self._tell(log_event(event.facility, event.severity, event.mnemonic, event.text))
        elif isinstance(event, StateChanged):
            self._changed()
        elif isinstance(event, Phase1KeyLog) and self._configuration.keylog:
            line = keylog.isakmp_line(event.initiator_cookie, event.cipher_key)
            self._tell({"type": "keylog", "kind": "isakmp", "line": line})
