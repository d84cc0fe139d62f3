"""The kernel's multicast routing: virtual interfaces and the forwarding cache (linux/mroute.h), and the sockets of IGMP
and PIM, whose every packet comes with its interface (IP_PKTINFO).

It needs CAP_NET_ADMIN and CAP_NET_RAW in the network namespace, and a kernel with CONFIG_IP_MROUTE.
"""

from __future__ import annotations

import fcntl
import socket
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address

from labctl.node.sockets import IP_PKTINFO

MRT_INIT, MRT_DONE, MRT_ADD_VIF, MRT_DEL_VIF, MRT_ADD_MFC, MRT_DEL_MFC, MRT_ASSERT = 200, 201, 202, 203, 204, 205, 207
SIOCGETSGCNT = 0x89E1
VIFF_USE_IFINDEX = 0x8
IGMPMSG_NOCACHE, IGMPMSG_WRONGVIF = 1, 2
IP_MULTICAST_ALL = 49

# linux/mroute.h: MAXVIFS.
MAX_INTERFACES = 32

PROTOCOL_IGMP = 2
RECEIVE_OCTETS = 65_536
BUFFER_OCTETS = 1 << 20

# Every query carries the router alert option (RFC 2113), so that routers look at it; precedence 6 (RFC 3376 4).
_ROUTER_ALERT = bytes((148, 4, 0, 0))
_INTERNETWORK_CONTROL = 0xC0

_VIF = struct.Struct("=HBBIi4s")
_MFC = struct.Struct("=4s4sH32sxxIIIi")
_UPCALL = struct.Struct("=8xBBBB4s4s")
_COUNTS = struct.Struct("=4s4sLLL")
_PKTINFO = struct.Struct("=I4s4s")
_MREQN = struct.Struct("=4s4si")


@dataclass(frozen=True, slots=True)
class Upcall:
    """The kernel asks what to do with a flow (`wrong` false), or says that it came in where it should go out."""

    wrong: bool
    vif: int
    source: IPv4Address
    group: IPv4Address


@dataclass(frozen=True, slots=True)
class Heard:
    """A packet of a link: its body without the IP header."""

    interface: int
    source: IPv4Address
    ttl: int
    body: bytes


@dataclass(frozen=True, slots=True)
class FlowCounts:
    """Packets and octets of an entry, and packets that came in at another interface than the entry's."""

    packets: int
    octets: int
    wrong: int


class LinkSocket:
    """Packets of one IP protocol that stay on their links, in and out."""

    def __init__(self, protocol: int, *, router_alert: bool = False) -> None:
        kind = socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        self._socket = socket.socket(socket.AF_INET, kind, protocol)
        option = self._socket.setsockopt
        option(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_OCTETS)
        option(socket.IPPROTO_IP, IP_PKTINFO, 1)
        option(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 1)
        option(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 0)
        option(socket.IPPROTO_IP, socket.IP_TOS, _INTERNETWORK_CONTROL)
        if router_alert:
            option(socket.IPPROTO_IP, socket.IP_OPTIONS, _ROUTER_ALERT)

    def fileno(self) -> int:
        """For the event loop."""
        return self._socket.fileno()

    def listen_to(self, interface: int, *groups: IPv4Address) -> None:
        """Have packets to these groups delivered from an interface. Raises OSError."""
        for group in groups:
            request = _MREQN.pack(group.packed, bytes(4), interface)
            self._socket.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, request)

    def send(self, interface: int, source: IPv4Address, destination: IPv4Address, body: bytes) -> bool:
        """Send on an interface; False where the kernel cannot at the moment (it is down, full, or gone)."""
        ancillary = [(socket.IPPROTO_IP, IP_PKTINFO, _PKTINFO.pack(interface, source.packed, bytes(4)))]
        try:
            self._socket.sendmsg([body], ancillary, 0, (str(destination), 0))
        except OSError:
            return False  # said again soon
        return True

    def receive(self, limit: int) -> Iterator[Heard | Upcall]:
        """At most `limit` packets that wait."""
        for _ in range(limit):
            try:
                data, ancillary, _, _ = self._socket.recvmsg(RECEIVE_OCTETS, 64)
            except BlockingIOError:
                return
            except OSError:
                continue
            found = _read(data, ancillary)
            if found is not None:
                yield found

    def close(self) -> None:
        """Close the socket; the kernel forgets its memberships."""
        self._socket.close()


