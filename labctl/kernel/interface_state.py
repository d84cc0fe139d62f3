"""What a stack has on an interface, taken down and put up again on another: addresses, routes, and whether it is up.

Facts: rtnetlink(7), linux/if_addr.h, linux/rtnetlink.h. What the kernel derives by itself (broadcast and connected
routes, the local table) is left to it; so are routes with several next hops.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from labctl.kernel import links
from labctl.kernel.addresses import IFADDRMSG, RTM_NEWADDR, RTM_NEWROUTE, RTMSG
from labctl.kernel.lookups import RTA_GATEWAY, RTA_OIF, RTM_GETROUTE
from labctl.kernel.netlink import NLM_F_CREATE, NLM_F_REPLACE, Request, RouteSocket, attribute, attributes, u32

RTM_GETADDR = 22
IFA_CACHEINFO, RTA_CACHEINFO = 6, 12
RTPROT_KERNEL, RT_TABLE_LOCAL, RTN_UNICAST = 2, 255, 1
AF_UNSPEC = 0


@dataclass(frozen=True, slots=True)
class InterfaceState:
    """Addresses and routes as the kernel's own messages, each without its interface."""

    up: bool
    addresses: tuple[tuple[bytes, bytes], ...]
    routes: tuple[tuple[bytes, bytes], ...]


def read_state(route: RouteSocket, interface: str) -> InterfaceState:
    """What is on an interface of the socket's namespace. Raises OSError, KeyError if there is none of that name."""
    link = links.list_links(route)[interface]
    found = []
    for body in route.dump(RTM_GETADDR, IFADDRMSG.pack(AF_UNSPEC, 0, 0, 0, 0)):
        family, length, _, scope, index = IFADDRMSG.unpack_from(body)
        if index == link.index:
            head = IFADDRMSG.pack(family, length, 0, scope, 0)
            found.append((head, _without(body[IFADDRMSG.size :], IFA_CACHEINFO)))
    ways = []
    for body in route.dump(RTM_GETROUTE, RTMSG.pack(AF_UNSPEC, 0, 0, 0, 0, 0, 0, 0, 0)):
        table, protocol, kind = body[4], body[5], body[7]
        values = dict(attributes(body[RTMSG.size :]))
        if values.get(RTA_OIF) != struct.pack("=I", link.index):
            continue
        if protocol == RTPROT_KERNEL or table == RT_TABLE_LOCAL or kind != RTN_UNICAST:
            continue
        ways.append((body[: RTMSG.size], _without(body[RTMSG.size :], RTA_CACHEINFO, RTA_OIF)))
    # A gateway must be on a link by the time it is named.
    ways.sort(key=lambda way: RTA_GATEWAY in dict(attributes(way[1])))
    return InterfaceState(link.is_up, tuple(found), tuple(ways))


def restore_state(route: RouteSocket, interface: str, state: InterfaceState) -> None:
    """Put it on an interface that is up, whatever was on it before stays. Raises OSError."""
    index = links.list_links(route)[interface].index
    flags = NLM_F_CREATE | NLM_F_REPLACE
    requests = [
        Request(RTM_NEWADDR, flags, head[:4] + struct.pack("=I", index) + rest, f"give {interface} its address back")
        for head, rest in state.addresses
    ]
    if state.up:
        requests += [
            Request(RTM_NEWROUTE, flags, head + rest + u32(RTA_OIF, index), f"give {interface} its route back")
            for head, rest in state.routes
        ]
    else:
        requests.append(links.set_down(interface))
    route.apply(requests)


def _without(data: bytes, *kinds: int) -> bytes:
    return b"".join(attribute(kind, value) for kind, value in attributes(data) if kind not in kinds)
