"""What one node is told at boot: interfaces, routes, and its part in GETVPN groups."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Interface, IPv6Network

from labctl.configuration.policy import AccessListEntry, DhGroup, Encryption, Hash, TransformSet


class NodeKind(Enum):
    """What a node is. A `ce` becomes a group member when it joins a group; a `switch` is a bridge of the fabric."""

    HOST = "host"
    CE = "ce"
    KS = "ks"
    PE = "pe"
    P = "p"
    SWITCH = "switch"

    @property
    def forwards(self) -> bool:
        """True for nodes that route packets of others."""
        return self in (NodeKind.CE, NodeKind.PE, NodeKind.P)


@dataclass(frozen=True, slots=True)
class Interface:
    """A wire's end in a node. `mac` is `02:..` lower-case; `crypto_map` makes it bump-in-the-stack."""

    name: str
    mac: str
    addresses: tuple[IPv4Interface | IPv6Interface, ...] = ()
    mtu: int = 1500
    crypto_map: bool = False


@dataclass(frozen=True, slots=True)
class Route:
    """A static route: `prefix` through `next_hop` (on-link reachable)."""

    prefix: IPv4Network | IPv6Network
    next_hop: IPv4Address


@dataclass(frozen=True, slots=True)
class IsakmpPolicy:
    """One `crypto isakmp policy`: a phase-1 proposal. `key_bits` is for AES. Lifetime in seconds."""

    priority: int = 10
    encryption: Encryption = Encryption.AES_CBC
    key_bits: int = 256
    hash: Hash = Hash.SHA256
    group: DhGroup = DhGroup.MODP2048
    lifetime: int = 86400


@dataclass(frozen=True, slots=True)
class PreSharedKey:
    """`crypto isakmp key SECRET address PEER`."""

    peer: IPv4Address
    secret: bytes


@dataclass(frozen=True, slots=True)
class GroupIdentity:
    """`identity number N` or `identity address ipv4 A`: exactly one is set."""

    number: int | None = None
    address: IPv4Address | None = None

    def __str__(self) -> str:
        return str(self.number if self.number is not None else self.address)


@dataclass(frozen=True, slots=True)
class RekeyPolicy:
    """The KEK and how rekeys travel (defaults of reference/cisco-getvpn.md 2.2, except stronger algorithms)."""

    encryption: Encryption = Encryption.AES_CBC
    key_bits: int = 256
    signature_hash: Hash = Hash.SHA256
    lifetime: int = 86400


@dataclass(frozen=True, slots=True)
class KeyServerGroup:
    """`crypto gdoi group NAME` / `server local` on a key server. Lifetimes in seconds.

    `sender_id_bits` and `key_server_id` give disjoint RFC 6054 sender IDs to counter-mode transforms. `authorized` is
    `authorization address ipv4`: where members may register from; empty = whomever phase 1 authenticates.
    """

    name: str
    identity: GroupIdentity
    address: IPv4Address
    policy: tuple[AccessListEntry, ...]
    transform: TransformSet
    tek_lifetime: int = 3600
    rekey: RekeyPolicy = RekeyPolicy()
    activation_delay: int = 0
    deactivation_delay: int = 0
    sender_id_bits: int = 24
    key_server_id: int = 0
    authorized: tuple[IPv4Network, ...] = ()


@dataclass(frozen=True, slots=True)
class GroupMembership:
    """`crypto gdoi group NAME` and the crypto map on a member. `key_servers` is the ordered list to try."""

    name: str
    identity: GroupIdentity
    key_servers: tuple[IPv4Address, ...]
    interface: str
    local_address: IPv4Address


@dataclass(frozen=True, slots=True)
class NodeConfiguration:
    """Everything an agent needs to play its node. `hosts` maps names to addresses for /etc/hosts."""

    name: str
    kind: NodeKind
    interfaces: tuple[Interface, ...] = ()
    routes: tuple[Route, ...] = ()
    isakmp_policies: tuple[IsakmpPolicy, ...] = ()
    pre_shared_keys: tuple[PreSharedKey, ...] = ()
    key_server_groups: tuple[KeyServerGroup, ...] = ()
    memberships: tuple[GroupMembership, ...] = ()
    clock_scale: float = 1.0
    keylog: bool = False
    hosts: dict[str, str] = field(default_factory=dict)
