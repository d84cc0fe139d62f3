"""Fragments: what is split is put together again by scapy and by us; what is hostile is dropped, and for its reason."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, UDP, IPOption, IPOption_LSRR, IPOption_NOP, IPOption_RR, defragment
from scapy.layers.inet import fragment as scapy_fragment
from scapy.layers.inet6 import IPv6, IPv6ExtHdrFragment, defragment6
from scapy.packet import Raw, fuzz

from labctl.esp import DropPacket, DropReason
from labctl.esp.fragments import copied_options, fragment_ipv4, fragment_ipv6
from labctl.esp.ip import check_packet
from labctl.esp.reassembly import LIFETIME, MAX_DATAGRAMS, MAX_FRAGMENTS, MAX_OCTETS, Reassembly, is_fragment_of

ESP = 50
OPTIONS = st.lists(
    st.sampled_from(
        [
            IPOption_NOP(),
            IPOption_RR(routers=["0.0.0.0"]),  # copied into no fragment but the first
            IPOption_LSRR(routers=["192.0.2.1"]),  # copied into each
            IPOption(copy_flag=1, optclass=2, option=30, value=b"\7\0"),
            IPOption(copy_flag=0, optclass=2, option=30, value=b"\5\0"),
        ]
    ),
    max_size=4,
)


def packet(size: int, *, options: list[Any] = [], **fields: Any) -> bytes:  # noqa: B006
    data = bytes(n * 7 & 255 for n in range(size))
    header = {"src": "10.1.1.10", "dst": "10.1.2.10", "proto": ESP, "id": 77, "options": options} | fields
    return bytes(IP(**header) / Raw(data))


def joined(parts: list[bytes]) -> Any:
    (whole,) = defragment([IP(part) for part in parts])
    return IP(bytes(whole))


@given(st.integers(8, 5000), st.integers(100, 1500), OPTIONS)
@settings(max_examples=150, deadline=None)
def test_scapy_puts_together_what_was_split_and_options_are_where_they_belong(
    size: int, mtu: int, options: list[Any]
) -> None:
    whole = packet(size, options=options)
    parts = fragment_ipv4(memoryview(whole), mtu)
    assert all(len(part) <= mtu for part in parts)
    assert bytes(joined(parts).payload) == bytes(IP(whole).payload)
    for part in parts:
        again = IP(part)
        del again.chksum
        assert bytes(again) == part
    first, *later = [IP(part) for part in parts]
    assert bytes(first)[20 : first.ihl * 4] == whole[20 : IP(whole).ihl * 4]
    expected = [item for item in IP(whole).options if bytes(item)[0] & 0x80]
    for item in later:
        kept = [option for option in item.options if bytes(option)[0]]  # but for the padding
        assert list(map(bytes, kept)) == list(map(bytes, expected))


def test_a_fragment_is_split_into_fragments_of_the_same_packet() -> None:
    whole = packet(4000)
    parts = [part for piece in fragment_ipv4(memoryview(whole), 1500) for part in fragment_ipv4(memoryview(piece), 700)]
    assert bytes(joined(parts).payload) == bytes(IP(whole).payload)
    assert sum(not IP(part).flags.MF for part in parts) == 1


@pytest.mark.parametrize("options", [b"\x83", b"\x83\x01\0\0", b"\x83\x09\x04\0"], ids=["no length", "short", "long"])
def test_options_without_an_end_are_malformed(options: bytes) -> None:
    with pytest.raises(DropPacket) as caught:
        copied_options(options)
    assert caught.value.reason is DropReason.MALFORMED


@given(st.integers(1, 4000), st.integers(1280, 1500))
@settings(max_examples=60, deadline=None)
def test_scapy_puts_ipv6_together(size: int, mtu: int) -> None:
    whole = bytes(IPv6(src="2001:db8::1", dst="2001:db8::2", nh=ESP) / Raw(bytes(n & 255 for n in range(size))))
    parts = fragment_ipv6(memoryview(whole), mtu, 0xABCD1234)
    assert all(len(part) <= mtu for part in parts)
    assert {IPv6(part)[IPv6ExtHdrFragment].id for part in parts} == {0xABCD1234}
    put_together = defragment6([IPv6(part) for part in parts])
    assert bytes(put_together[IPv6])[40:] == whole[40:]


@given(st.integers(9, 5000), st.integers(68, 1500), st.randoms(use_true_random=False), st.booleans())
@settings(max_examples=150, deadline=None)
def test_fragments_in_any_order_some_twice_give_what_was_split(
    size: int, mtu: int, chance: Random, version_6: bool
) -> None:
    if version_6:
        whole = bytes(IPv6(src="2001:db8::1", dst="2001:db8::2", nh=ESP) / Raw(bytes(n & 255 for n in range(size))))
        parts = fragment_ipv6(memoryview(whole), mtu, 7)
    else:
        whole = packet(size)
        parts = [bytes(part) for part in scapy_fragment(IP(whole), mtu - 20)]
    reassembly = Reassembly()
    if len(parts) > MAX_FRAGMENTS:
        return
    chance.shuffle(parts)
    last = parts[-1]
    found = None
    for part in [*parts[:-1], *parts[: len(parts) // 2], last]:
        view = memoryview(part)
        check_packet(view)
        if len(parts) == 1 and not version_6:
            assert not is_fragment_of(view, ESP)
            return
        assert is_fragment_of(view, ESP)
        try:
            assert found is None
            found = reassembly.take(view, 0.0)
        except DropPacket as drop:
            assert drop.reason is DropReason.FRAGMENT_DUPLICATE
    assert found is not None and found.packet == whole
    assert sorted(found.fragments) == sorted(set(parts)) and len(reassembly) == 0


def piece(offset: int, data: bytes, *, more: bool = True, **fields: Any) -> memoryview:
    header = {"src": "10.1.1.10", "dst": "10.1.2.10", "proto": ESP, "id": 1, "frag": offset} | fields
    return memoryview(bytes(IP(flags="MF" if more else 0, **header) / Raw(data)))


HOSTILE = {
    "in front": [piece(1, bytes(64)), piece(0, bytes(16))],
    "behind": [piece(0, bytes(64)), piece(7, bytes(64))],
    "within": [piece(0, bytes(64)), piece(2, bytes(8))],
    "the same place, other octets": [piece(0, bytes(64)), piece(0, b"x" * 64)],
    "two ends": [piece(8, bytes(8), more=False), piece(16, bytes(8), more=False)],
    "behind the end": [piece(8, bytes(8), more=False), piece(9, bytes(8))],
    "an end before what came": [piece(16, bytes(8)), piece(4, bytes(8), more=False)],
    "the end again, with more to come": [piece(8, bytes(8), more=False), piece(8, bytes(8))],
}


@pytest.mark.parametrize("pieces", HOSTILE.values(), ids=HOSTILE)
def test_a_datagram_with_overlaps_goes_whole_and_so_does_what_comes_later(pieces: list[memoryview]) -> None:
    reassembly = Reassembly()
    first, second = pieces
    assert reassembly.take(first, 0.0) is None
    for hostile in (second, piece(100, bytes(8)), piece(0, bytes(8), more=True)):
        with pytest.raises(DropPacket) as caught:
            reassembly.take(hostile, 1.0)
        assert caught.value.reason is DropReason.FRAGMENT_OVERLAP
    assert reassembly.drops == {DropReason.FRAGMENT_OVERLAP: 1}
    # Its number may be used again once its time is over.
    later = LIFETIME + 1.0
    assert reassembly.take(piece(0, bytes(8)), later) is None
    found = reassembly.take(piece(1, b"end", more=False), later)
    assert found is not None and found.packet[20:] == bytes(8) + b"end"


@pytest.mark.parametrize(
    "malformed",
    [piece(0, b""), piece(0, bytes(9)), piece(8191, bytes(16), more=False)],
    ids=["no data", "no multiple of eight", "beyond any packet"],
)
def test_a_fragment_that_can_be_none_is_malformed(malformed: memoryview) -> None:
    with pytest.raises(DropPacket) as caught:
        Reassembly().take(malformed, 0.0)
    assert caught.value.reason is DropReason.MALFORMED


def test_what_never_becomes_whole_is_given_up_and_counted() -> None:
    reassembly = Reassembly()
    reassembly.take(piece(0, bytes(8), id=1), 0.0)
    reassembly.take(piece(4, bytes(8), id=1), 0.0)
    reassembly.take(piece(0, bytes(8), id=2), LIFETIME / 2)
    reassembly.expire(LIFETIME - 0.01)
    assert len(reassembly) == 2
    reassembly.expire(LIFETIME)
    assert len(reassembly) == 1 and reassembly.drops == {DropReason.FRAGMENT_TIMEOUT: 2}


def test_a_flood_of_fragments_has_its_limits_and_the_latest_are_served() -> None:
    reassembly = Reassembly()
    for number in range(MAX_DATAGRAMS + 50):
        reassembly.take(piece(0, bytes(8), id=number), 0.0)
    assert len(reassembly) == MAX_DATAGRAMS and reassembly.drops == {DropReason.FRAGMENT_LIMIT: 50}
    assert reassembly.take(piece(1, bytes(8), id=MAX_DATAGRAMS + 49, more=False), 0.0) is not None

    reassembly, large = Reassembly(), bytes(60_000)
    for number in range(100):
        reassembly.take(piece(0, large, id=number), 0.0)
    assert len(reassembly) * len(piece(0, large)) <= MAX_OCTETS

    reassembly = Reassembly()
    for number in range(MAX_FRAGMENTS):
        reassembly.take(piece(number * 2, bytes(8)), 0.0)
    with pytest.raises(DropPacket) as caught:
        reassembly.take(piece(1, bytes(8)), 0.0)
    assert caught.value.reason is DropReason.FRAGMENT_LIMIT
    assert reassembly.drops == {DropReason.FRAGMENT_LIMIT: MAX_FRAGMENTS}


@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 40), st.booleans(), st.integers(0, 2)), max_size=40))
@settings(max_examples=200, deadline=None)
def test_whatever_fragments_come_a_whole_has_no_octet_of_two_of_them(
    given_pieces: list[tuple[int, int, bool, int]],
) -> None:
    reassembly = Reassembly()
    for number, (offset, size, more, identification) in enumerate(given_pieces):
        try:
            whole = reassembly.take(piece(offset, bytes([number]) * size, more=more, id=identification), float(number))
        except DropPacket:
            continue
        if whole is not None:
            assert len(whole.packet) == 20 + sum(len(part) - 20 for part in whole.fragments)
            check_packet(memoryview(whole.packet))


def test_a_congestion_mark_on_one_fragment_is_one_on_the_packet() -> None:
    reassembly = Reassembly()
    reassembly.take(piece(0, bytes(8), tos=0x02), 0.0)
    found = reassembly.take(piece(1, bytes(8), more=False, tos=0x03), 0.0)
    assert found is not None and IP(found.packet).tos == 0x03


def test_fuzzed_fragments_raise_nothing_but_drops() -> None:
    reassembly, chance = Reassembly(), Random(5)
    for number in range(300):
        made = bytes(fuzz(IP(proto=ESP, src="10.1.1.10", dst="10.1.2.10", version=4, ihl=5, len=None, options=[])))
        noise = memoryview(made + chance.randbytes(number % 60))
        try:
            check_packet(noise)
            if is_fragment_of(noise, ESP):
                reassembly.take(noise, float(number))
        except DropPacket:
            continue


def test_fragments_of_others_are_not_ours_to_hold() -> None:
    udp = bytes(scapy_fragment(IP(src="10.1.1.10", dst="10.1.2.10") / UDP() / Raw(bytes(3000)))[1])
    assert not is_fragment_of(memoryview(udp), ESP)
    assert not is_fragment_of(memoryview(bytes(IP(proto=ESP) / ICMP())), ESP)
