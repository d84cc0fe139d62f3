"""The role of a key server: every group that the node serves, as one party on the port."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from ipaddress import IPv4Address
from typing import Any, ClassVar

from labctl import crypto
from labctl.configuration import NodeConfiguration, RsaKeyPair, Trustpoint
from labctl.gdoi import KeyServer
from labctl.gdoi.events import Phase1KeyLog
from labctl.isakmp.errors import LocalError
from labctl.isakmp.standing import IsakmpStanding, standing
from labctl.node.key_listeners import Key
from labctl.node.keylog import exchange_line
from labctl.node.roles.driver import PartyDriver
from labctl.node.roles.role import World


class KeyServerRole:
    """Answers members. `signing_key` signs rekeys; members learn its public half with the KEK."""

    ACTIONS: ClassVar[frozenset[str]] = frozenset({"rekey", "clear-members", "evict", "allow", "receive-only"})

    def __init__(self, world: World, signing_key: crypto.RsaPrivateKey) -> None:
        configuration = world.configuration
        self._world = world
        self._addresses = {group.name: str(group.address) for group in configuration.key_server_groups}
        self._party = KeyServer(
            configuration.key_server_groups,
            configuration.isakmp_policies,
            configuration.pre_shared_keys,
            trustpoints=configuration.trustpoints,
            started=world.started,
            random=os.urandom,
            settings=configuration.isakmp,
            signing_key=signing_key,
        )
        self._take_signing_keys(configuration.rsa_keys)
        self._driver = PartyDriver(self._party, world.clock, world.port, world.take, world.changed)
        world.port.attach(self._driver, responder=True)
        world.log("CRYPTO", 6, "GDOI_ON_OFF", "GDOI is ON")
        for group in configuration.key_server_groups:
            text = f"Config GDOI group {group.name}: identity {group.identity}, served from {group.address}"
            world.log("GDOI", 5, "KS_GROUP_ADD", text)

    def set_rsa_keys(self, pairs: Sequence[RsaKeyPair]) -> None:
        """Other labelled pairs from the next rekey on. Raises ValueError, changing nothing, for one that is none."""
        self._take_signing_keys(pairs)
        self._driver.pump()

    def _take_signing_keys(self, rsa_keys: Sequence[RsaKeyPair]) -> None:
        """Groups that name a key pair sign with it, and send no rekeys without it."""
        pairs = {pair.label: crypto.RsaPrivateKey.from_der(pair.private_key) for pair in rsa_keys}
        for group in self._world.configuration.key_server_groups:
            label = group.rekey.key_label
            if label is None:
                continue
            if label not in pairs:
                text = f"RSA Key - {label} : Not found, Required for group {group.name}"
                self._world.log("GDOI", 1, "KS_NO_RSA_KEYS", text)
            self._party.set_signing_key(group.name, pairs.get(label))

    def order(self, action: str, group: str, arguments: Mapping[str, Any]) -> None:
        """Do one of `ACTIONS`. Raises ValueError for arguments that are none."""
        party, now = self._party, self._world.clock.now()
        at_once = bool(arguments.get("now"))
        if action == "rekey":
            party.rekey(group, now, replace_now=bool(arguments.get("replace_now")))
        elif action == "clear-members":
            party.clear_members(group, now, immediate=at_once)
        elif action == "evict":
            party.evict(group, IPv4Address(arguments["member"]), now, immediate=at_once)
        elif action == "allow":
            party.allow(group, IPv4Address(arguments["member"]))
        elif action == "receive-only":
            found = party.group(group).configuration
            party.reconfigure(replace(found, receive_only=bool(arguments["on"])))
        self._driver.pump()

    def reconfigure(self, configuration: NodeConfiguration) -> list[str]:
        """Groups whose policy is another one from their next rekey on. Raises ValueError for one that none can keep."""
        changed = []
        for group in configuration.key_server_groups:
            if self._party.group(group.name).configuration != group:
                try:
                    self._party.reconfigure(group)
                except LocalError as error:
                    raise ValueError(str(error)) from None
                changed.append(group.name)
        self._driver.pump()
        return changed

    def held_keys(self) -> list[Key]:
        """See Role: of phase 1 alone. The group's are its members'."""
        return [("exchange", exchange_line(Phase1KeyLog.of(sa))) for sa in self._party.isakmp.associations]

    def set_trustpoints(self, trustpoints: Sequence[Trustpoint]) -> None:
        """See Role."""
        self._party.set_trustpoints(trustpoints, self._world.clock.now())
        self._driver.pump()

    @property
    def party(self) -> KeyServer:
        """For reading."""
        return self._party

    def unready(self) -> str:
        """A key server serves as soon as its port is open."""
        return ""

    def groups(self) -> list[dict[str, Any]]:
        """One object a group; `members` are addresses."""
        return [
            {
                "name": group.name,
                "identity": group.identity,
                "role": "ks",
                "state": "serving",
                "key_server": self._addresses[group.name],
                "reason": "",
                "members": [str(member.address) for member in group.members],
                "registrations": {str(member.address): member.registrations for member in group.members},
            }
            for group in self._party.status(self._world.clock.now())
        ]

    def details(self) -> list[dict[str, Any]]:
        """Life left in the keys, in lab seconds."""
        return [
            {
                "crypto_path": "ipv6" if group.ipv6 else "ipv4",
                "key_management_path": "ipv4",
                "teks": [
                    {
                        "spi": f"{tek.spi:#010x}",
                        "sa_ipsec": tek.number,
                        "transform": str(tek.transform),
                        "replay": str(tek.replay),
                        "left": round(tek.left, 1),
                    }
                    for tek in group.teks
                ],
                "kek_left": None if group.kek_left is None else round(group.kek_left, 1),
                "pseudotime": None if group.pseudotime is None else round(group.pseudotime, 2),
                "epoch": None if group.epoch is None else f"{group.epoch:#010x}",
                "receive_only": group.receive_only,
                "rekey": group.rekey_transport,
                "rekeys_sent": group.rekeys_sent,
                "waiting_for": group.waiting,
                "sequence": group.sequence,
                "key_tree": None
                if group.tree_leaves is None
                else {"leaves": group.tree_leaves, "depth": group.tree_depth},
                "acknowledged": {str(member.address): member.acknowledged for member in group.members},
                "missed": {str(member.address): member.missed for member in group.members},
                "identities": {
                    str(member.address): str(member.certificates[0]) for member in group.members if member.certificates
                },
            }
            for group in self._party.status(self._world.clock.now())
        ]

    def stop(self) -> None:
        """Serve no more: members hear that phase 1 with us is over."""
        self._party.stop(self._world.clock.now())
        self._driver.close()

    def isakmp(self) -> IsakmpStanding:
        """Phase 1 of this role."""
        return standing(self._party.isakmp, self._world.clock.now())
