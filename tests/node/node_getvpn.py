"""Configurations of a small GETVPN: a key server and members on one LAN, networks behind the members."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

from node_world import LAN, Place

from labctl.configuration import (
    AccessListEntry,
    Action,
    Cipher,
    DhGroup,
    GroupIdentity,
    GroupMembership,
    Interface,
    IsakmpPolicy,
    KeyServerGroup,
    NodeConfiguration,
    NodeKind,
    PreSharedKey,
    SaIpsec,
    TransformSet,
)

KS = IPv4Address("10.0.0.1")
GROUP = "GETVPN_LAB"
IDENTITY = GroupIdentity(number=1234)
POLICIES = (IsakmpPolicy(group=DhGroup.ECP256),)
SITES = IPv4Network("10.1.0.0/16")
GCM = TransformSet(Cipher.AES_GCM, 256)


def member_address(number: int) -> IPv4Address:
    return IPv4Address(f"10.0.0.{10 + number}")


def site_address(number: int) -> str:
    """The host in the network behind a member."""
    return f"10.1.{number}.1"


def secret(address: IPv4Address) -> bytes:
    return f"psk of {address}".encode()


def key_server_place() -> Place:
    return Place("ks", [f"{KS}/24"])


def member_place(number: int, others: Sequence[int] = (1, 2)) -> Place:
    routes = [f"10.1.{other}.0/24 via {member_address(other)}" for other in others if other != number]
    return Place(
        f"gm{number}",
        [f"{member_address(number)}/24"],
        split=True,
        inside=[f"{site_address(number)}/24"],
        routes=routes,
    )


def key_server(
    members: Sequence[IPv4Address],
    *,
    clock_scale: float = 1.0,
    transform: TransformSet = GCM,
    tek_lifetime: int = 3600,
    keylog: bool = False,
) -> NodeConfiguration:
    permit = AccessListEntry(Action.PERMIT, 0, SITES, SITES)
    return NodeConfiguration(
        "ks",
        NodeKind.KS,
        (Interface(LAN, "02:00:00:00:00:01", (IPv4Interface(f"{KS}/24"),)),),
        isakmp_policies=POLICIES,
        pre_shared_keys=tuple(PreSharedKey(address, secret(address)) for address in members),
        key_server_groups=(KeyServerGroup(GROUP, IDENTITY, KS, (SaIpsec((permit,), transform, tek_lifetime),)),),
        clock_scale=clock_scale,
        keylog=keylog,
    )


def member(
    number: int,
    *,
    key_servers: Sequence[IPv4Address] = (KS,),
    psk: bytes | None = None,
    clock_scale: float = 1.0,
    identity: GroupIdentity = IDENTITY,
    keylog: bool = False,
) -> NodeConfiguration:
    address = member_address(number)
    interface = Interface(LAN, f"02:00:00:00:01:{number:02x}", (IPv4Interface(f"{address}/24"),), crypto_map=True)
    return NodeConfiguration(
        f"gm{number}",
        NodeKind.CE,
        (interface,),
        isakmp_policies=POLICIES,
        pre_shared_keys=tuple(PreSharedKey(server, psk or secret(address)) for server in key_servers),
        memberships=(GroupMembership(GROUP, identity, tuple(key_servers), LAN, address),),
        clock_scale=clock_scale,
        keylog=keylog,
    )
