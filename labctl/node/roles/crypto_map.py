"""The crypto maps of a node: one CryptoInterface an interface, with the policies of its memberships in order.

What counts on an interface, first match first (reference/cisco-getvpn.md 2.6, 2.7): of each group its local deny
entries and the policy that its key server gave; behind all of them the fail-close access lists of groups that are
closed, and then nothing else passes.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Interface, IPv6Interface
from typing import Any

from labctl.configuration import (
    AccessListEntry,
    Action,
    GroupMembership,
    Interface,
    NodeConfiguration,
    TunnelSettings,
)
from labctl.dataplane import CryptoInterface
from labctl.esp import (
    CryptoPolicy,
    DropReason,
    Exemptions,
    PolicyEntry,
    RegistrationPath,
    RekeyFlow,
    SecurityAssociation,
    Tunnel,
)
from labctl.esp.replay import TimeStamps
from labctl.node.links import accept_own_packets
from labctl.node.roles.drop_log import DropLog, spi_of
from labctl.node.roles.role import RoleFailure, World

# The names of a split interface (docs/internals.md, ESP and the data plane).
WIRE_SIDE, INNER_SIDE = ".wire", ".in"


# Why, and under which SPI.
OnError = Callable[[DropReason, int], None]
_REPLAYED = (DropReason.REPLAY, DropReason.TIME_STAMP)


@dataclass(slots=True)
class _Part:
    """What one membership brings to the interface. `closed`: it has no keys, and fails close."""

    membership: GroupMembership
    local: tuple[PolicyEntry, ...]
    fail_close: tuple[PolicyEntry, ...]
    closed: bool
    entries: Sequence[PolicyEntry] = ()
    associations: Mapping[int, SecurityAssociation] = field(default_factory=dict)
    rekeys: tuple[RekeyFlow, ...] = ()
    on_error: OnError | None = None


class CryptoMap:
    """The crypto map of one interface. Several groups share it in the order of the configuration.

    It is in force, closed where a membership fails close, before the interface passes its first frame.
    """

    def __init__(self, world: World, interface: Interface) -> None:
        configuration = world.configuration
        self.name = interface.name
        own = _own_addresses(configuration, interface)
        self._own = [address.ip for address in own if isinstance(address.ip, IPv4Address)]
        self._tunnel = Tunnel(interface.mtu, own, configuration.tunnel, now=time.monotonic, lab_now=world.clock.now)
        self._paths = _registration_paths(configuration)
        self._parts = {item.name: _part(item) for item in configuration.memberships if item.interface == interface.name}
        self._log = DropLog(interface.name, world.log, world.clock.now)
        self._warn_of_permits(world)
        try:
            accept_own_packets(interface.name)
            self._crossing = CryptoInterface(
                interface.name + INNER_SIDE,
                interface.name + WIRE_SIDE,
                asyncio.get_running_loop(),
                policy=self._policy(),
                on_drop=self._dropped,
            )
        except OSError as error:
            raise RoleFailure(
                f"the crypto map of {interface.name} cannot be applied: {os.strerror(error.errno or 0)}"
            ) from None
        for remark in self._crossing.remarks:
            world.log("CRYPTO", 5, "RING_UNAVAILABLE", f"{remark}: its frames are read one by one, which is slower")

    def install(
        self, group: str, entries: Sequence[PolicyEntry], associations: Mapping[int, SecurityAssociation]
    ) -> None:
        """The policy of one group, in force from the next frame on."""
        part = self._parts[group]
        part.entries, part.associations, part.closed = entries, associations, False
        self._apply()

    def close_group(self, group: str) -> None:
        """The group's keys are lost and it reverts to fail-close: as before its first registration."""
        self._reset(self._parts[group], closed=True)

    def withdraw(self, group: str) -> None:
        """The group was left: as before its first registration. What is configured here stays."""
        part = self._parts[group]
        part.rekeys = ()
        self._reset(part, closed=part.membership.fail_close is not None)

    def exempt(self, group: str, rekeys: Sequence[RekeyFlow]) -> None:
        """Where the group's multicast rekeys come to and from; none: it has no such group (any more)."""
        self._parts[group].rekeys = tuple(rekeys)
        self._apply()

    def is_closed(self, group: str) -> bool:
        """True while the group fails close."""
        return self._parts[group].closed

    def reconfigure(self, membership: GroupMembership) -> None:
        """Another configuration of a membership: its own access list counts at once, the rest when it matters."""
        part = self._parts[membership.name]
        part.membership, part.local = membership, _entries(membership.local_policy)
        self._apply()

    def set_tunnel(self, settings: TunnelSettings) -> None:
        """How packets fit the way, from the next frame on."""
        if settings != self._tunnel.settings:
            self._tunnel.settings = settings
            self._apply()

    def adjust_mss(self, size: int | None) -> None:
        """Have TCP offer no larger segments through this interface, because the kernel cannot; None: no more."""
        if size != self._tunnel.mss:
            self._tunnel.mss = size
            self._apply()

    def on_error(self, group: str, callback: OnError | None) -> None:
        """Have a membership told of every ESP packet under a key that nobody here has, and of each under its own keys
        that anti-replay refused; None: no more."""
        self._parts[group].on_error = callback

    def counters(self) -> dict[str, Any]:
        """Frames, drops, SAs and policy entries; the entries with their text; the groups that fail close."""
        found = self._crossing.counters()
        policy = self._crossing.policy
        entries = [] if policy is None else [text_of(item) for item in policy.entries]
        hits = found.pop("entries")
        return {
            **found,
            "entries": [{"entry": text, "hits": hit} for text, hit in zip(entries, hits, strict=True)],
            "closed": [name for name, part in self._parts.items() if part.closed],
        }

    def close(self) -> None:
        """Stop passing frames."""
        self._crossing.close()

    def _reset(self, part: _Part, *, closed: bool) -> None:
        part.entries, part.associations, part.closed = (), {}, closed
        self._apply()

    def _apply(self) -> None:
        self._crossing.install(self._policy())

    def _policy(self) -> CryptoPolicy | None:
        parts = list(self._parts.values())
        # By version of IP: a crypto map is of one (reference/cisco-getvpn.md 2.12).
        closed = {6 if part.membership.ipv6 else 4 for part in parts if part.closed}
        entries = [entry for part in parts for entry in (*part.local, *part.entries)]
        entries += [entry for part in parts if part.closed for entry in part.fail_close]
        if not entries and not closed:
            return None
        rekeys = [flow for part in parts for flow in part.rekeys]
        exemptions = Exemptions(
            self._paths,
            rekeys,
            own=self._own,
            membership=bool(rekeys) or 4 not in closed,
        )
        associations = {spi: sa for part in parts for spi, sa in part.associations.items()}
        return CryptoPolicy(entries, associations, exemptions=exemptions, closed=closed, tunnel=self._tunnel)

    def _dropped(self, reason: DropReason, packet: memoryview) -> None:
        self._log.take(reason, packet)
        if reason is DropReason.INVALID_SPI:
            spi = spi_of(packet)
            for part in self._parts.values():
                if part.on_error is not None:
                    part.on_error(reason, spi)
        elif reason in _REPLAYED:
            self._replayed(reason, packet)

    def _replayed(self, reason: DropReason, packet: memoryview) -> None:
        spi = spi_of(packet)
        for name, part in self._parts.items():
            association = part.associations.get(spi)
            if association is None:
                continue
            replay = association.replay
            if reason is DropReason.REPLAY and isinstance(replay, TimeStamps) and replay.last is not None:
                self._log.take_stamp(name, packet, replay.last)
            if part.on_error is not None:
                part.on_error(reason, spi)

    def _warn_of_permits(self, world: World) -> None:
        for name, part in self._parts.items():
            for item in part.local:
                if item.entry.action is Action.PERMIT:
                    text = f"Permit entry in the local access list of group {name} is not supported, its traffic is "
                    world.log("GDOI", 3, "GM_ACL_PERMIT", f"{text}dropped: {text_of(item)}")


