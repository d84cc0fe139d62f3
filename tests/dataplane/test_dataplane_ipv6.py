"""IPv6 frames in batches: what crosses is what the policy alone makes of every frame, to the octet."""

from __future__ import annotations

from ipaddress import IPv6Address, IPv6Network
from typing import Any

import pytest
from dataplane_batches import (
    ANY,
    IPV4,
    IPV6,
    LAN,
    MACS,
    MTU,
    REPLAYS,
    SPI,
    TRANSFORMS,
    Crossed,
    association,
    crossed,
    one_by_one,
    replay_of,
    run,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6

from labctl.configuration import AccessListEntry, Action, Cipher, TransformSet
from labctl.dataplane.crossing import Crossing
from labctl.esp import CryptoPolicy, DropReason, PolicyEntry
from labctl.esp.replay import AntiReplay

SITES, EVERYWHERE = IPv6Network("2001:db8:1::/48"), IPv6Network("::/0")
OWN = IPv6Address("2001:db8:2:1::2")
GCM = TransformSet(Cipher.AES_GCM, 128)
ACCEPTED = frozenset({SPI})
ENTRIES = (
    PolicyEntry(AccessListEntry(Action.DENY, 6, EVERYWHERE, EVERYWHERE, 0, 22)),
    PolicyEntry(AccessListEntry(Action.PERMIT, 132, EVERYWHERE, EVERYWHERE, 0, 443), SPI, ACCEPTED),
    PolicyEntry(AccessListEntry(Action.PERMIT, 0, SITES, SITES), SPI, ACCEPTED),
    PolicyEntry(AccessListEntry(Action.PERMIT, 0, LAN, ANY), SPI, ACCEPTED),
)


def policy(
    transform: TransformSet = GCM, *, closed: bool = False, seed: int = 1, replay: AntiReplay | None = None
) -> CryptoPolicy:
    sa = association(transform, seed=seed, replay=replay)
    return CryptoPolicy(ENTRIES, {SPI: sa}, own=[OWN.packed], closed=(6,) if closed else (), mtu=MTU)


def framed(packet: bytes, kind: bytes = IPV6, *, pad: int = 0) -> bytes:
    return MACS + kind + packet + bytes(max(0, pad - 14 - len(packet)))


# Mostly of two hosts, so that most packets are protected and flows meet.
ELSEWHERE = ("2001:db8:9::1", "fe80::1", "ff02::5", "ff05::7")
ADDRESSES = st.sampled_from(("2001:db8:1:1::10", "2001:db8:1:2::10") * 4 + ELSEWHERE)
# Protocols with ports, without, extension headers, ICMPv6, ESP.
PROTOCOLS = st.sampled_from((6, 6, 6, 6, 17, 17, 17, 17, 132, 132, 89, 58, 0, 43, 44, 51, 60, 50, 59, 200))
PORTS = st.sampled_from((b"\0\x16", b"\x01\xbb", b"\x04\0", b"\x27\x0f"))


@st.composite
def packets(draw: st.DrawFn) -> bytes:
    size = draw(st.one_of(st.integers(0, 40), st.integers(1360, 1500)))
    behind = (bytes(range(256)) * 6)[:size]
    payload = draw(PORTS) + draw(PORTS) + behind if draw(st.integers(0, 9)) else behind
    following = draw(PROTOCOLS)
    if following in (0, 43, 60):
        payload = bytes((draw(PROTOCOLS), 0)) + bytes(6) + payload
    elif following == 44:
        fragment = draw(st.sampled_from((0, 1, 8, 9))).to_bytes(2, "big")
        payload = bytes((draw(PROTOCOLS), 0)) + fragment + bytes(4) + payload
    first = 6 << 28 | draw(st.integers(0, 255)) << 20 | draw(st.sampled_from((0, 0x12345)))
    length = len(payload) + draw(st.sampled_from((0, 0, 0, 0, 0, 0, 1, -1)))
    head = first.to_bytes(4, "big") + max(0, length).to_bytes(2, "big")
    head += bytes((following, draw(st.sampled_from((1, 64, 255)))))
    return head + IPv6Address(draw(ADDRESSES)).packed + IPv6Address(draw(ADDRESSES)).packed + payload


FRAMES = st.one_of(
    packets().map(framed),
    packets().map(framed),
    packets().map(framed),
    packets().map(lambda packet: framed(packet, pad=90)),
    st.builds(lambda packet, cut: framed(packet[:cut]), packets(), st.integers(0, 60)),
    st.integers(0, 1400).map(lambda n: framed(bytes(IP(src="10.1.1.1", dst="10.1.2.2") / UDP() / bytes(n)), IPV4)),
    # The ethertype says IPv6, the packet says something else.
    packets().map(lambda packet: framed(b"\x45" + packet[1:])),
)


def agree(ours: Crossed, reference: Crossed) -> None:
    assert ours.sent == reference.sent
    assert ours.back == reference.back
    assert ours.drops == reference.drops


def counters_of(given: CryptoPolicy) -> list[Any]:
    sa = given.associations[SPI]
    return [given.hits[: len(given.entries)], sa.packets_in, sa.packets_out, sa.octets_in, sa.octets_out]


KINDS = st.sampled_from(REPLAYS)


@given(st.sampled_from(list(TRANSFORMS)), st.booleans(), KINDS, st.lists(FRAMES, min_size=1, max_size=15))
@settings(max_examples=120, deadline=None)
def test_frames_leave_as_the_policy_alone_would_have_them(
    transform: TransformSet, closed: bool, kind: str, frames: list[bytes]
) -> None:
    ours, alone = (policy(transform, closed=closed, replay=replay_of(kind)) for _ in "ab")
    # Twice, so that the second time every flow is known.
    agree(crossed(ours, frames * 2, way="outbound"), one_by_one(alone, frames * 2, way="outbound"))
    assert counters_of(ours) == counters_of(alone)


@given(st.sampled_from(list(TRANSFORMS)), st.booleans(), KINDS, st.lists(FRAMES, min_size=1, max_size=15), st.data())
@settings(max_examples=120, deadline=None)
def test_frames_come_in_as_the_policy_alone_would_have_them(
    transform: TransformSet, closed: bool, kind: str, frames: list[bytes], data: st.DataObject
) -> None:
    sent = one_by_one(policy(transform, seed=2, replay=replay_of(kind)), frames, way="outbound").sent
    arriving = [*sent, *frames]
    for _ in range(data.draw(st.integers(0, 4))):
        number = data.draw(st.integers(0, len(arriving) - 1))
        changed = bytearray(arriving[number])
        changed[data.draw(st.integers(0, len(changed) - 1))] ^= data.draw(st.integers(1, 255))
        arriving[number] = bytes(changed)
    ours, alone = (policy(transform, closed=closed, replay=replay_of(kind)) for _ in "ab")
    agree(crossed(ours, arriving * 2, way="inbound"), one_by_one(alone, arriving * 2, way="inbound"))
    assert counters_of(ours) == counters_of(alone)


def numbered(count: int, flows: int) -> list[bytes]:
    head = IPv6(src="2001:db8:1:1::10", dst="2001:db8:1:2::10", tc=0xB8, fl=0x54321, hlim=62)
    return [framed(bytes(head / UDP(sport=1000 + n % flows) / (n.to_bytes(4, "big") * 9))) for n in range(count)]


def test_known_flows_do_without_the_policy_and_lose_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    frames = numbered(60, 5)
    sender, receiver = policy(), policy()
    result, opened = Crossed(), Crossed()
    out = Crossing(sender, lambda reason, _: result.drops.append(reason))
    back = Crossing(receiver, lambda reason, _: opened.drops.append(reason))
    run(out, frames[:5], result, way="outbound")
    run(back, result.sent, opened, way="inbound")
    # From here on every flow is known.
    with monkeypatch.context() as patch:
        for name in ("decide", "outbound", "inbound", "check_selectors"):
            patch.setattr(CryptoPolicy, name, None)
        later = Crossed()
        run(out, frames[5:], later, way="outbound")
        run(back, later.sent, opened, way="inbound")
    assert result.drops == opened.drops == later.drops == [] and opened.sent == frames
    sealed = IPv6(later.sent[0][14:])
    assert (sealed.tc, sealed.fl, sealed.hlim, sealed.nh) == (0xB8, 0x54321, 62, 50)


def test_an_sa_that_may_send_no_more_drops_and_the_others_go_on() -> None:
    mute = policy()
    mute.associations[SPI]._sequence = 0xFFFFFFFE
    ssh = framed(bytes(IPv6(src="2001:db8:1:1::10", dst="2001:db8:1:2::10") / TCP(dport=22) / bytes(20)))
    result = crossed(mute, [*numbered(3, 1), ssh], way="outbound")
    assert result.drops == [DropReason.SEQUENCE_EXHAUSTED] * 2 and result.sent[1:] == [ssh]


@pytest.mark.parametrize("way", ["outbound", "inbound"])
def test_a_policy_that_a_drop_brings_about_counts_for_the_very_next_frame(way: str) -> None:
    given, hopeless = policy(), numbered(1, 1)[0]
    if way == "outbound":
        given.associations[SPI]._sequence = 0xFFFFFFFF
    else:
        sealed = crossed(policy(), [hopeless], way="outbound").sent[0]
        hopeless = sealed[:-1] + bytes((sealed[-1] ^ 1,))
    clear = framed(bytes(IPv6(src="2001:db8:8::1", dst="2001:db8:9::1") / UDP() / (b"x" * 20)))
    result, dropped = Crossed(), []

    def close(reason: DropReason, packet: memoryview) -> None:
        result.drops.append(reason)
        dropped.append(len(packet) + 14)
        crossing.install(policy(closed=True))

    crossing = Crossing(given, close)
    run(crossing, [clear, hopeless, clear], result, way=way)
    assert result.sent == [clear]
    assert result.drops[1:] == [DropReason.FAIL_CLOSE] and dropped == [len(hopeless), len(clear)]


def test_more_flows_than_are_remembered_are_all_served() -> None:
    head = IPv6(src="2001:db8:1:1::10", dst="2001:db8:1:2::10")
    plain = bytes(head / UDP(sport=1, dport=1) / bytes(16))
    frames = [framed(plain[:40] + n.to_bytes(4, "big") + plain[44:]) for n in range(17_000)]
    sealed = crossed(policy(), frames, way="outbound")
    assert crossed(policy(), sealed.sent, way="inbound").sent == frames


def test_a_congestion_mark_of_the_way_reaches_a_known_flow() -> None:
    for inner, expected in ((0, 0), (1, 3), (2, 3), (3, 3)):
        head = IPv6(src="2001:db8:1:1::10", dst="2001:db8:1:2::10", tc=0xB8 | inner)
        plain = framed(bytes(head / UDP() / bytes(20)))
        sealed = crossed(policy(), [plain] * 2, way="outbound").sent
        marked = [frame[:15] + bytes((frame[15] | 0x30,)) + frame[16:] for frame in sealed]
        for came in crossed(policy(), marked, way="inbound").sent:
            assert IPv6(came[14:]).tc == 0xB8 | expected and came[16:] == plain[16:]


def test_a_known_flow_is_of_its_addresses_and_its_protocol() -> None:
    frames = numbered(2, 1)
    sealed = crossed(policy(), frames, way="outbound").sent
    elsewhere = sealed[1][:53] + b"\x11" + sealed[1][54:]  # another destination outside than inside
    result = crossed(policy(), [sealed[0], elsewhere], way="inbound")
    assert (result.sent, result.drops) == (frames[:1], [DropReason.ADDRESS_MISMATCH])
    # The same addresses and ports over TCP, which the policy lets pass in clear.
    head = IPv6(src="2001:db8:1:1::10", dst="2001:db8:1:2::10")
    mixed = [framed(bytes(head / layer / bytes(20))) for layer in (UDP(sport=9, dport=22), TCP(sport=9, dport=22)) * 2]
    left = crossed(policy(), mixed, way="outbound").sent
    assert [frame[20] for frame in left] == [50, 6, 50, 6]
