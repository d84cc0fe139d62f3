"""What crosses in batches is to the octet what a policy gives frame by frame, and what scapy seals and opens."""

from __future__ import annotations

from typing import Any

import pytest
from dataplane_batches import (
    ARP,
    IPV4,
    IPV6,
    MACS,
    REPLAYS,
    SPI,
    TRANSFORMS,
    Crossed,
    crossed,
    keys_of,
    one_by_one,
    policy,
    replay_of,
    run,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_NOP, IPOption_Router_Alert
from scapy.layers.inet6 import IPv6
from scapy.layers.ipsec import ESP
from scapy.layers.ipsec import SecurityAssociation as ScapySa
from scapy.packet import Raw

from labctl.configuration import Cipher, TransformSet
from labctl.dataplane.crossing import Crossing
from labctl.esp import CryptoPolicy, DropReason

GCM = TransformSet(Cipher.AES_GCM, 128)
EVERY = pytest.mark.parametrize("transform", list(TRANSFORMS), ids=str)
SITE_ADDRESSES = st.sampled_from(["10.1.1.10", "10.1.2.20", "10.1.3.30"])
ADDRESSES = st.one_of(SITE_ADDRESSES, st.sampled_from(["192.0.2.1", "172.16.1.2", "224.0.0.22"]))
# Of this, scapy corrects the IP header around it while it takes it apart.
IGMP = 2
PORTS = st.sampled_from([22, 53, 848, 5000, 65535])


@st.composite
def ip_packets(draw: st.DrawFn, addresses: st.SearchStrategy[str] = ADDRESSES, *, largest: int = 1600) -> bytes:
    """Legal IPv4 packets: any service, any TTL, with options and in fragments or not, of any protocol."""
    header = {
        "src": draw(addresses),
        "dst": draw(addresses),
        "tos": draw(st.integers(0, 255)),
        "ttl": draw(st.integers(1, 255)),
        "id": draw(st.integers(0, 65535)),
        "flags": draw(st.sampled_from(["", "", "DF", "DF", "MF", "evil"])),
        "frag": draw(st.sampled_from([0, 0, 0, 0, 100])),
        "options": draw(st.sampled_from([[], [], [], [IPOption_Router_Alert()], [IPOption_NOP()] * 4])),
    }
    layer = draw(
        st.one_of(
            st.builds(lambda a, b: UDP(sport=a, dport=b), PORTS, PORTS),
            st.builds(lambda a, b: TCP(sport=a, dport=b, flags="A"), PORTS, PORTS),
            st.builds(lambda a: ICMP(id=a), PORTS),
            st.just(Raw(b"")),
        )
    )
    if isinstance(layer, Raw):
        header["proto"] = draw(st.sampled_from([2, 47, 50, 89, 103, 132]))
    size = draw(st.one_of(st.integers(0, 40), st.integers(1340, 1480), st.integers(0, largest - 100)))
    seed = draw(st.integers(0, 255))
    return bytes(IP(**header) / layer / Raw(bytes((seed + n) & 255 for n in range(size))))


def framed(packet: bytes, kind: bytes = IPV4, *, pad: int = 0) -> bytes:
    return MACS + kind + packet + bytes(max(0, pad - 14 - len(packet)))


FRAMES = st.one_of(
    ip_packets().map(framed),
    ip_packets().map(framed),
    ip_packets().map(framed),
    ip_packets(largest=120).map(lambda packet: framed(packet, pad=60)),
    st.integers(0, 1500).map(
        lambda n: framed(bytes(IPv6(src="2001:db8::1", dst="2001:db8::2") / UDP() / Raw(bytes(n))), IPV6)
    ),
    st.binary(max_size=60).map(lambda noise: framed(noise, ARP)),
    st.binary(max_size=60).map(framed),
    st.builds(lambda packet, cut: framed(packet[:cut]), ip_packets(), st.integers(0, 60)),
)


def agree(ours: Crossed, reference: Crossed) -> None:
    assert ours.sent == reference.sent
    assert ours.back == reference.back
    assert ours.drops == reference.drops


def counters_of(given: CryptoPolicy) -> list[Any]:
    sa = given.associations[SPI]
    replays = None if sa.replay is None else sa.replay.failures
    return [given.hits[: len(given.entries)], sa.packets_in, sa.packets_out, sa.octets_in, sa.octets_out, replays]


KINDS = st.sampled_from(REPLAYS)


@given(st.sampled_from(list(TRANSFORMS)), st.booleans(), KINDS, st.lists(FRAMES, min_size=1, max_size=15))
@settings(max_examples=80, deadline=None)
def test_frames_leave_as_the_policy_alone_would_have_them(
    transform: TransformSet, closed: bool, kind: str, frames: list[bytes]
) -> None:
    ours, alone = (policy(transform, closed=closed, replay=replay_of(kind)) for _ in "ab")
    # Twice, so that the second time every flow is known.
    agree(crossed(ours, frames * 2, way="outbound"), one_by_one(alone, frames * 2, way="outbound"))
    assert counters_of(ours) == counters_of(alone)


@given(st.sampled_from(list(TRANSFORMS)), st.booleans(), KINDS, st.lists(FRAMES, min_size=1, max_size=15), st.data())
@settings(max_examples=80, deadline=None)
def test_frames_come_in_as_the_policy_alone_would_have_them(
    transform: TransformSet, closed: bool, kind: str, frames: list[bytes], data: st.DataObject
) -> None:
    # Some senders have another idea of anti-replay, or of the time.
    sent = [
        one_by_one(policy(transform, seed=2, replay=replay_of(other, shows)), frames, way="outbound").sent
        for other, shows in ((kind, 3720.0), (data.draw(KINDS), 3600.0))
    ]
    arriving = [*sent[0], *sent[1], *frames]
    for _ in range(data.draw(st.integers(0, 4))):
        number = data.draw(st.integers(0, len(arriving) - 1))
        changed = bytearray(arriving[number])
        changed[data.draw(st.integers(0, len(changed) - 1))] ^= data.draw(st.integers(1, 255))
        arriving[number] = bytes(changed)
    ours, alone = (policy(transform, closed=closed, replay=replay_of(kind)) for _ in "ab")
    agree(crossed(ours, arriving * 2, way="inbound"), one_by_one(alone, arriving * 2, way="inbound"))
    assert counters_of(ours) == counters_of(alone)


def scapy_association(transform: TransformSet, packet: Any) -> ScapySa:
    cipher, integrity = TRANSFORMS[transform]
    key, integrity_key = keys_of(transform)
    return ScapySa(
        ESP,
        spi=SPI,
        crypt_algo=cipher,
        crypt_key=key or None,
        auth_algo=integrity,
        auth_key=integrity_key or None,
        tunnel_header=IP(src=packet.src, dst=packet.dst, tos=packet.tos, ttl=packet.ttl, flags=packet.flags),
    )


def is_exempt(packet: bytes) -> bool:
    """What the policy sends in clear: SSH."""
    inner = IP(packet)
    return TCP in inner and int(inner[TCP].dport) == 22


@EVERY
@given(st.lists(ip_packets(SITE_ADDRESSES, largest=1350), min_size=1, max_size=8))
@settings(max_examples=8, deadline=None)
def test_scapy_opens_what_crossed_and_finds_the_header_right(transform: TransformSet, packets: list[bytes]) -> None:
    packets = [packet for packet in packets if len(packet) <= 1400 and packet[9] != IGMP and not is_exempt(packet)]
    result = crossed(policy(transform), [framed(packet) for packet in packets], way="outbound")
    assert result.drops == []
    for packet, frame in zip(packets, result.sent, strict=True):
        inner, outer = IP(packet), IP(frame[14:])
        expected = IP(src=inner.src, dst=inner.dst, tos=inner.tos, ttl=inner.ttl, id=outer.id, proto=50)
        expected.flags = "DF" if "DF" in str(inner.flags) else ""
        assert frame[14:34] == bytes(expected / Raw(frame[34:]))[:20]
        # Its octets as they are, not as scapy would build what it makes of them.
        assert scapy_association(transform, inner).decrypt(outer).original == packet


def bare(packet: bytes) -> Any:
    """For scapy: a header, and data that it does not look into."""
    length = (packet[0] & 15) * 4
    return IP(packet[:length]) / Raw(packet[length:])


@EVERY
@given(st.lists(ip_packets(SITE_ADDRESSES, largest=1350), min_size=1, max_size=8))
@settings(max_examples=8, deadline=None)
def test_what_scapy_seals_comes_out_as_it_went_in(transform: TransformSet, packets: list[bytes]) -> None:
    packets = [packet for packet in packets if len(packet) <= 1400 and packet[9] != IGMP]
    # A congestion mark of the outer header would rightly change the inner one.
    packets = [packet for packet in packets if packet[1] & 3 != 3]
    # scapy's tunnel header would take fragments apart from their offsets.
    packets = [packet for packet in packets if not int.from_bytes(packet[6:8], "big") & 0x3FFF]
    frames = [framed(bytes(scapy_association(transform, IP(packet)).encrypt(bare(packet)))) for packet in packets]
    result = crossed(policy(transform), frames, way="inbound")
    assert (result.sent, result.drops) == ([framed(packet) for packet in packets], [])


def numbered(count: int, flows: int) -> list[bytes]:
    return [
        framed(
            bytes(IP(src="10.1.1.10", dst="10.1.2.20") / UDP(sport=1000 + n % flows) / Raw(n.to_bytes(4, "big") * 9))
        )
        for n in range(count)
    ]


def test_nothing_is_lost_and_nothing_overtakes_when_policies_change_between_frames() -> None:
    frames = numbered(200, 7)
    result, opened = Crossed(), Crossed()
    sender, receiver = (Crossing(policy(GCM), lambda reason, _: result.drops.append(reason)) for _ in "ab")
    for begin in range(0, len(frames), 10):
        run(sender, frames[begin : begin + 10], result, way="outbound", batch=3)
        successor = policy(GCM)
        assert sender.policy is not None
        # A policy that follows has the same SA: its counters go on.
        successor.associations[SPI] = sender.policy.associations[SPI]
        sender.install(successor)
    run(receiver, result.sent, opened, way="inbound")
    assert opened.sent == frames
    sequence = [int.from_bytes(frame[38:42], "big") for frame in result.sent]
    assert sequence == list(range(1, 201))


@pytest.mark.parametrize("way", ["outbound", "inbound"])
def test_a_policy_that_a_drop_brings_about_counts_for_the_very_next_frame(way: str) -> None:
    hopeless = framed(bytes(IP(src="10.1.1.10", dst="10.1.2.20", proto=50) / Raw(bytes(40))))
    if way == "outbound":
        hopeless = framed(b"\x45" + bytes(30))
    clear = framed(bytes(IP(src="192.0.2.1", dst="192.0.2.2") / UDP() / Raw(b"x" * 20)))
    result = Crossed()

    def close(reason: DropReason, packet: memoryview) -> None:
        result.drops.append(reason)
        crossing.install(policy(GCM, closed=True))

    crossing = Crossing(policy(GCM), close)
    run(crossing, [clear, hopeless, clear], result, way=way)
    assert result.sent == [clear]
    assert result.drops[1:] == [DropReason.FAIL_CLOSE]


def test_an_sa_that_may_send_no_more_drops_and_the_others_go_on() -> None:
    mute = policy(GCM)
    mute.associations[SPI]._sequence = 0xFFFFFFFE  # two packets before the end of RFC 4303's numbers
    ssh = framed(bytes(IP(src="10.1.1.10", dst="10.1.2.20") / TCP(dport=22) / Raw(bytes(20))))
    result = crossed(mute, [*numbered(3, 1), ssh], way="outbound")
    assert result.drops == [DropReason.SEQUENCE_EXHAUSTED] * 2
    assert result.sent[1:] == [ssh]


def test_more_flows_than_are_remembered_are_all_served() -> None:
    frames = [
        framed(bytes(IP(src="10.1.1.10", dst="10.1.2.20") / UDP(sport=n % 65535, dport=n // 65535) / Raw(bytes(16))))
        for n in range(0, 17_000)
    ]
    sealed = crossed(policy(GCM), frames, way="outbound")
    assert crossed(policy(GCM), sealed.sent, way="inbound").sent == frames
