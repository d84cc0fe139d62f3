"""Headers that no host would send: nothing raises, each frame is passed on or counted, and the next one is served."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import pytest
from dataplane_batches import IPV4, IPV6, MACS, MTU, TRANSFORMS, association, crossed, one_by_one, policy
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.packet import Raw

from labctl.configuration import TransformSet
from labctl.esp.ip import checksum

GCM = next(iter(TRANSFORMS))
# The longest packet that fits with what ESP adds.
ROOM = association(GCM).plaintext_mtu(MTU)
ENDS = bytes((10, 1, 1, 10, 10, 1, 2, 10))
ENDS6 = bytes.fromhex("20010db800010000000000000000001020010db8000200000000000000000010")
GOOD = MACS + IPV4 + bytes(IP(src="10.1.1.10", dst="10.1.2.10") / UDP(sport=5000, dport=9) / Raw(b"x" * 40))

# Kinds of IP options with a length of their own: record route, time stamp, routes, security, stream, router alert.
OPTION = st.one_of(
    st.sampled_from([b"\x00", b"\x01"]),
    st.builds(
        lambda kind, length, data: bytes((kind, length)) + data,
        st.sampled_from([7, 68, 131, 137, 130, 136, 148, 0x5E, 255]),
        st.integers(0, 255),
        st.binary(max_size=38),
    ),
)
NUMBERS = st.one_of(st.sampled_from([0, 1, 19, 20, 21, 39, 40, 59, 60, 1480, 1500, 0xFFFF]), st.integers(0, 0xFFFF))
# No fragment, the first, one in the middle, the last, one that would end beyond 65,535; with DF; with the reserved bit.
FRAGMENT = st.one_of(
    st.sampled_from([0, 0x2000, 0x2010, 0x0010, 0x1FFF, 0x3FFF, 0x4000, 0x6000, 0x8000, 0xFFFF]), NUMBERS
)
PROTOCOLS = st.one_of(st.sampled_from([1, 2, 6, 17, 41, 50, 51, 58, 59, 132]), st.integers(0, 255))


@st.composite
def ipv4_packets(draw: st.DrawFn) -> bytes:
    """A header whose words need not be true of what follows; mostly between hosts of the policy."""
    options = b"".join(draw(st.lists(OPTION, max_size=5)))[:40]
    options += bytes(-len(options) % 4)
    words = draw(st.one_of(st.just(5 + len(options) // 4), st.just(5 + len(options) // 4), st.integers(0, 15)))
    data = draw(st.one_of(st.binary(max_size=64), st.integers(0, MTU).map(bytes)))
    whole = 20 + len(options) + len(data)
    length = draw(st.one_of(st.just(whole), st.just(whole), NUMBERS))
    ends = draw(st.one_of(st.just(ENDS), st.just(ENDS), st.binary(min_size=8, max_size=8)))
    tos, number, ttl = draw(st.integers(0, 255)), draw(NUMBERS), draw(st.integers(0, 255))
    fields = (0x40 | words, tos, length, number, draw(FRAGMENT), ttl, draw(PROTOCOLS), 0, ends)
    header = bytearray(struct.pack("!BBHHHBBH8s", *fields) + options)
    struct.pack_into("!H", header, 10, draw(st.one_of(st.just(checksum(header)), NUMBERS)))
    return (bytes(header) + data)[: draw(st.one_of(st.just(MTU), st.just(MTU), st.integers(0, 60)))]


@st.composite
def ipv6_packets(draw: st.DrawFn) -> bytes:
    """Chains of extension headers (RFC 8200 4): options, routing, fragments, destination, true or not."""
    chain = draw(st.lists(st.sampled_from([0, 43, 44, 60, 51, 135]), max_size=4))
    body, following = draw(st.binary(max_size=64)), draw(PROTOCOLS)
    for kind in reversed(chain):
        size = draw(st.integers(0, 3))
        content = draw(st.binary(min_size=6 + 8 * size, max_size=6 + 8 * size))
        told = draw(st.one_of(st.just(size), st.integers(0, 255)))
        body, following = bytes((following, told)) + content + body, kind
    length = draw(st.one_of(st.just(len(body)), st.just(len(body)), NUMBERS))
    header = struct.pack(
        "!IHBB", 0x60000000 | draw(st.integers(0, 0xFFFFFFF)), length, following, draw(st.integers(0, 255))
    )
    return (header + ENDS6 + body)[: draw(st.one_of(st.just(MTU), st.integers(0, 60)))]


def framed(packet: bytes) -> bytes:
    return MACS + (IPV6 if packet[:1] and packet[0] >> 4 == 6 else IPV4) + packet


FRAMES = st.one_of(ipv4_packets().map(framed), ipv4_packets().map(framed), ipv6_packets().map(framed))


def sealed(transform: TransformSet, packet: bytes) -> bytes:
    """Under the group's key, as only a member can, whatever the packet is: a member may be broken, too."""
    sa = association(transform, seed=9)
    whole = bytes(IP(src="10.1.1.10", dst="10.1.2.10") / Raw(bytes(len(packet))))
    source = memoryview(bytearray(64 + len(packet) + 64))
    target = memoryview(bytearray(64 + len(packet) + 128))
    source[64 : 64 + len(packet)] = packet
    end = sa.seal_into(source, 64, 64 + len(packet), target, 64, 4)
    outer = IP(whole[:20])
    outer.proto, outer.len = 50, 20 + end - 64
    del outer.chksum
    return MACS + IPV4 + bytes(outer)[:20] + bytes(target[64:end])


