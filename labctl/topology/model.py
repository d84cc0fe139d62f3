"""A topology that makes sense: every name known, every link numbered, every address given. Made by `resolve.py`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network

from labctl.configuration import (
    AccessListEntry,
    AddressTranslation,
    Authentication,
    CertificateIdentity,
    GroupIdentity,
    Impairment,
    IsakmpPolicy,
    IsakmpSettings,
    Marking,
    MssAdjustment,
    NodeKind,
    RekeyPolicy,
    SaIpsec,
    TunnelSettings,
)
from labctl.topology.checks import CheckSpec
from labctl.topology.pki import KeyType


@dataclass(frozen=True, slots=True)
class Node:
    """A device, or a switch."""

    name: str
    kind: NodeKind


@dataclass(frozen=True, slots=True)
class End:
    """One end of a link. A switch's port has no address; an IPv6 one has who speaks it (ipv6.py)."""

    node: str
    interface: str
    address: IPv4Interface | None = None
    address6: IPv6Interface | None = None

    def __str__(self) -> str:
        return f"{self.node}:{self.interface}"

    def ip(self, *, ipv6: bool = False) -> IPv4Address | IPv6Address | None:
        """Its address of one family, if it has one."""
        address = self.address6 if ipv6 else self.address
        return None if address is None else address.ip


@dataclass(frozen=True, slots=True)
class Link:
    """A wire between two ends."""

    ends: tuple[End, End]
    mtu: int = 1500
    impairments: tuple[Impairment, ...] = ()

    @property
    def name(self) -> str:
        """`a:eth0--b:eth1`, as the plan calls it."""
        return f"{self.ends[0]}--{self.ends[1]}"


class SegmentKind(Enum):
    """What a segment is for, which decides how it is numbered."""

    LAN = "lan"
    EDGE = "edge"
    CORE = "core"


@dataclass(frozen=True, slots=True)
class Segment:
    """One subnet: a link, or a switch with everything on it. `ends` are those with an address."""

    kind: SegmentKind
    prefix: IPv4Network
    ends: tuple[End, ...]
    links: tuple[str, ...]
    prefix6: IPv6Network | None = None


@dataclass(frozen=True, slots=True)
class PreSharedKeys:
    """How the pairs of a group get their keys: generated, unless `everyone` or `members` has one."""

    everyone: str | None = None
    members: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class MemberOptions:
    """What is configured on one member alone (labctl.configuration.GroupMembership says what it does).

    `refused` configures nothing: the topology says that the key server will not have this member.
    """

    local_policy: tuple[AccessListEntry, ...] = ()
    fail_close: tuple[AccessListEntry, ...] | None = None
    fail_close_revert: bool = False
    passive: bool = False
    recovery_check: int | None = None
    # Where it encrypts, if the user says it.
    interface: str | None = None
    refused: bool = False


@dataclass(frozen=True, slots=True)
class Authorization:
    """Who may register. `addresses` and `members` (by their own addresses) together: both empty is no check at all.

    `identities` None: no check of certificates; empty: nobody passes it.
    """

    addresses: tuple[IPv4Network, ...] = ()
    members: tuple[str, ...] = ()
    identities: tuple[CertificateIdentity, ...] | None = None


@dataclass(frozen=True, slots=True)
class Group:
    """A GETVPN group. Lifetimes in seconds; `sas` are numbered in their order."""

    name: str
    identity: GroupIdentity
    key_servers: tuple[str, ...]
    members: tuple[str, ...]
    sas: tuple[SaIpsec, ...]
    rekey: RekeyPolicy
    isakmp: tuple[IsakmpPolicy, ...]
    pre_shared_keys: PreSharedKeys
    activation_delay: int = 0
    deactivation_delay: int = 0
    receive_only: bool = False
    ipv6: bool = False
    options: Mapping[str, MemberOptions] = field(default_factory=dict)
    # Member -> the interface that it encrypts on.
    interfaces: Mapping[str, str] = field(default_factory=dict)

    @property
    def policy(self) -> tuple[AccessListEntry, ...]:
        """The whole access list: those of `sas`, one after the other."""
        return tuple(entry for sa in self.sas for entry in sa.policy)

    authorization: Authorization = Authorization()

    @property
    def refused(self) -> tuple[str, ...]:
        """The members that are to get no keys, in order."""
        return tuple(name for name in self.members if name in self.options and self.options[name].refused)

    @property
    def registering(self) -> tuple[str, ...]:
        """The other members."""
        return tuple(name for name in self.members if name not in self.refused)

    @property
    def uses_pre_shared_keys(self) -> bool:
        """True if one of its proposals does."""
        return any(policy.authentication is Authentication.PRE_SHARE for policy in self.isakmp)

    @property
    def uses_certificates(self) -> bool:
        """True if one of its proposals signs."""
        return any(policy.authentication is not Authentication.PRE_SHARE for policy in self.isakmp)