def crypto_maps(world: World) -> dict[str, CryptoMap]:
    """A crypto map for every interface that has one, whether or not a membership uses it. Raises RoleFailure."""
    configuration = world.configuration
    found: dict[str, CryptoMap] = {}
    try:
        for interface in configuration.interfaces:
            if interface.crypto_map:
                found[interface.name] = CryptoMap(world, interface)
        for membership in configuration.memberships:
            if membership.interface not in found:
                raise RoleFailure(
                    f"group {membership.name}: interface {membership.interface} has no crypto map on this node"
                )
    except RoleFailure:
        for item in found.values():
            item.close()
        raise
    return found


def _part(membership: GroupMembership) -> _Part:
    fail_close = membership.fail_close
    return _Part(
        membership, _entries(membership.local_policy), _entries(fail_close or ()), closed=fail_close is not None
    )


def _entries(access_list: Sequence[AccessListEntry]) -> tuple[PolicyEntry, ...]:
    """An access list of our own: what it denies passes in clear; what it permits has no SA, and is dropped."""
    return tuple(PolicyEntry(entry) for entry in access_list)


def _own_addresses(configuration: NodeConfiguration, interface: Interface) -> tuple[IPv4Interface | IPv6Interface, ...]:
    """Every address of the node, those of the interface first."""
    others = [address for item in configuration.interfaces for address in item.addresses]
    return tuple(dict.fromkeys((*interface.addresses, *others)))


def _registration_paths(configuration: NodeConfiguration) -> list[RegistrationPath]:
    """Between memberships and their key servers, whichever interface leads there, and to a key server of this node."""
    paths = [RegistrationPath(group.address, None) for group in configuration.key_server_groups]
    return paths + [
        RegistrationPath(membership.local_address, server)
        for membership in configuration.memberships
        for server in membership.key_servers
    ]


def text_of(item: PolicyEntry) -> str:
    """An entry as an access list shows it."""
    entry = item.entry
    every = "ip" if entry.source.version == 4 else "ipv6"
    protocol = every if entry.protocol == 0 else str(entry.protocol)
    source = f"{entry.source}" + (f" eq {entry.source_port}" if entry.source_port else "")
    destination = f"{entry.destination}" + (f" eq {entry.destination_port}" if entry.destination_port else "")
    return f"{entry.action.value} {protocol} {source} {destination}"
