"""What one node is told at boot: interfaces, routes, and its part in GETVPN groups."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network

from labctl.configuration.policy import AccessListEntry, Authentication, DhGroup, Encryption, Hash, TransformSet
from labctl.configuration.replay import NO_REPLAY, Replay
from labctl.configuration.translation import AddressTranslation, Marking
from labctl.configuration.tunnel import MssAdjustment, TunnelSettings


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
    next_hop: IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True)
class IsakmpPolicy:
    """One `crypto isakmp policy`: a phase-1 proposal. `key_bits` is for AES. Lifetime in seconds."""

    priority: int = 10
    encryption: Encryption = Encryption.AES_CBC
    key_bits: int = 256
    hash: Hash = Hash.SHA256
    group: DhGroup = DhGroup.MODP2048
    lifetime: int = 86400
    authentication: Authentication = Authentication.PRE_SHARE


@dataclass(frozen=True, slots=True)
class Keepalive:
    """`crypto isakmp keepalive SECONDS RETRY [periodic]`: dead peer detection (RFC 3706). Seconds.

    On demand, a peer is asked only when something is to be sent to it and nothing came from it for `interval`.
    """

    interval: int
    retry: int = 2
    periodic: bool = False


@dataclass(frozen=True, slots=True)
class IsakmpSettings:
    """What holds for all of phase 1. `admission` is `crypto call admission limit`: half-open exchanges, all peers."""

    keepalive: Keepalive | None = None
    admission: int = 1024


@dataclass(frozen=True, slots=True)
class Trustpoint:
    """`crypto pki trustpoint NAME`: who this node is and whom it believes. Certificates and CRLs in DER.

    `chain` is the node's own certificate, then intermediate CAs. `authorities` are trusted without further proof.
    `private_key` is PKCS #8, not encrypted. `check_revocation` is `revocation-check crl`: without a CRL of the issuer
    that is valid at the time, a certificate is refused.
    """

    name: str
    authorities: tuple[bytes, ...]
    chain: tuple[bytes, ...] = ()
    private_key: bytes = field(default=b"", repr=False)
    crls: tuple[bytes, ...] = ()
    check_revocation: bool = True
    # What the node calls itself in phase 1: its fully qualified name, or (None) its subject's distinguished name.
    fqdn: str | None = None


@dataclass(frozen=True, slots=True)
class RsaKeyPair:
    """`crypto key generate rsa label LABEL modulus BITS [exportable]`. `private_key` is PKCS #8 in DER."""

    label: str
    private_key: bytes = field(repr=False)
    exportable: bool = False


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


class RekeyTransport(Enum):
    """How rekeys travel: one message to a multicast group, or a copy to every member, which acknowledges it."""

    MULTICAST = "multicast"
    UNICAST = "unicast"


class Acknowledgement(Enum):
    """What members answer to unicast rekeys with: RFC 8263, by the hash of its prf; NONE asks for nothing."""

    SHA256 = "sha256"
    SHA512 = "sha512"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class RekeyPolicy:
    """The KEK and how rekeys travel (defaults of reference/cisco-getvpn.md 2.2, except stronger algorithms).

    `address` is the multicast group; multicast without one sends no rekeys, as on IOS, and members register again
    before their keys end. `retransmit_count` copies follow the first, every `retransmit_interval` seconds: of unicast
    rekeys to those alone who have not acknowledged. `key_label` names the RSA key pair that signs; None: one that the
    key server makes when it starts. `key_tree` keeps an LKH tree (RFC 6407 5.6.3).
    """

    encryption: Encryption = Encryption.AES_CBC
    key_bits: int = 256
    signature_hash: Hash = Hash.SHA256
    lifetime: int = 86400
    transport: RekeyTransport = RekeyTransport.MULTICAST
    address: IPv4Address | None = None
    retransmit_interval: int = 10
    retransmit_count: int = 2
    acknowledgement: Acknowledgement = Acknowledgement.SHA256
    key_label: str | None = None
    key_tree: bool = False


@dataclass(frozen=True, slots=True)
class CertificateIdentity:
    """One line of `crypto identity NAME`: a distinguished name (RFC 4514), or a domain name. Exactly one is set.

    A certificate matches `dn` when each of its attributes is in the subject, and `fqdn` by a subjectAltName or by the
    end of one: `example.com` also matches `ce1.example.com`.
    """

    dn: str | None = None
    fqdn: str | None = None


