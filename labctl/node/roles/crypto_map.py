"""The crypto maps of a node: one CryptoInterface an interface, with the policies of its memberships in order."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from typing import Any

from labctl.configuration import GroupMembership, Interface, NodeConfiguration
from labctl.dataplane import CryptoInterface
from labctl.esp import CryptoPolicy, PolicyEntry, SecurityAssociation
from labctl.node.links import accept_own_packets
from labctl.node.roles.role import RoleFailure

# The names of a split interface (docs/internals.md, ESP and the data plane).
WIRE_SIDE, INNER_SIDE = ".wire", ".in"


class CryptoMap:
    """The crypto map of one interface. Several groups share it in the order of the configuration."""

    def __init__(self, interface: Interface, own: Sequence[bytes], loop: asyncio.AbstractEventLoop) -> None:
        self.name = interface.name
        self._mtu = interface.mtu
        self._own = tuple(own)
        self._parts: dict[str, tuple[Sequence[PolicyEntry], Mapping[int, SecurityAssociation]]] = {}
        self._order: list[str] = []
        try:
            accept_own_packets(interface.name)
            self._crossing = CryptoInterface(interface.name + INNER_SIDE, interface.name + WIRE_SIDE, loop)
        except OSError as error:
            raise RoleFailure(
                f"the crypto map of {interface.name} cannot be applied: {os.strerror(error.errno or 0)}"
            ) from None

    def add(self, group: str) -> None:
        """Reserve a place for a group's policy."""
        self._order.append(group)

    def install(
        self, group: str, entries: Sequence[PolicyEntry], associations: Mapping[int, SecurityAssociation]
    ) -> None:
        """The policy of one group, in force from the next frame on."""
        self._parts[group] = (entries, associations)
        self._apply()

    def withdraw(self, group: str) -> None:
        """The group was left; without any policy everything passes."""
        if self._parts.pop(group, None) is not None:
            self._apply()

    def counters(self) -> dict[str, Any]:
        """Frames, drops, SAs and policy entries; the entries with their text."""
        found = self._crossing.counters()
        policy = self._crossing.policy
        entries = [] if policy is None else [text_of(item) for item in policy.entries]
        hits = found.pop("entries")
        return {**found, "entries": [{"entry": text, "hits": hit} for text, hit in zip(entries, hits, strict=True)]}

    def close(self) -> None:
        """Stop passing frames."""
        self._crossing.close()

    def _apply(self) -> None:
        parts = [self._parts[group] for group in self._order if group in self._parts]
        if not parts:
            self._crossing.install(None)
            return
        entries = [entry for part, _ in parts for entry in part]
        associations = {spi: sa for _, part in parts for spi, sa in part.items()}
        self._crossing.install(CryptoPolicy(entries, associations, own=self._own, mtu=self._mtu))


def crypto_maps(configuration: NodeConfiguration) -> dict[str, CryptoMap]:
    """A crypto map for every interface that has one, whether or not a membership uses it. Raises RoleFailure."""
    loop = asyncio.get_running_loop()
    found: dict[str, CryptoMap] = {}
    try:
        for interface in configuration.interfaces:
            if interface.crypto_map:
                found[interface.name] = CryptoMap(interface, _own_addresses(configuration, interface), loop)
        for membership in configuration.memberships:
            if membership.interface not in found:
                raise RoleFailure(
                    f"group {membership.name}: interface {membership.interface} has no crypto map on this node"
                )
            found[membership.interface].add(membership.name)
    except RoleFailure:
        for item in found.values():
            item.close()
        raise
    return found


def _own_addresses(configuration: NodeConfiguration, interface: Interface) -> list[bytes]:
    """Every address of the node; first those of the interface, from which ICMP errors come."""
    first = [membership.local_address for membership in _memberships_on(configuration, interface)]
    ours = [address.ip for address in interface.addresses]
    others = [address.ip for item in configuration.interfaces for address in item.addresses]
    return list(dict.fromkeys(address.packed for address in (*ours, *first, *others)))


def _memberships_on(configuration: NodeConfiguration, interface: Interface) -> list[GroupMembership]:
    return [membership for membership in configuration.memberships if membership.interface == interface.name]


def text_of(item: PolicyEntry) -> str:
    """An entry as an access list shows it."""
    entry = item.entry
    protocol = "ip" if entry.protocol == 0 else str(entry.protocol)
    source = f"{entry.source}" + (f" eq {entry.source_port}" if entry.source_port else "")
    destination = f"{entry.destination}" + (f" eq {entry.destination_port}" if entry.destination_port else "")
    return f"{entry.action.value} {protocol} {source} {destination}"
