"""What checks see in a frame; scapy makes the frames."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.contrib.mpls import MPLS
from scapy.layers.inet import ICMP, IP
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6
from scapy.layers.l2 import ARP, Dot1Q, Ether

from labctl.checks.packets import Packet, packet_of

INNER = IP(src="10.1.1.10", dst="10.1.2.10", tos=46 << 2) / ICMP()
EXPECTED = Packet(IPv4Address("10.1.1.10"), IPv4Address("10.1.2.10"), 1, 46)


@pytest.mark.parametrize(
    "wrapped",
    [
        Ether() / INNER,
        Ether() / Dot1Q(vlan=7) / INNER,
        Ether() / Dot1Q(vlan=7) / Dot1Q(vlan=8) / INNER,
        Ether() / MPLS(label=16, s=1) / INNER,
        Ether() / MPLS(label=16, s=0) / MPLS(label=17, s=1) / INNER,
        Ether() / Dot1Q(vlan=7) / MPLS(label=16, s=1) / INNER,
    ],
    ids=["plain", "tag", "two-tags", "label", "two-labels", "tag-and-label"],
)
def test_the_ipv4_header_is_found_behind_tags_and_labels(wrapped: Ether) -> None:
    assert packet_of(bytes(wrapped)) == EXPECTED


INNER6 = IPv6(src="2001:db8:1:1::10", dst="2001:db8:1:2::10", tc=46 << 2 | 1) / ICMPv6EchoRequest()


@pytest.mark.parametrize(
    "wrapped",
    [Ether() / INNER6, Ether() / Dot1Q(vlan=7) / INNER6, Ether() / MPLS(label=16, s=0) / MPLS(label=17, s=1) / INNER6],
    ids=["plain", "tag", "two-labels"],
)
def test_the_ipv6_header_is_found_behind_tags_and_labels(wrapped: Ether) -> None:
    ends = IPv6Address("2001:db8:1:1::10"), IPv6Address("2001:db8:1:2::10")
    assert packet_of(bytes(wrapped)) == Packet(*ends, 58, 46)


@pytest.mark.parametrize("other", [Ether() / ARP(), Ether(type=0x86DD) / bytes(39), Ether(type=0x86DD) / bytes(40)])
def test_what_is_not_ip_is_no_packet(other: Ether) -> None:
    assert packet_of(bytes(other)) is None


@given(st.binary(max_size=80))
def test_any_octets_are_a_packet_or_none(data: bytes) -> None:
    found = packet_of(data)
    assert found is None or 0 <= found.dscp <= 63


@given(st.integers(0, 60))
def test_a_frame_cut_short_is_a_packet_or_none(length: int) -> None:
    packet_of(bytes(Ether() / Dot1Q() / MPLS(label=16, s=1) / INNER)[:length])