@dataclass(frozen=True, slots=True)
class CertificateFault:
    """What is wrong with a node's certificate on purpose: another CA's, another's name, expired, revoked."""

    authority: str | None = None
    fqdn: str | None = None
    expired: bool = False
    revoked: bool = False


@dataclass(frozen=True, slots=True)
class Pki:
    """The lab's own CA. `faults` is by node. With `named_by_subject` nodes call themselves by their subjects."""

    authority: str = "LAB_CA"
    domain: str = "lab.example"
    rsa_bits: int = 2048
    ecdsa_bits: int = 256
    named_by_subject: bool = False
    check_revocation: bool = True
    validity_days: int = 365
    faults: dict[str, CertificateFault] = field(default_factory=dict)

    def bits(self, kind: KeyType) -> int:
        """The size of keys of a kind."""
        return self.rsa_bits if kind is KeyType.RSA else self.ecdsa_bits


@dataclass(frozen=True, slots=True)
class Topology:
    """A whole lab."""

    name: str
    runtime: str
    clock_scale: float
    nodes: tuple[Node, ...]
    links: tuple[Link, ...]
    segments: tuple[Segment, ...]
    groups: tuple[Group, ...]
    checks: tuple[CheckSpec, ...] = ()
    pki: Pki = Pki()
    isakmp: IsakmpSettings = field(default_factory=IsakmpSettings)
    # By node.
    translations: Mapping[str, AddressTranslation] = field(default_factory=dict)
    markings: Mapping[str, Marking] = field(default_factory=dict)
    tunnels: Mapping[str, TunnelSettings] = field(default_factory=dict)
    mss_adjustments: Mapping[str, tuple[MssAdjustment, ...]] = field(default_factory=dict)

    @property
    def node_names(self) -> tuple[str, ...]:
        """Every device with an agent, in the order of the file."""
        return tuple(node.name for node in self.nodes if node.kind is not NodeKind.SWITCH)

    def node(self, name: str) -> Node:
        """The node called `name`. Raises KeyError."""
        for node in self.nodes:
            if node.name == name:
                return node
        raise KeyError(name)

    def interfaces(self) -> dict[str, list[End]]:
        """Node -> its ends, in the order of the links."""
        found: dict[str, list[End]] = {node.name: [] for node in self.nodes}
        for link in self.links:
            for end in link.ends:
                found[end.node].append(end)
        return found

    def are_wired_together(self, one: str, other: str) -> bool:
        """True if wires lead from one node to the other, whatever may pass."""
        seen, waiting = {one}, [one]
        neighbours: dict[str, list[str]] = {node.name: [] for node in self.nodes}
        for link in self.links:
            neighbours[link.ends[0].node].append(link.ends[1].node)
            neighbours[link.ends[1].node].append(link.ends[0].node)
        while waiting:
            for name in neighbours[waiting.pop()]:
                if name not in seen:
                    seen.add(name)
                    waiting.append(name)
        return other in seen

    def member_address(self, group: Group, member: str) -> IPv4Address:
        """Where a member registers from: its crypto interface. Raises KeyError where it has none."""
        for link in self.links:
            for end in link.ends:
                if (end.node, end.interface) == (member, group.interfaces[member]) and end.address is not None:
                    return end.address.ip
        raise KeyError(member)

    def control_addresses(self) -> dict[str, IPv4Address]:
        """Node -> the address it is known by: on the provider's side where it has one, else of its first link."""
        return {name: end.address.ip for name, end in self._known_by(ipv6=False).items() if end.address is not None}

    def ipv6_addresses(self) -> dict[str, IPv6Address]:
        """The same of those that speak IPv6; none in a lab without it."""
        return {name: end.address6.ip for name, end in self._known_by(ipv6=True).items() if end.address6 is not None}

    def _known_by(self, *, ipv6: bool) -> dict[str, End]:
        towards_provider: dict[str, End] = {}
        first: dict[str, End] = {}
        for segment in self.segments:
            for end in segment.ends:
                if end.ip(ipv6=ipv6) is None:
                    continue
                first.setdefault(end.node, end)
                if segment.kind is not SegmentKind.LAN:
                    towards_provider.setdefault(end.node, end)
        return {name: towards_provider.get(name, first[name]) for name in self.node_names if name in first}
