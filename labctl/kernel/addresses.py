"""Addresses and static routes as netlink requests. Facts: linux/if_addr.h, linux/rtnetlink.h, rtnetlink(7)."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network

from labctl.kernel.netlink import NLM_F_CREATE, NLM_F_REPLACE, Request, attribute, u32

RTM_NEWADDR, RTM_NEWROUTE = 20, 24
IFA_ADDRESS, IFA_LOCAL, IFA_BROADCAST, IFA_FLAGS = 1, 2, 4, 8
IFA_F_NODAD = 0x02
RTA_DST, RTA_OIF, RTA_GATEWAY = 1, 4, 5
RT_TABLE_MAIN, RTPROT_STATIC, RT_SCOPE_UNIVERSE, RTN_UNICAST = 254, 4, 0, 1
AF_INET, AF_INET6 = 2, 10

IFADDRMSG = struct.Struct("=BBBBI")
RTMSG = struct.Struct("=BBBBBBBBI")


def _family(version: int) -> int:
    return AF_INET if version == 4 else AF_INET6


def address(index: int, interface: str, value: IPv4Interface | IPv6Interface) -> Request:
    """An address on the link with this index. IPv6 ones are usable at once: a lab's addresses are planned."""
    length = value.network.prefixlen
    body = IFADDRMSG.pack(_family(value.version), length, 0, 0, index)
    body += attribute(IFA_LOCAL, value.ip.packed) + attribute(IFA_ADDRESS, value.ip.packed)
    if isinstance(value, IPv4Interface):
        if length < 31:  # RFC 3021: a /31 has no broadcast address
            body += attribute(IFA_BROADCAST, value.network.broadcast_address.packed)
    else:
        body += u32(IFA_FLAGS, IFA_F_NODAD)
    flags = NLM_F_CREATE | NLM_F_REPLACE
    return Request(RTM_NEWADDR, flags, body, f"give {interface} the address {value.with_prefixlen}")


def route(prefix: IPv4Network | IPv6Network, next_hop: IPv4Address | IPv6Address, index: int) -> Request:
    """A static route through a neighbour on the link with this index; an older one for the prefix is replaced."""
    head = (_family(prefix.version), prefix.prefixlen, 0, 0, RT_TABLE_MAIN, RTPROT_STATIC, RT_SCOPE_UNIVERSE)
    body = RTMSG.pack(*head, RTN_UNICAST, 0)
    if prefix.prefixlen:
        body += attribute(RTA_DST, prefix.network_address.packed)
    body += attribute(RTA_GATEWAY, next_hop.packed) + u32(RTA_OIF, index)
    flags = NLM_F_CREATE | NLM_F_REPLACE
    return Request(RTM_NEWROUTE, flags, body, f"add the route {prefix} via {next_hop}")
