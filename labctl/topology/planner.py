"""Topology -> Plan: what every node will be told at boot. The same topology and secret give the same plan."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Collection
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

from labctl.configuration import (
    GroupMembership,
    Interface,
    IsakmpPolicy,
    IsakmpSettings,
    KeyServerGroup,
    NodeConfiguration,
    NodeKind,
    PreSharedKey,
    TunnelSettings,
)
from labctl.topology.certificates import plan_pki
from labctl.topology.model import End, Group, MemberOptions, Node, Topology
from labctl.topology.pki import Credentials
from labctl.topology.plan import LinkEnd, Plan, PlannedGroup, PlannedLink, PlannedNode
from labctl.topology.routing import Routing
from labctl.topology.translated import Translated

_ROUTERS = (NodeKind.P, NodeKind.PE, NodeKind.CE)
NO_CREDENTIALS = Credentials()
# What stands for a generated key in a plan that nobody will carry out.
GENERATED = b"<generated>"
# 144 bits as 24 characters that any `crypto isakmp key` takes.
_GENERATED_KEY_OCTETS = 18


def plan(topology: Topology, *, secret: bytes | None = None, credentials: Credentials = NO_CREDENTIALS) -> Plan:
    """What `up` makes of a topology. Generated pre-shared keys derive from `secret`, the lab's own.

    Without a secret the plan is for reading: `<generated>` stands where such a key would be. `Plan.pki` says what
    `credentials` must hold; without them nodes have no certificates, and key servers no key that they share.
    """
    return _Planner(topology, secret, credentials).plan()


def mac_address(node: str, interface: str) -> str:
    """A locally administered address (IEEE 802c, 02) that depends on nothing but the two names."""
    digest = hashlib.sha256(f"{node}:{interface}".encode()).digest()
    return ":".join(f"{octet:02x}" for octet in (0x02, *digest[:5]))


class _Planner:
    def __init__(self, topology: Topology, secret: bytes | None, credentials: Credentials) -> None:
        self._topology = topology
        self._secret = secret
        self._credentials = credentials
        self._routing = Routing(topology.nodes, topology.segments, topology.translations)
        self._translated = Translated(self._routing)
        self._addresses = topology.control_addresses()
        self._interfaces = topology.interfaces()
        self._hosts = {name: str(address) for name, address in self._addresses.items()}
        self._hosts6 = {name: str(address) for name, address in topology.ipv6_addresses().items()}
        self._mtus = {(end.node, end.interface): link.mtu for link in topology.links for end in link.ends}
        # Routers carry multicast where a group needs it: its rekeys, or traffic that its policy protects.
        self._multicast = any(
            group.rekey.address is not None
            or any(entry.destination.version == 4 and entry.destination.is_multicast for entry in group.policy)
            for group in topology.groups
        )
        self._memberships: dict[str, list[Group]] = {}
        self._services: dict[str, list[Group]] = {}
        for group in topology.groups:
            for name in group.members:
                self._memberships.setdefault(name, []).append(group)
            for name in group.key_servers:
                self._services.setdefault(name, []).append(group)

    def plan(self) -> Plan:
        topology = self._topology
        return Plan(
            lab=topology.name,
            runtime=topology.runtime,
            nodes=tuple(
                PlannedNode(node.name, node.kind, self._configuration(node))
                for node in topology.nodes
                if node.kind is not NodeKind.SWITCH
            ),
            switches=tuple(node.name for node in topology.nodes if node.kind is NodeKind.SWITCH),
            links=tuple(
                PlannedLink(link.name, (_link_end(link.ends[0]), _link_end(link.ends[1])), link.mtu, link.impairments)
                for link in topology.links
            ),
            groups=tuple(
                PlannedGroup(
                    group.name, str(group.identity), group.key_servers, group.members, group.refused, group.ipv6
                )
                for group in topology.groups
            ),
            checks=topology.checks,
            clock_scale=topology.clock_scale,
            pki=plan_pki(topology),
        )

    def _configuration(self, node: Node) -> NodeConfiguration:
        groups = [*self._services.get(node.name, ()), *self._memberships.get(node.name, ())]
        crypto = self._crypto_ends(node.name)
        return NodeConfiguration(
            name=node.name,
            kind=node.kind,
            interfaces=tuple(self._interface(end, crypto.values()) for end in self._interfaces[node.name]),
            routes=self._routing.routes(node.name),
            isakmp_policies=_isakmp_policies(groups),
            pre_shared_keys=self._pre_shared_keys(node.name, groups),
            key_server_groups=tuple(self._service(node.name, group) for group in self._services.get(node.name, ())),
            memberships=tuple(
                self._membership(node.name, crypto[group.name], group) for group in self._memberships.get(node.name, ())
            ),
            clock_scale=self._topology.clock_scale,
            isakmp=self._topology.isakmp if groups else IsakmpSettings(),
            hosts=self._names(node.name),
            trustpoints=self._credentials.trustpoints.get(node.name, ()),
            rsa_keys=self._credentials.rsa_keys.get(node.name, ()),
            multicast_routing=self._multicast and node.kind in _ROUTERS,
            started=self._credentials.started,
            nat=self._topology.translations.get(node.name),
            marking=self._topology.markings.get(node.name),
            hosts6=self._hosts6,
            tunnel=self._topology.tunnels.get(node.name, TunnelSettings()),
            adjust_mss=self._topology.mss_adjustments.get(node.name, ()),
        )

    def _names(self, node: str) -> dict[str, str]:
        """Name -> the address by which this node reaches it."""
        if not self._topology.translations:
            return self._hosts
        return {name: str(self._translated.known_as(node, name, address)) for name, address in self._addresses.items()}

    def _crypto_ends(self, member: str) -> dict[str, End]:
        """Group -> the end of the member's link that it encrypts on."""
        ends = {end.interface: end for _, end in self._routing.connected(member)}
        return {group.name: ends[group.interfaces[member]] for group in self._memberships.get(member, ())}

    def _interface(self, end: End, crypto: Collection[End]) -> Interface:
        return Interface(
            name=end.interface,
            mac=mac_address(end.node, end.interface),
            addresses=tuple(address for address in (end.address, end.address6) if address is not None),
            mtu=self._mtus[end.node, end.interface],
            crypto_map=end in crypto,
        )

    def _service(self, server: str, group: Group) -> KeyServerGroup:
        return KeyServerGroup(
            name=group.name,
            identity=group.identity,
            address=self._addresses[server],
            sas=group.sas,
            rekey=group.rekey,
            activation_delay=group.activation_delay,
            deactivation_delay=group.deactivation_delay,
            receive_only=group.receive_only,
            ipv6=group.ipv6,
            authorized=self._authorized(group),
            authorized_identities=group.authorization.identities,
            key_server_id=group.key_servers.index(server),
        )

    def _authorized(self, group: Group) -> tuple[IPv4Network, ...]:
        """Where members may register from: what was given, and the addresses of members that were named."""
        own = [IPv4Network(self._topology.member_address(group, name)) for name in group.authorization.members]
        return tuple(dict.fromkeys((*group.authorization.addresses, *own)))

    def _membership(self, member: str, crypto: End, group: Group) -> GroupMembership:
        assert crypto.address is not None, "a member has a link to a pe: resolve.py saw to it"
        options = group.options.get(member, MemberOptions())
        return GroupMembership(
            name=group.name,
            identity=group.identity,
            key_servers=tuple(self._addresses[server] for server in group.key_servers),
            interface=crypto.interface,
            local_address=crypto.address.ip,
            local_policy=options.local_policy,
            fail_close=options.fail_close,
            fail_close_revert=options.fail_close_revert,
            passive=options.passive,
            recovery_check=options.recovery_check,
            ipv6=group.ipv6,
        )

    def _pre_shared_keys(self, node: str, groups: list[Group]) -> tuple[PreSharedKey, ...]:
        """One key for each peer; of two groups with one peer, the first that was given a text wins."""
        found: dict[IPv4Address, bytes] = {}
        for group in groups:
            if not group.uses_pre_shared_keys:
                continue
            serves = node in group.key_servers
            peers = {name: self._addresses[name] for name in group.key_servers if name != node}
            if serves:
                peers |= {name: self._topology.member_address(group, name) for name in group.members}
            for peer, address in peers.items():
                given = self._given_key(group, node, peer)
                if given is not None and found.get(address) in (None, self._generated_key(node, peer)):
                    found[address] = given
                found.setdefault(address, self._generated_key(node, peer))
        return tuple(PreSharedKey(address, secret) for address, secret in found.items())

    def _given_key(self, group: Group, one: str, other: str) -> bytes | None:
        keys = group.pre_shared_keys
        text = keys.everyone or keys.members.get(one) or keys.members.get(other)
        return text.encode() if text is not None else None

    def _generated_key(self, one: str, other: str) -> bytes:
        """The pair's own key: HMAC-SHA-256 of both names under the lab's secret, so that each end derives the same."""
        if self._secret is None:
            return GENERATED
        label = "\0".join(("pre-shared key", *sorted((one, other)))).encode()
        return base64.urlsafe_b64encode(hmac.digest(self._secret, label, "sha256")[:_GENERATED_KEY_OCTETS])


def _link_end(end: End) -> LinkEnd:
    return LinkEnd(end.node, end.interface)


def _isakmp_policies(groups: list[Group]) -> tuple[IsakmpPolicy, ...]:
    """The proposals of all groups of a node, each once, numbered 10, 20, ... in the order of the file."""
    seen: list[IsakmpPolicy] = []
    for group in groups:
        for policy in group.isakmp:
            bare = replace(policy, priority=0)
            if bare not in seen:
                seen.append(bare)
    return tuple(replace(policy, priority=10 * (place + 1)) for place, policy in enumerate(seen))
