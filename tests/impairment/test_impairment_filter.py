"""Capture filters mean what they mean to tcpdump, and no program brings the fabric down."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP, fragment
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet, Raw
from scapy.utils import rdpcap, wrpcap

from labctl.configuration.words import WordError
from labctl.impairment.packet_filter import check_program, compile_filter, matches

FILTERS = [
    "udp port 848",
    "esp",
    "ip proto 50 and dst host 10.1.2.10",
    "tcp[tcpflags] & (tcp-syn|tcp-fin) != 0",
    "net 10.1.0.0/16 and not icmp",
    "ip[1] & 0xfc == 0xb8",
    "ip6 or arp",
    "ip6 and udp dst port 53",
    "greater 1000",
    "less 60 or broadcast",
    "icmp[icmptype] = icmp-echo",
    "ip[6:2] & 0x1fff != 0",
    "multicast and not broadcast",
    "udp and udp[4:2] > 100 and ip[8] * 2 + 1 > 64",
    "ether src 02:00:00:00:00:01 and portrange 800-900",
]


def packets() -> list[Packet]:
    ether = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
    found: list[Packet] = [
        ether / IP(src="10.1.1.10", dst="10.1.2.10", tos=0xB8) / UDP(sport=848, dport=848) / Raw(bytes(300)),
        ether / IP(src="10.1.1.10", dst="10.1.2.10", proto=50) / Raw(bytes(64)),
        ether / IP(src="10.1.1.10", dst="10.9.2.10", proto=50) / Raw(bytes(1200)),
        ether / IP(src="172.16.1.2", dst="10.1.2.10") / TCP(sport=40000, dport=80, flags="S"),
        ether / IP(src="172.16.1.2", dst="10.1.2.10") / TCP(sport=40000, dport=80, flags="A") / Raw(bytes(1000)),
        ether / IP(dst="10.1.2.10", ttl=9) / ICMP(type=8),
        ether / IP(dst="192.0.2.1", options=[]) / ICMP(type=0),
        ether / IPv6(dst="2001:db8::1") / UDP(sport=5000, dport=53),
        Ether(dst="ff:ff:ff:ff:ff:ff", src="02:00:00:00:00:01") / ARP(),
        Ether(dst="01:00:5e:40:00:01") / IP(dst="239.192.0.1") / UDP(sport=848, dport=848) / Raw(bytes(10)),
        Ether(dst="01:80:c2:00:00:0e", type=0x88CC) / Raw(bytes(50)),
        ether / Raw(b"\x45"),
    ]
    whole = IP(src="10.1.1.10", dst="10.1.2.10", id=7) / UDP(sport=848, dport=848) / Raw(bytes(3000))
    return found + [ether / part for part in fragment(whole, 1000)]


@pytest.mark.parametrize("text", FILTERS)
def test_a_filter_takes_what_tcpdump_takes(text: str, tmp_path: Path) -> None:
    everything, taken = tmp_path / "all.pcap", tmp_path / "taken.pcap"
    for number, packet in enumerate(sent := packets()):
        packet.time = float(number)
    wrpcap(str(everything), sent)
    subprocess.run(["tcpdump", "-r", everything, "-w", taken, text], check=True, capture_output=True, timeout=60)
    expected = [int(packet.time) for packet in rdpcap(str(taken))]
    program = check_program(compile_filter(text))
    assert [number for number, packet in enumerate(sent) if matches(program, bytes(packet))] == expected
    assert 0 < len(expected) < len(sent)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "the filter is empty"),
        ("udp prt 848", "'udp prt 848' is not a capture filter: can't parse filter expression: syntax error"),
        ("port 99999", "'port 99999' is not a capture filter: illegal port number 99999 > 65535"),
        ("udp\0port", "a filter has no zero octets"),
    ],
)
def test_a_filter_that_is_none_is_refused_with_the_reason(text: str, said: str) -> None:
    with pytest.raises(WordError) as caught:
        compile_filter(text)
    assert caught.value.problem == said


INSTRUCTION = st.tuples(
    st.integers(0, 0xFFFF), st.integers(0, 255), st.integers(0, 255), st.integers(0, 0xFFFFFFFF) | st.integers(0, 20)
)


@given(st.lists(INSTRUCTION, max_size=20), st.binary(max_size=60))
def test_a_program_from_anywhere_is_refused_or_ends(program: list[tuple[int, int, int, int]], frame: bytes) -> None:
    try:
        checked = check_program(tuple(program))
    except ValueError:
        return
    assert matches(checked, frame) in (True, False)


@given(st.sampled_from(FILTERS), st.binary(max_size=200))
def test_no_frame_is_too_odd_for_a_filter(text: str, frame: bytes) -> None:
    assert matches(compile_filter(text), frame) in (True, False)
