"""Socket options that Python has no names for, and the ancillary data of UDP. Facts: ip(7), ipv6(7), linux/in6.h."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address

IP_PKTINFO = 8
IP_MTU_DISCOVER, IP_PMTUDISC_DONT, IP_PMTUDISC_WANT, IP_PMTUDISC_DO = 10, 0, 1, 2
IP_RECVERR = 11
MSG_ERRQUEUE = 0x2000
SO_EE_ORIGIN_ICMP, SO_EE_ORIGIN_ICMP6 = 2, 3
IPV6_MTU_DISCOVER, IPV6_RECVERR = 23, 25

ICMP_UNREACHABLE, ICMP_TIME_EXCEEDED = 3, 11
ICMP_PORT_UNREACHABLE, ICMP_FRAGMENTATION_NEEDED = 3, 4
_PROHIBITED = (9, 10, 13)

ICMPV6_UNREACHABLE, ICMPV6_TOO_BIG, ICMPV6_TIME_EXCEEDED = 1, 2, 3
ICMPV6_PORT_UNREACHABLE = 4
_PROHIBITED_IPV6 = (1, 5, 6)

_PKTINFO = struct.Struct("=I4s4s")
_EXTENDED_ERROR = struct.Struct("=IBBBBII")

Ancillary = list[tuple[int, int, bytes]]


@dataclass(frozen=True, slots=True)
class IcmpError:
    """An ICMP error about a datagram of ours: to whom it went, what the error quotes of its payload."""

    kind: int
    code: int
    destination: tuple[str, int]
    quoted: bytes
    ipv6: bool = False

    @property
    def name(self) -> str:
        """A stable word: refused, too-big, prohibited, unreachable, ttl-exceeded, icmp-error."""
        if self.ipv6:
            return self._name_of_ipv6()
        if self.kind == ICMP_TIME_EXCEEDED:
            return "ttl-exceeded"
        if self.kind != ICMP_UNREACHABLE:
            return "icmp-error"
        if self.code == ICMP_PORT_UNREACHABLE:
            return "refused"
        if self.code == ICMP_FRAGMENTATION_NEEDED:
            return "too-big"
        return "prohibited" if self.code in _PROHIBITED else "unreachable"

    def _name_of_ipv6(self) -> str:
        """RFC 4443 3."""
        if self.kind == ICMPV6_UNREACHABLE:
            if self.code == ICMPV6_PORT_UNREACHABLE:
                return "refused"
            return "prohibited" if self.code in _PROHIBITED_IPV6 else "unreachable"
        return {ICMPV6_TOO_BIG: "too-big", ICMPV6_TIME_EXCEEDED: "ttl-exceeded"}.get(self.kind, "icmp-error")


def local_address(ancillary: Ancillary) -> IPv4Address | None:
    """The address of ours that a datagram was sent to (IP_PKTINFO)."""
    for level, kind, value in ancillary:
        if level == socket.IPPROTO_IP and kind == IP_PKTINFO:
            return IPv4Address(_PKTINFO.unpack_from(value)[2])
    return None


def from_address(address: IPv4Address) -> Ancillary:
    """Ancillary data that makes a datagram leave from an address of ours."""
    return [(socket.IPPROTO_IP, IP_PKTINFO, _PKTINFO.pack(0, address.packed, bytes(4)))]


def icmp_errors(sock: socket.socket) -> Iterator[IcmpError]:
    """Empty the error queue of a socket with IP(V6)_RECVERR. A queue that is not emptied keeps the event loop awake."""
    while True:
        try:
            quoted, ancillary, _, destination = sock.recvmsg(2048, 512, MSG_ERRQUEUE | socket.MSG_DONTWAIT)
        except OSError:
            return
        for level, kind, value in ancillary:
            known = (level, kind) in ((socket.IPPROTO_IP, IP_RECVERR), (socket.IPPROTO_IPV6, IPV6_RECVERR))
            if known and len(value) >= _EXTENDED_ERROR.size:
                _, origin, icmp_type, code, _, _, _ = _EXTENDED_ERROR.unpack_from(value)
                if origin in (SO_EE_ORIGIN_ICMP, SO_EE_ORIGIN_ICMP6):
                    ipv6 = origin == SO_EE_ORIGIN_ICMP6
                    yield IcmpError(icmp_type, code, (destination or ("0.0.0.0", 0))[:2], quoted, ipv6)