def accounted(transform: TransformSet, frames: Sequence[bytes], way: str) -> None:
    """Each by itself is passed on or counted, and together they fare as they do alone."""
    for frame in frames:
        alone = policy(transform)
        result = crossed(alone, [frame], way=way)
        # A fragment of ESP waits for the others, which is counted as well.
        held = way == "inbound" and alone.tunnel.counters()["reassembling"] == 1 and not result.drops
        assert bool(result.sent) + bool(result.drops) + held == 1, (result, frame.hex())
        assert len(result.drops) <= 1 and (not result.back or result.drops), "an answer says why there was a drop"
    together = [item for frame in frames for item in (frame, GOOD)]
    ours = crossed(policy(transform, seed=3), together, way=way)
    apart = one_by_one(policy(transform, seed=3), together, way=way)
    assert (ours.sent, ours.back, ours.drops) == (apart.sent, apart.back, apart.drops)


@pytest.mark.parametrize("way", ["outbound", "inbound"])
@given(st.sampled_from(list(TRANSFORMS)), st.lists(FRAMES, min_size=1, max_size=8))
@settings(max_examples=120, deadline=None)
def test_whatever_a_header_says_the_frame_is_passed_on_or_counted(
    way: str, transform: TransformSet, frames: list[bytes]
) -> None:
    accounted(transform, frames, way)


@given(st.sampled_from(list(TRANSFORMS)), st.lists(st.one_of(ipv4_packets(), ipv6_packets()), min_size=1, max_size=6))
@settings(max_examples=120, deadline=None)
def test_whatever_a_member_sealed_is_passed_on_or_counted(transform: TransformSet, packets: list[bytes]) -> None:
    accounted(transform, [sealed(transform, packet) for packet in packets], "inbound")
    assert crossed(policy(transform), [sealed(transform, GOOD[14:])], way="inbound").sent == [GOOD]


