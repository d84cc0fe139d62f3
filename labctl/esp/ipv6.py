"""IPv6 headers as a policy reads them: what is behind the extension headers (RFC 8200 4), and what stays on a link."""

from __future__ import annotations

from typing import NamedTuple

from labctl.esp.errors import DropPacket, DropReason
from labctl.esp.ip import IPV6_HEADER, PROTOCOL_ICMPV6

HOP_BY_HOP, ROUTING, FRAGMENT, AUTHENTICATION, DESTINATION = 0, 43, 44, 51, 60
# Those that another header follows: which one their first octet says, how long they are the second (but FRAGMENT's).
EXTENSIONS = frozenset((HOP_BY_HOP, ROUTING, FRAGMENT, AUTHENTICATION, DESTINATION))

# RFC 4861 4, RFC 3810 3, RFC 2710 3, RFC 3810 5.2.
NEIGHBOUR_DISCOVERY = range(133, 138)
LISTENERS = frozenset((130, 131, 132, 143))
# What no router lets through: whoever sees it knows that a neighbour sent it (RFC 4861 3.1).
FARTHEST_HOP_LIMIT = 255


class Chain(NamedTuple):
    """What a packet carries. `start` is where the protocol's own header begins.

    Of a fragment that is not the first, `offset` (octets) is not 0, and `protocol` is what its fragment header says:
    the rest of the headers is in the first one.
    """

    protocol: int
    start: int
    fragment: bool = False
    offset: int = 0


def read_chain(packet: memoryview) -> Chain:
    """The headers of a packet whose lengths `ip.check_packet` accepted.

    Raises DropPacket where they have no end in it, as those of a first fragment must (RFC 7112 5).
    """
    protocol, start, size = packet[6], IPV6_HEADER, len(packet)
    fragment = False
    while protocol in EXTENSIONS:
        if start + 8 > size:
            raise DropPacket(DropReason.MALFORMED, "the headers go on behind the packet's end")
        following, length = packet[start], packet[start + 1]
        if protocol == FRAGMENT:
            fragment = True
            offset = int.from_bytes(packet[start + 2 : start + 4], "big") & ~7
            if offset:
                return Chain(following, start + 8, fragment, offset)
            octets = 8
        else:  # RFC 8200 4.3 to 4.6; RFC 4302 2.2
            octets = (length + 2) * 4 if protocol == AUTHENTICATION else (length + 1) * 8
        start += octets
        protocol = following
        if start > size:
            raise DropPacket(DropReason.MALFORMED, "the headers go on behind the packet's end")
    return Chain(protocol, start, fragment)


def stays_on_the_link(packet: memoryview, chain: Chain) -> bool:
    """True for what never leaves its link, and so nobody but a neighbour can read: encrypted, it would reach nobody.

    Neighbour discovery, listener reports and queries, and whatever goes from one link-local address to another, or to
    link-local multicast, as routing protocols do (OSPFv3, EIGRP, PIM, RIPng). Routers forward none of it (RFC 4291
    2.5.6), and a hop limit of 255 has crossed none (RFC 4861 7.1): no host gets anything past a policy as this.
    """
    source_is_local = packet[8] == 0xFE and packet[9] & 0xC0 == 0x80
    to_multicast = packet[24] == 0xFF
    if source_is_local and (
        (packet[24] == 0xFE and packet[25] & 0xC0 == 0x80) or (to_multicast and packet[25] & 0x0F == 2)
    ):
        return True
    if chain.protocol != PROTOCOL_ICMPV6 or chain.fragment or len(packet) <= chain.start:
        return False
    kind, hop_limit = packet[chain.start], packet[7]
    if kind in NEIGHBOUR_DISCOVERY:
        return hop_limit == FARTHEST_HOP_LIMIT
    # A report of MLDv1 goes to the group it is about, of whatever scope.
    return kind in LISTENERS and hop_limit == 1 and to_multicast and (source_is_local or not any(packet[8:24]))


def decision_key(packet: memoryview) -> bytes | None:
    """What a policy's decision on a packet depends on; None for extension headers, which are read each time."""
    protocol = packet[6]
    if protocol in EXTENSIONS:
        return None
    if protocol == PROTOCOL_ICMPV6:
        return bytes(packet[6:41])
    return bytes(packet[6:7]) + bytes(packet[8:44])
