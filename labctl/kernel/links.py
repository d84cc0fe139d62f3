"""Links as netlink requests: veth pairs whose ends are born in their nodes' namespaces, bridges, flags, lists.

Facts: linux/if_link.h, linux/veth.h; group_fwd_mask: Documentation/networking/bridge.rst.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from labctl.kernel.netlink import (
    NLM_F_CREATE,
    NLM_F_EXCL,
    Request,
    RouteSocket,
    attribute,
    attributes,
    nested,
    text,
    u8,
    u16,
    u32,
)

RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK = 16, 17, 18
IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_MASTER, IFLA_LINKINFO = 1, 3, 4, 10, 18
IFLA_IFALIAS, IFLA_AF_SPEC, IFLA_NET_NS_FD = 20, 26, 28
IFLA_INFO_KIND, IFLA_INFO_DATA, VETH_INFO_PEER = 1, 2, 1
IFLA_BR_FORWARD_DELAY, IFLA_BR_STP_STATE, IFLA_BR_GROUP_FWD_MASK, IFLA_BR_MCAST_SNOOPING = 1, 5, 9, 23
IFLA_INET_CONF = 1
IPV4_DEVCONF_RP_FILTER = 8

IFF_UP, IFF_NOARP, IFF_PROMISC = 0x1, 0x80, 0x100
AF_UNSPEC, AF_INET = 0, 2

# The longest name an interface can have (IFNAMSIZ with its terminating zero).
LONGEST_NAME = 15

# All of 01:80:c2:00:00:0X that a bridge may forward. STP, pause and LACP (bits 0 to 2) the kernel keeps to itself.
FORWARDED_GROUPS = 0xFFF8

_INFO = struct.Struct("=BxHiII")  # struct ifinfomsg: family, type, index, flags, change


@dataclass(frozen=True, slots=True)
class VethEnd:
    """One end of a veth pair: its name, MAC and MTU, and a descriptor of the namespace in which it is born."""

    name: str
    mac: str
    namespace: int
    mtu: int = 1500


@dataclass(frozen=True, slots=True)
class LinkState:
    """One link as the kernel lists it."""

    index: int
    name: str
    flags: int
    mtu: int
    mac: str

    @property
    def is_up(self) -> bool:
        """Set up by whoever owns it."""
        return bool(self.flags & IFF_UP)


def veth(one: VethEnd, other: VethEnd) -> Request:
    """Both ends in one request: no end ever exists in the fabric's own namespace, or without its peer."""
    peer = _INFO.pack(AF_UNSPEC, 0, 0, 0, 0) + _end(other)
    info = text(IFLA_INFO_KIND, "veth") + nested(IFLA_INFO_DATA, attribute(VETH_INFO_PEER | 0x8000, peer))
    body = _INFO.pack(AF_UNSPEC, 0, 0, 0, 0) + _end(one) + nested(IFLA_LINKINFO, info)
    return Request(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body, f"create the link {one.name} -- {other.name}")


def _end(end: VethEnd) -> bytes:
    return (
        text(IFLA_IFNAME, end.name)
        + attribute(IFLA_ADDRESS, bytes.fromhex(end.mac.replace(":", "")))
        + u32(IFLA_MTU, end.mtu)
        + u32(IFLA_NET_NS_FD, end.namespace)
    )


def bridge(name: str, alias: str) -> Request:
    """A LAN: no spanning tree and no delay, no snooping, and every group frame forwarded that may be."""
    data = (
        u32(IFLA_BR_FORWARD_DELAY, 0)
        + u32(IFLA_BR_STP_STATE, 0)
        + u16(IFLA_BR_GROUP_FWD_MASK, FORWARDED_GROUPS)
        + u8(IFLA_BR_MCAST_SNOOPING, 0)
    )
    info = text(IFLA_INFO_KIND, "bridge") + nested(IFLA_INFO_DATA, data)
    body = _INFO.pack(AF_UNSPEC, 0, 0, 0, 0) + text(IFLA_IFNAME, name) + nested(IFLA_LINKINFO, info)
    return Request(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body, f"create the bridge {name} for the switch {alias}")


def alias(name: str, words: str) -> Request:
    """Words beside a link that `ip link` shows."""
    body = _INFO.pack(AF_UNSPEC, 0, 0, 0, 0) + text(IFLA_IFNAME, name) + text(IFLA_IFALIAS, words)
    return Request(RTM_NEWLINK, 0, body, f"name {name} {words}")


def set_up(name: str, *, flags: int = 0, bridge_index: int | None = None, rp_filter: int | None = None) -> Request:
    """Set a link up, with more flags, as a port of a bridge, or with a reverse-path filter of its own."""
    wanted = IFF_UP | flags
    body = _INFO.pack(AF_UNSPEC, 0, 0, wanted, wanted) + text(IFLA_IFNAME, name)
    if bridge_index is not None:
        body += u32(IFLA_MASTER, bridge_index)
    if rp_filter is not None:
        settings = nested(IFLA_INET_CONF, u32(IPV4_DEVCONF_RP_FILTER, rp_filter))
        body += nested(IFLA_AF_SPEC, nested(AF_INET, settings))
    return Request(RTM_NEWLINK, 0, body, f"set {name} up")


def set_down(name: str) -> Request:
    """Set a link down: its addresses stay, its routes go."""
    return Request(RTM_NEWLINK, 0, _INFO.pack(AF_UNSPEC, 0, 0, 0, IFF_UP) + text(IFLA_IFNAME, name), f"set {name} down")


def unplug(name: str) -> Request:
    """Take a port out of its bridge."""
    body = _INFO.pack(AF_UNSPEC, 0, 0, 0, 0) + text(IFLA_IFNAME, name) + u32(IFLA_MASTER, 0)
    return Request(RTM_NEWLINK, 0, body, f"take {name} out of its bridge")


def delete(name: str) -> Request:
    """Remove a link; the other end of a veth pair goes with it."""
    return Request(RTM_DELLINK, 0, _INFO.pack(AF_UNSPEC, 0, 0, 0, 0) + text(IFLA_IFNAME, name), f"delete {name}")


def move(index: int, name: str, namespace: int, new_name: str, mac: str) -> Request:
    """Move a link to another namespace under a new name. It arrives down and without addresses."""
    body = _INFO.pack(AF_UNSPEC, 0, index, 0, IFF_UP | IFF_NOARP | IFF_PROMISC)
    body += u32(IFLA_NET_NS_FD, namespace) + text(IFLA_IFNAME, new_name)
    body += attribute(IFLA_ADDRESS, bytes.fromhex(mac.replace(":", "")))
    return Request(RTM_NEWLINK, 0, body, f"move {name} to {new_name}")


def list_links(route: RouteSocket) -> dict[str, LinkState]:
    """Every link of the socket's namespace, by name."""
    return {link.name: link for link in _parse(route.dump(RTM_GETLINK, _INFO.pack(AF_UNSPEC, 0, 0, 0, 0)))}


def _parse(bodies: list[bytes]) -> Iterator[LinkState]:
    for body in bodies:
        _, _, index, flags, _ = _INFO.unpack_from(body)
        values = dict(attributes(body[_INFO.size :]))
        yield LinkState(
            index,
            values[IFLA_IFNAME].rstrip(b"\0").decode(),
            flags,
            struct.unpack("=I", values[IFLA_MTU])[0],
            values.get(IFLA_ADDRESS, b"").hex(":"),
        )
