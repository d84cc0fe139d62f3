"""Anti-replay: time stamps (reference 7.3) and windows of sequence numbers (RFC 4303 3.4.3)."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP
from scapy.layers.inet6 import IPv6
from scapy.layers.ipsec import ESP
from scapy.layers.ipsec import SecurityAssociation as ScapySa
from scapy.packet import Raw
from test_esp_packets import INTEGRITY_OCTETS, KEY, SPI, TRANSFORMS

from labctl.configuration import Cipher, Integrity, TransformSet
from labctl.esp import DropPacket, DropReason, SecurityAssociation
from labctl.esp.replay import (
    MAX_SENDERS,
    AntiReplay,
    CounterWindow,
    CounterWindows,
    Pseudotime,
    ReplayFailure,
    TimeStamps,
)

EVERY = pytest.mark.parametrize("transform", list(TRANSFORMS), ids=str)
GCM = TransformSet(Cipher.AES_GCM, 128)
CBC = TransformSet(Cipher.AES_CBC, 256, Integrity.SHA256)
EPOCH = 0xA1B2C3D4
# 3723.000250 s, as the reference's example has it.
HEADER = bytes.fromhex("04f00010a1b2c3d400000e8b000000fa")
EXAMPLE = 3723.00025


class Node:
    """A clock that stands where a test puts it, and SAs that go by it."""

    def __init__(self, shows: float = EXAMPLE, *, window: float = 5.0, epoch: int = EPOCH) -> None:
        self.now = 0.0
        self.clock = Pseudotime(epoch, shows, lambda: self.now)
        self.window = window

    def sa(self, transform: TransformSet = GCM) -> SecurityAssociation:
        return association(transform, TimeStamps(self.clock, self.window))


def association(transform: TransformSet, replay: AntiReplay | None, *, sender_id: int = 7) -> SecurityAssociation:
    octets = transform.key_bits // 8 + (4 if transform.uses_counter_mode else 0)
    integrity = KEY[: INTEGRITY_OCTETS[transform.integrity]]
    return SecurityAssociation(
        SPI,
        transform,
        KEY[:octets],
        integrity,
        random=Random(1).randbytes,
        sender_id=sender_id,
        sender_id_bits=24,
        replay=replay,
    )


def ping(size: int = 56) -> bytes:
    return bytes(IP(src="10.1.1.10", dst="10.1.2.10", tos=0xB8) / ICMP(id=7) / Raw(bytes(size)))


def refused(sa: SecurityAssociation, packet: bytes) -> DropReason:
    with pytest.raises(DropPacket) as caught:
        sa.decapsulate(packet)
    return caught.value.reason


def scapy_association(transform: TransformSet) -> ScapySa:
    """In transport mode, which leaves what is inside ESP alone."""
    cipher, integrity = TRANSFORMS[transform]
    octets = transform.key_bits // 8 + (4 if transform.uses_counter_mode else 0)
    key, integrity_key = KEY[:octets] or None, KEY[: INTEGRITY_OCTETS[transform.integrity]] or None
    return ScapySa(ESP, spi=SPI, crypt_algo=cipher, crypt_key=key, auth_algo=integrity, auth_key=integrity_key)


@EVERY
@pytest.mark.parametrize("size", [0, 1, 2, 3, 1372])
def test_scapy_finds_the_header_before_the_packet(transform: TransformSet, size: int) -> None:
    opened: Any = scapy_association(transform).decrypt(IP(Node().sa(transform).encapsulate(ping(size))))
    assert opened.proto == 253 and bytes(opened[IP].payload) == HEADER + ping(size)


@EVERY
@pytest.mark.parametrize("size", [0, 1, 2, 3, 1372])
def test_we_open_what_scapy_puts_behind_a_header(transform: TransformSet, size: int) -> None:
    stamped = IP(src="10.1.1.10", dst="10.1.2.10", proto=253) / Raw(HEADER + ping(size))
    assert Node().sa(transform).decapsulate(bytes(scapy_association(transform).encrypt(stamped))) == ping(size)


def test_an_ipv6_packet_is_stamped_as_such() -> None:
    packet = bytes(IPv6(src="2001:db8:1::1", dst="2001:db8:2::1") / Raw(b"x" * 30))
    sealed = Node().sa().encapsulate(packet)
    assert Node().sa().decapsulate(sealed) == packet
    opened: Any = scapy_association(GCM).decrypt(IPv6(sealed))
    assert bytes(opened[IPv6].payload)[:16] == b"\x29" + HEADER[1:]


@EVERY
@pytest.mark.parametrize("mtu", [576, 1500, 1501, 9000])
def test_the_longest_packet_with_its_stamp_fits_the_mtu(transform: TransformSet, mtu: int) -> None:
    sa = Node().sa(transform)
    room = sa.plaintext_mtu(mtu)
    assert len(sa.encapsulate(ping(room - 28))) == room + sa.overhead(room) <= mtu
    assert room + 1 + sa.overhead(room + 1) > mtu
    assert association(transform, None).plaintext_mtu(mtu) == room + 16


def test_the_plain_text_mtu_is_what_a_router_shows() -> None:
    transform = TransformSet(Cipher.AES_CBC, 128, Integrity.SHA1)
    assert Node().sa(transform).plaintext_mtu(1500) == 1422


@given(st.floats(-120, 120), st.integers(1, 100), st.floats(0, 1e6))
@settings(max_examples=300, deadline=None)
def test_a_packet_is_taken_within_the_window_on_either_side_and_not_outside(
    behind: float, window: int, shows: float
) -> None:
    receiver = Node(shows + behind, window=window).sa()
    sealed = Node(shows).sa().encapsulate(ping())
    if abs(abs(behind) - window) < 1e-5:
        return  # a stamp has whole microseconds
    if abs(behind) < window:
        assert receiver.decapsulate(sealed) == ping()
        assert receiver.replay is not None and receiver.replay.failures == 0
        return
    assert refused(receiver, sealed) is DropReason.REPLAY
    assert isinstance(receiver.replay, TimeStamps) and receiver.replay.last is not None
    assert receiver.replay.failures == 1
    mine, theirs, told = receiver.replay.last
    assert (mine, told) == (shows + behind, window) and theirs == pytest.approx(shows, abs=1e-5)


def test_the_window_goes_on_where_the_seconds_wrap() -> None:
    end = float(1 << 32)
    sealed = Node(end - 2).sa().encapsulate(ping())
    assert Node(end + 2).sa().decapsulate(sealed) == ping()
    assert Node(1.0).sa().decapsulate(sealed) == ping()
    late = Node(end + 9).sa()
    assert refused(late, sealed) is DropReason.REPLAY
    assert isinstance(late.replay, TimeStamps) and late.replay.last == ReplayFailure(end + 9, end - 2, 5.0)


def test_a_copy_is_taken_until_it_is_too_old() -> None:
    sender, receiver = Node().sa(), Node()
    sealed, opener = sender.encapsulate(ping()), receiver.sa()
    for receiver.now in (0.0, 2.5, 4.9):
        assert opener.decapsulate(sealed) == ping()
    receiver.now = 5.1
    assert refused(opener, sealed) is DropReason.REPLAY
    receiver.clock.offset -= 1.0  # the key server says that our clock is fast
    assert opener.decapsulate(sealed) == ping()


@pytest.mark.parametrize(
    "header",
    [
        HEADER.replace(b"\xf0", b"\x01"),
        HEADER.replace(b"\x00\x10", b"\x00\x0c"),
        HEADER.replace(bytes.fromhex("a1b2c3d4"), bytes.fromhex("a1b2c3d5")),
        HEADER[:12] + (1_000_000).to_bytes(4, "big"),
    ],
    ids=["type", "length", "epoch", "microseconds"],
)
def test_what_is_no_stamp_of_this_clock_is_refused(header: bytes) -> None:
    sealed = scapy_association(GCM).encrypt(IP(src="10.1.1.10", dst="10.1.2.10", proto=253) / Raw(header + ping()))
    sa = Node().sa()
    assert refused(sa, bytes(sealed)) is DropReason.TIME_STAMP
    assert sa.replay is not None and sa.replay.failures == 1


@EVERY
def test_a_stamp_is_there_exactly_where_the_policy_has_one(transform: TransformSet) -> None:
    stamped, plain = Node().sa(transform), association(transform, None)
    assert refused(stamped, association(transform, None).encapsulate(ping())) is DropReason.TIME_STAMP
    assert refused(plain, Node().sa(transform).encapsulate(ping())) is DropReason.TIME_STAMP


def test_a_stamp_that_names_another_protocol_is_refused() -> None:
    header = b"\x29" + HEADER[1:]
    sealed = scapy_association(GCM).encrypt(IP(src="10.1.1.10", dst="10.1.2.10", proto=253) / Raw(header + ping()))
    assert refused(Node().sa(), bytes(sealed)) is DropReason.MALFORMED


@EVERY
@given(st.binary(max_size=60), st.integers(0, 400), st.integers(1, 255))
@settings(max_examples=30, deadline=None)
def test_hostile_octets_raise_nothing_but_drop(transform: TransformSet, noise: bytes, place: int, change: int) -> None:
    sealed = bytearray(Node().sa(transform).encapsulate(ping()))
    sealed[20 + place % (len(sealed) - 20)] ^= change
    short = scapy_association(transform).encrypt(IP(src="10.1.1.10", dst="10.1.2.10", proto=253) / Raw(noise))
    for packet in (bytes(sealed), bytes(sealed[:20]) + noise, bytes(short)):
        with pytest.raises(DropPacket):
            Node().sa(transform).decapsulate(packet)


# A model of a window: every number that came.
NUMBERS = st.lists(
    st.one_of(st.integers(0, 40), st.integers(0, 3000), st.integers(2**32 - 200, 2**32 - 1)), max_size=80
)


@given(st.sampled_from([64, 128, 256, 512, 1024]), NUMBERS)
@settings(max_examples=400, deadline=None)
def test_a_number_is_taken_once_and_not_below_the_window(size: int, numbers: list[int]) -> None:
    window, seen = CounterWindow(size), {0}
    for number in numbers:
        new = number not in seen and number > max(seen) - size
        assert window.take(number) is new, (number, sorted(seen))
        if new:
            seen.add(number)


@given(st.integers(0, 900), st.permutations(range(1, 65)))
@settings(max_examples=50, deadline=None)
def test_packets_in_any_order_within_the_window_are_all_taken(before: int, order: list[int]) -> None:
    window = CounterWindow(64)
    assert all(window.take(number) for number in range(1, before + 1))
    assert all(window.take(before + number) for number in order)
    assert not any(window.take(before + number) for number in order)


@EVERY
def test_a_packet_that_comes_again_is_refused_once_its_number_is_known(transform: TransformSet) -> None:
    sender, receiver = association(transform, None), association(transform, CounterWindows(64, 24))
    first, second = sender.encapsulate(ping()), sender.encapsulate(ping())
    damaged = bytearray(first)
    damaged[-1] ^= 1
    # What was not authenticated moves no window.
    assert refused(receiver, bytes(damaged)) is DropReason.MAC_ERROR
    assert receiver.decapsulate(second) == receiver.decapsulate(first) == ping()
    assert {refused(receiver, packet) for packet in (first, second)} == {DropReason.REPLAY}
    assert receiver.replay is not None and receiver.replay.failures == 2


@pytest.mark.parametrize(("transform", "bits", "apart"), [(GCM, 24, True), (CBC, 0, False)], ids=str)
def test_senders_have_windows_of_their_own_where_their_ids_tell_them_apart(
    transform: TransformSet, bits: int, apart: bool
) -> None:
    busy, quiet = (association(transform, None, sender_id=number) for number in (1, 2))
    receiver = association(transform, CounterWindows(64, bits))
    for _ in range(100):
        receiver.decapsulate(busy.encapsulate(ping()))
    if apart:
        assert receiver.decapsulate(quiet.encapsulate(ping())) == ping()
    else:
        assert refused(receiver, quiet.encapsulate(ping())) is DropReason.REPLAY


def test_no_more_windows_than_senders_are_remembered() -> None:
    windows = CounterWindows(64, 24)
    for sender in range(MAX_SENDERS + 1):
        windows.check(1, sender << 40)
    windows.check(1, 0)  # the first was forgotten for the last
    with pytest.raises(DropPacket):
        windows.check(1, MAX_SENDERS << 40)
