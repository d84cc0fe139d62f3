"""What the kernel says of a node's links: state, MTU, counters. Facts: linux/if_link.h (rtnl_link_stats64)."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from labctl.kernel.links import RTM_GETLINK, list_links
from labctl.kernel.netlink import RouteSocket, attributes

IFLA_IFNAME, IFLA_STATS64 = 3, 23

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