class MulticastForwarding(LinkSocket):
    """The IGMP socket that owns the multicast routing of the network namespace. One exists at a time."""

    def __init__(self) -> None:
        super().__init__(PROTOCOL_IGMP, router_alert=True)
        try:
            self._socket.setsockopt(socket.IPPROTO_IP, MRT_INIT, struct.pack("=i", 1))
            # Tell us of packets that come in where they should go out: another router forwards there.
            self._socket.setsockopt(socket.IPPROTO_IP, MRT_ASSERT, struct.pack("=i", 1))
        except OSError:
            self._socket.close()
            raise

    def add_interface(self, vif: int, index: int) -> None:
        """Route multicast on an interface, by its index. Raises OSError."""
        value = _VIF.pack(vif, VIFF_USE_IFINDEX, 1, 0, index, bytes(4))
        self._socket.setsockopt(socket.IPPROTO_IP, MRT_ADD_VIF, value)

    def remove_interface(self, vif: int) -> None:
        """Route no more on it. Fine if the kernel has removed it by itself."""
        try:
            self._socket.setsockopt(socket.IPPROTO_IP, MRT_DEL_VIF, _VIF.pack(vif, 0, 0, 0, 0, bytes(4)))
        except OSError:
            return

    def set_entry(self, source: IPv4Address, group: IPv4Address, incoming: int, outgoing: Iterable[int]) -> None:
        """Forward a flow from one interface to others; packets that waited for it go at once. Raises OSError."""
        ttls = bytearray(32)
        for vif in outgoing:
            ttls[vif] = 1  # any packet with more than this to live
        value = _MFC.pack(source.packed, group.packed, incoming, bytes(ttls), 0, 0, 0, 0)
        self._socket.setsockopt(socket.IPPROTO_IP, MRT_ADD_MFC, value)

    def remove_entry(self, source: IPv4Address, group: IPv4Address) -> None:
        """Forget a flow. Fine if the kernel has forgotten it."""
        try:
            value = _MFC.pack(source.packed, group.packed, 0, bytes(32), 0, 0, 0, 0)
            self._socket.setsockopt(socket.IPPROTO_IP, MRT_DEL_MFC, value)
        except OSError:
            return

    def counts(self, source: IPv4Address, group: IPv4Address) -> FlowCounts | None:
        """What an entry has carried; None if there is none."""
        request = bytearray(_COUNTS.pack(source.packed, group.packed, 0, 0, 0))
        try:
            fcntl.ioctl(self._socket, SIOCGETSGCNT, request)
        except OSError:
            return None
        return FlowCounts(*_COUNTS.unpack(request)[2:])


class UpstreamMemberships:
    """Groups that this router is a member of on behalf of others. The kernel reports them, and answers queries."""

    def __init__(self) -> None:
        # A socket each: the kernel limits the memberships of one (igmp_max_memberships), and every router to the same.
        self._sockets: dict[tuple[int, IPv4Address], socket.socket] = {}

    def become(self, wanted: set[tuple[int, IPv4Address]]) -> None:
        """Be a member of these (interface, group), and of no others."""
        for gone in self._sockets.keys() - wanted:
            self._sockets.pop(gone).close()
        for interface, group in sorted(wanted - self._sockets.keys()):
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            try:
                request = _MREQN.pack(group.packed, bytes(4), interface)
                sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, request)
            except OSError:
                sock.close()  # the interface is going; the next change asks again
                continue
            self._sockets[interface, group] = sock

    def close(self) -> None:
        """Leave all."""
        self.become(set())


def _read(data: bytes, ancillary: list[tuple[int, int, bytes]]) -> Heard | Upcall | None:
    if len(data) < 20:
        return None
    if data[9] == 0:
        # struct igmpmsg lies over the IP header: protocol 0 tells it from a packet.
        kind, _, low, high, source, group = _UPCALL.unpack_from(data)
        if kind not in (IGMPMSG_NOCACHE, IGMPMSG_WRONGVIF):
            return None
        return Upcall(kind == IGMPMSG_WRONGVIF, low | high << 8, IPv4Address(source), IPv4Address(group))
    header = (data[0] & 15) * 4
    for level, kind, value in ancillary:
        if level == socket.IPPROTO_IP and kind == IP_PKTINFO and header >= 20:
            return Heard(_PKTINFO.unpack_from(value)[0], IPv4Address(data[12:16]), data[8], data[header:])
    return None