@given(st.lists(OPTION, min_size=1, max_size=5), st.integers(0, 1300), st.booleans())
@settings(max_examples=100, deadline=None)
def test_options_travel_inside_and_the_outer_header_has_none(options: list[bytes], size: int, df: bool) -> None:
    words = b"".join(options)[:40]
    words += bytes(-len(words) % 4)
    fields = (0x45 + len(words) // 4, 0xB8, 20 + len(words) + 8 + size, 7, 0x4000 * df, 60, 17, 0, ENDS)
    header = bytearray(struct.pack("!BBHHHBBH8s", *fields) + words)
    struct.pack_into("!H", header, 10, checksum(header))
    packet = bytes(header) + struct.pack("!HHHH", 5000, 9, 8 + size, 0) + bytes(size)
    out = crossed(policy(GCM), [MACS + IPV4 + packet], way="outbound")
    (frame,) = out.sent
    outer = IP(frame[14:])
    assert (outer.ihl, outer.proto, outer.tos, outer.ttl, outer.src, outer.dst) == (
        5,
        50,
        0xB8,
        60,
        "10.1.1.10",
        "10.1.2.10",
    )
    assert ("DF" in str(outer.flags)) == df
    back = crossed(policy(GCM, seed=2), out.sent, way="inbound")
    assert (back.sent, back.drops) == ([MACS + IPV4 + packet], [])


def reassembled(fragments: list[bytes]) -> bytes:
    """The data of all of them, each where its offset says."""
    data = bytearray()
    for packet in sorted(fragments, key=lambda item: IP(item).frag):
        header = IP(packet)
        assert len(data) == header.frag * 8, "no gap and no overlap"
        data += packet[header.ihl * 4 : header.len]
    return bytes(data)


@given(st.integers(1340, 1480), st.sampled_from([0, 8, 16, 24, 40]), st.sampled_from([0, 0x2000, 0x2064, 0x0064]))
@settings(max_examples=100, deadline=None)
def test_what_is_too_big_is_cut_before_encryption_and_nothing_is_lost(size: int, options: int, fragment: int) -> None:
    size -= options + (size % 8 if fragment & 0x2000 else 0)
    words = (b"\x44" + bytes((options, 5, 0)) + bytes(options - 4)) if options else b""
    fields = (0x45 + options // 4, 0, 20 + options + size, 99, fragment, 60, 17, 0, ENDS)
    header = bytearray(struct.pack("!BBHHHBBH8s", *fields) + words)
    struct.pack_into("!H", header, 10, checksum(header))
    data = bytes(number & 255 for number in range(size))
    out = crossed(policy(GCM), [MACS + IPV4 + bytes(header) + data], way="outbound")
    assert out.drops == [] and all(len(frame) <= 14 + MTU for frame in out.sent)
    assert len(out.sent) == (1 if 20 + options + size <= ROOM else 2)
    arrived = [frame[14:] for frame in crossed(policy(GCM, seed=2), out.sent, way="inbound").sent]
    first, last = IP(arrived[0]), IP(arrived[-1])
    assert first.frag == fragment & 0x1FFF and bool(last.flags.MF) == bool(fragment & 0x2000)
    moved = [_moved(packet, -first.frag) for packet in arrived]
    assert reassembled(moved) == data
    assert {IP(packet).id for packet in arrived} == {99}


def _moved(packet: bytes, by: int) -> bytes:
    """A fragment with another offset."""
    changed = bytearray(packet)
    word = int.from_bytes(changed[6:8], "big")
    changed[6:8] = ((word & 0xE000) | ((word & 0x1FFF) + by)).to_bytes(2, "big")
    return bytes(changed)


@pytest.mark.parametrize("transform", list(TRANSFORMS), ids=str)
def test_marks_and_the_life_of_a_packet_survive_in_both_versions(transform: TransformSet) -> None:
    for tos in (0, 0x28, 0xB8, 0xBA):
        for packet in (
            bytes(IP(src="10.1.1.10", dst="10.1.2.10", tos=tos, ttl=7, flags="DF") / UDP() / Raw(b"x")),
            bytes(IPv6(src="2001:db8:1::10", dst="2001:db8:2::10", tc=tos, hlim=7, fl=0x54321) / UDP() / Raw(b"x")),
        ):
            outer: Any = association(transform).encapsulate(packet)
            header = IP(outer) if packet[0] >> 4 == 4 else IPv6(outer)
            seen = (
                (header.tos, header.ttl, "DF" in str(header.flags)) if packet[0] >> 4 == 4 else (header.tc, header.hlim)
            )
            assert seen == ((tos, 7, True) if packet[0] >> 4 == 4 else (tos, 7))
            # The provider takes its hops from the outer header alone: inside the packet lives as long as it left.
            assert association(transform, seed=2).decapsulate(outer) == packet
