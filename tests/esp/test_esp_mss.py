"""The MSS that SYNs offer: lowered with a checksum that scapy finds right, and nothing else touched."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.packet import Raw

from labctl.esp.mss import adjust_mss


def segment(options: list[Any], *, flags: str = "S", data: bytes = b"", **header: Any) -> Any:
    return IP(bytes(IP(src="10.1.1.10", dst="10.1.2.10", **header) / TCP(flags=flags, options=options) / Raw(data)))


OTHERS = st.lists(
    st.sampled_from([("NOP", None), ("WScale", 7), ("SAckOK", b""), ("Timestamp", (1, 2))]), max_size=3, unique=True
)


@given(
    OTHERS, OTHERS, st.integers(0, 65535), st.integers(500, 1460), st.binary(max_size=9), st.sampled_from(["S", "SA"])
)
@settings(max_examples=150, deadline=None)
def test_a_larger_offer_is_lowered_and_a_smaller_one_stays(
    before: list[Any], after: list[Any], offered: int, size: int, data: bytes, flags: str
) -> None:
    sent = segment([*before, ("MSS", offered), *after], flags=flags, data=data)
    packet = memoryview(bytearray(bytes(sent)))
    assert adjust_mss(packet, size) is (offered > size)
    expected = sent.copy()
    expected[TCP].options = [*before, ("MSS", min(offered, size)), *after]
    del expected[TCP].chksum, expected[TCP].dataofs, expected.len, expected.chksum, expected.ihl
    assert bytes(packet) == bytes(expected)


@pytest.mark.parametrize(
    "packet",
    [
        segment([("MSS", 1460)], flags="A"),
        segment([("MSS", 1460)], flags="SR"),
        segment([("WScale", 2)]),
        segment([]),
        segment([("MSS", 1460)], frag=2),
        IP(src="10.1.1.10", dst="10.1.2.10") / UDP() / Raw(b"\2" * 40),
        IPv6() / TCP(flags="S", options=[("MSS", 1460)]),
    ],
    ids=["no syn", "reset", "no offer", "no option", "later fragment", "udp", "ipv6"],
)
def test_what_offers_nothing_is_left_alone(packet: Any) -> None:
    view = memoryview(bytearray(bytes(packet)))
    assert not adjust_mss(view, 500) and bytes(view) == bytes(packet)


@given(st.binary(max_size=90), st.binary(max_size=44))
@settings(max_examples=200, deadline=None)
def test_noise_changes_nothing_behind_the_packet(noise: bytes, options: bytes) -> None:
    for packet in (noise, bytes(segment([]))[:33] + b"\x02" + bytes(6) + options):
        view = memoryview(bytearray(packet))
        adjust_mss(view, 500)
        assert len(view) == len(packet)