@dataclass(frozen=True, slots=True)
class SaIpsec:
    """`sa ipsec NUMBER`: an access list, and what its profile gives: transform set and TEK lifetime (seconds).

    `replay`: what members do against packets that come again.
    """

    policy: tuple[AccessListEntry, ...]
    transform: TransformSet
    tek_lifetime: int = 3600
    number: int = 1
    replay: Replay = NO_REPLAY


@dataclass(frozen=True, slots=True)
class KeyServerGroup:
    """`crypto gdoi group NAME` / `server local` on a key server. Lifetimes in seconds.

    `sas` are its `sa ipsec` entries, each with a number of its own; in the order of the numbers they are one policy.
    `sender_id_bits` and `key_server_id` give disjoint RFC 6054 sender IDs to counter-mode transforms. `authorized` is
    `authorization address ipv4`: where members may register from; empty = whomever phase 1 authenticates.
    `authorized_identities` is `authorization identity`: None does not look at certificates, an empty list lets nobody
    in. `receive_only` is `sa receive-only`: members decrypt, and send in clear (reference/cisco-getvpn.md 2.7). `ipv6`
    is `crypto gdoi group ipv6 NAME`: every entry is IPv6, and registrations and rekeys are IPv4 as ever (2.12).
    """

    name: str
    identity: GroupIdentity
    address: IPv4Address
    sas: tuple[SaIpsec, ...]
    rekey: RekeyPolicy = RekeyPolicy()
    activation_delay: int = 0
    deactivation_delay: int = 0
    sender_id_bits: int = 24
    key_server_id: int = 0
    authorized: tuple[IPv4Network, ...] = ()
    authorized_identities: tuple[CertificateIdentity, ...] | None = None
    receive_only: bool = False
    ipv6: bool = False

    @property
    def policy(self) -> tuple[AccessListEntry, ...]:
        """The whole access list: those of `sas`, one after the other in the order of their numbers."""
        return tuple(entry for sa in sorted(self.sas, key=lambda sa: sa.number) for entry in sa.policy)


class SaDirection(Enum):
    """What a member's SAs are for (`IPSec SA Direction`, reference/cisco-getvpn.md 2.7).

    BOTH sends encrypted and drops clear packets that should have come encrypted; INBOUND_OPTIONAL (passive) sends
    encrypted and takes either; INBOUND_ONLY (receive-only) sends in clear and takes either.
    """

    BOTH = "both"
    INBOUND_OPTIONAL = "inbound optional"
    INBOUND_ONLY = "inbound only"


@dataclass(frozen=True, slots=True)
class GroupMembership:
    """`crypto gdoi group NAME` and the crypto map on a member. `key_servers` is the ordered list to try.

    `local_policy` is the crypto map's own access list, which holds deny entries alone and comes before the key
    server's. `fail_close` is the access list of the fail-close map: until the first registration only what it denies
    passes, in clear; None is fail-open. With `fail_close_revert` the same holds again once keys are lost. `passive`
    sends encrypted and takes clear packets too, whatever the key server says of receive-only. `recovery_check`
    registers again upon packets that cannot be decrypted, at most once in that many seconds
    (reference/cisco-getvpn.md 2.7, 2.8). `ipv6`: the group, and with it the crypto map, is IPv6 (2.12); a policy of the
    other family is refused.
    """

    name: str
    identity: GroupIdentity
    key_servers: tuple[IPv4Address, ...]
    interface: str
    local_address: IPv4Address
    local_policy: tuple[AccessListEntry, ...] = ()
    fail_close: tuple[AccessListEntry, ...] | None = None
    fail_close_revert: bool = False
    passive: bool = False
    recovery_check: int | None = None
    ipv6: bool = False


@dataclass(frozen=True, slots=True)
class NodeConfiguration:
    """Everything an agent needs to play its node. `hosts` and `hosts6` map names to addresses for /etc/hosts.

    `multicast_routing` has a router carry multicast between its interfaces. `started` is the time, in seconds since
    1970, at which the clocks of all nodes show 0: certificates are looked at on them; None: 0 is when the node boots.
    `nat`, `marking` and `adjust_mss` are the kernel's part: all come before encryption. `tunnel` holds for every crypto
    map of the node.
    """

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
    isakmp: IsakmpSettings = IsakmpSettings()
    trustpoints: tuple[Trustpoint, ...] = ()
    rsa_keys: tuple[RsaKeyPair, ...] = ()
    multicast_routing: bool = False
    started: float | None = None
    nat: AddressTranslation | None = None
    marking: Marking | None = None
    hosts6: dict[str, str] = field(default_factory=dict)
    tunnel: TunnelSettings = field(default_factory=TunnelSettings)
    adjust_mss: tuple[MssAdjustment, ...] = ()
