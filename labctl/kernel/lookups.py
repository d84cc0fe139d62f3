"""Asks the kernel which way a packet would go, and hears when that may have changed. Facts: rtnetlink(7)."""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass
from ipaddress import IPv4Address

from labctl.kernel.addresses import RTMSG
from labctl.kernel.netlink import NetlinkError, RouteSocket, attribute, attributes

RTM_GETROUTE = 26
RTA_DST, RTA_OIF, RTA_GATEWAY, RTA_PRIORITY = 1, 4, 5, 6
RTN_UNICAST, RTN_LOCAL = 1, 2
AF_INET = 2

# What multicast groups of route netlink tell of: links, IPv4 addresses, IPv4 routes.
RTMGRP_LINK, RTMGRP_IPV4_IFADDR, RTMGRP_IPV4_ROUTE = 0x1, 0x10, 0x40


@dataclass(frozen=True, slots=True)
class Way:
    """Where packets to an address leave: the link's index, and whether the address is `local` or on the link itself."""

    interface: int
    local: bool
    connected: bool
    metric: int


def way_to(route: RouteSocket, address: IPv4Address) -> Way | None:
    """The kernel's way to an address; None if there is none (or it prohibits it). Raises OSError."""
    body = RTMSG.pack(AF_INET, 32, 0, 0, 0, 0, 0, 0, 0) + attribute(RTA_DST, address.packed)
    try:
        answer = route.ask(RTM_GETROUTE, body, f"look up the route to {address}")
    except NetlinkError:
        return None
    kind = RTMSG.unpack_from(answer)[7]
    values = dict(attributes(answer[RTMSG.size :]))
    if kind not in (RTN_UNICAST, RTN_LOCAL) or RTA_OIF not in values:
        return None
    metric = struct.unpack("=I", values[RTA_PRIORITY])[0] if RTA_PRIORITY in values else 0
    interface = struct.unpack("=I", values[RTA_OIF])[0]
    return Way(interface, kind == RTN_LOCAL, RTA_GATEWAY not in values, metric)


class RouteWatch:
    """A socket that becomes readable when a link, an address or a route has changed."""

    def __init__(self) -> None:
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        self._socket = socket.socket(socket.AF_NETLINK, kind, socket.NETLINK_ROUTE)
        self._socket.bind((0, RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV4_ROUTE))

    def fileno(self) -> int:
        """For the event loop."""
        return self._socket.fileno()

    def drain(self) -> None:
        """Take what was told. What matters is that there was something, even if the kernel had to drop some of it."""
        while True:
            try:
                self._socket.recv(1 << 16)
            except BlockingIOError:
                return
            except OSError:
                continue  # ENOBUFS: more has changed than it could tell

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()
