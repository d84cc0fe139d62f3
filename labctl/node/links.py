"""What the kernel says of a node's links: state, MTU, counters.

Facts: linux/if_link.h (rtnl_link_stats64), linux/ip.h (IPV4_DEVCONF_*).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from labctl.kernel.links import RTM_GETLINK, RTM_NEWLINK, list_links
from labctl.kernel.netlink import Request, RouteSocket, attributes, nested, text, u32

IFLA_IFNAME, IFLA_STATS64, IFLA_AF_SPEC = 3, 23, 26
IFLA_INET_CONF, AF_INET = 1, 2
IPV4_DEVCONF_ACCEPT_LOCAL = 23

_INFO = struct.Struct("=BxHiII")
_STATISTICS = struct.Struct("=8Q")


@dataclass(frozen=True, slots=True)
class LinkCounters:
    """Frames and octets of a link since it exists."""

    rx_packets: int
    tx_packets: int
    rx_bytes: int
    tx_bytes: int
    rx_errors: int
    tx_errors: int
    rx_dropped: int
    tx_dropped: int


def read_links() -> dict[str, dict[str, object]]:
    """Per link of our network namespace: `{mac, mtu, up}`. Raises OSError."""
    with RouteSocket() as route:
        return {link.name: {"mac": link.mac, "mtu": link.mtu, "up": link.is_up} for link in list_links(route).values()}


def accept_own_packets(interface: str) -> None:
    """Have the kernel take packets with a source of its own from an interface (accept_local). Raises OSError.

    The crypto map answers a packet that is too big with an ICMP error in the node's own name.
    """
    setting = nested(IFLA_INET_CONF, u32(IPV4_DEVCONF_ACCEPT_LOCAL, 1))
    body = _INFO.pack(0, 0, 0, 0, 0) + text(IFLA_IFNAME, interface)
    body += nested(IFLA_AF_SPEC, nested(AF_INET, setting))
    with RouteSocket() as route:
        route.apply([Request(RTM_NEWLINK, 0, body, f"set accept_local of {interface}")])


def read_counters() -> dict[str, LinkCounters]:
    """The counters of every link of our network namespace. Raises OSError."""
    found = {}
    with RouteSocket() as route:
        for body in route.dump(RTM_GETLINK, _INFO.pack(0, 0, 0, 0, 0)):
            values = dict(attributes(body[_INFO.size :]))
            if IFLA_STATS64 in values:
                name = values[IFLA_IFNAME].rstrip(b"\0").decode()
                found[name] = LinkCounters(*_STATISTICS.unpack_from(values[IFLA_STATS64]))
    return found
