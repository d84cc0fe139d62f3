"""From host to host through two members and a network with smaller links: what arrives is what was sent, to the octet.

The network is scapy's: routers that split what may be split, and drop the rest. So are the hosts, who put fragments of
their own packets together.
"""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from dataplane_batches import ARP, IPV4, IPV6, MACS, MTU, OWN, SITES, SPI, SSH_IN_CLEAR, Crossed, association, run
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption, IPOption_NOP, IPOption_RR, defragment
from scapy.layers.inet import fragment as split
from scapy.layers.inet6 import IPv6
from scapy.packet import Packet, Raw, fuzz

from labctl.configuration import Cipher, DfBit, Fragmentation, Integrity, TransformSet, TunnelSettings
from labctl.dataplane.crossing import Crossing
from labctl.esp import CryptoPolicy, DropReason, Tunnel
from labctl.esp.tunnel import interfaces_of

GCM = TransformSet(Cipher.AES_GCM, 128)
TRANSFORMS = (GCM, TransformSet(Cipher.AES_CBC, 256, Integrity.SHA256))
SETTINGS = st.builds(
    TunnelSettings,
    fragmentation=st.sampled_from(Fragmentation),
    df_bit=st.sampled_from(DfBit),
    learn_path_mtu=st.booleans(),
)


def policy(transform: TransformSet, tunnel: TunnelSettings, seed: int = 1) -> CryptoPolicy:
    return CryptoPolicy(
        (SSH_IN_CLEAR, SITES),
        {SPI: association(transform, seed=seed)},
        tunnel=Tunnel(MTU, interfaces_of([OWN.packed]), tunnel),
    )


@st.composite
def packets(draw: st.DrawFn) -> Any:
    """Packets that a router forwards: any service, options, size, DF or not; to the other site, or elsewhere."""
    options = st.lists(st.sampled_from([IPOption_NOP(), IPOption_RR(routers=["0.0.0.0"]), ROUTER_ALERT]), max_size=3)
    header = IP(
        src="10.1.1.10",
        dst=draw(st.sampled_from(["10.1.2.10", "10.1.2.11", "192.0.2.1"])),
        tos=draw(st.integers(0, 255)),
        ttl=draw(st.integers(2, 255)),
        id=draw(st.integers(0, 65535)),
        flags=draw(st.sampled_from(["", "DF"])),
        options=draw(options),
    )
    ssh = TCP(sport=22, dport=22)
    layer = draw(st.sampled_from([UDP(sport=1, dport=2), TCP(dport=80, flags="A"), ssh, ICMP(id=7)]))
    most = MTU - 20 - len(bytes(IP(options=header.options))) + 20 - len(bytes(layer))
    size = draw(st.one_of(st.integers(0, 60), st.integers(1200, 1480), st.integers(0, 1480)))
    return IP(bytes(header / layer / Raw(Random(size).randbytes(min(size, most)))))


ROUTER_ALERT = IPOption(copy_flag=1, optclass=0, option=20, value=b"\0\0")


def through_network(frames: list[bytes], mtu: int) -> list[bytes]:
    """Routers on the way: TTL as it is, fragments where they may be made, in another order."""
    out = []
    for frame in frames:
        packet = IP(frame[14:])
        if len(packet) <= mtu:
            out.append(frame)
        elif not packet.flags.DF:
            out += [frame[:14] + bytes(part) for part in split(packet, mtu - 20)]
    Random(len(out)).shuffle(out)
    return out


def crossed(group: CryptoPolicy, frames: list[bytes], way: str) -> Crossed:
    result = Crossed()
    run(Crossing(group, lambda reason, _: result.drops.append(reason)), frames, result, way=way)
    return result


@given(st.sampled_from(TRANSFORMS), SETTINGS, packets(), st.sampled_from([576, 1400, 1500]))
@settings(max_examples=150, deadline=None)
def test_what_comes_out_is_to_the_octet_what_went_in(
    transform: TransformSet, tunnel: TunnelSettings, packet: Any, mtu: int
) -> None:
    sender, receiver = policy(transform, tunnel), policy(transform, tunnel, seed=2)
    left = crossed(sender, [MACS + IPV4 + bytes(packet)], "outbound")
    room = sender.associations[SPI].plaintext_mtu(MTU)
    fits = len(packet) <= room or packet.dst == "192.0.2.1" or (TCP in packet and packet[TCP].dport == 22)
    if packet.flags.DF and tunnel.df_bit is not DfBit.CLEAR and not fits:
        assert left.drops == [DropReason.TOO_BIG] and not left.sent
        assert len(left.back) == 1 and IP(left.back[0][14:])[ICMP].nexthopmtu == room
        return
    assert not left.drops and not left.back and all(len(frame) <= 14 + MTU for frame in left.sent)
    on_the_wire = through_network(left.sent, mtu)
    came = crossed(receiver, on_the_wire, "inbound")
    if any(len(frame) > 14 + mtu and IP(frame[14:]).flags.DF for frame in left.sent):
        # The black hole: DF outside, and a smaller link on the way. What is left of the packet is not the packet.
        assert not came.drops and bytes(packet) not in [frame[14:] for frame in came.sent]
        return
    if TCP in packet and packet[TCP].dport == 22 and packet.dst != "192.0.2.1" and len(on_the_wire) > 1:
        # In clear by its ports, which the first fragment has alone: those behind it are none that may come in clear.
        assert came.drops == [DropReason.NOT_IPSEC] * (len(on_the_wire) - 1)
        return
    assert not came.drops and not came.back
    arrived = [IP(frame[14:]) for frame in came.sent]
    if len(arrived) == 1:
        assert bytes(arrived[0]) == bytes(packet)
    else:
        (whole,) = defragment(sorted(arrived, key=lambda part: part.frag))
        assert bytes(IP(bytes(whole)).payload) == bytes(packet.payload)
        first = min(arrived, key=lambda part: part.frag)
        assert bytes(first)[20 : first.ihl * 4] == bytes(packet)[20 : packet.ihl * 4]


@given(SETTINGS, st.lists(packets(), min_size=1, max_size=12))
@settings(max_examples=60, deadline=None)
def test_known_flows_leave_and_arrive_as_new_ones(tunnel: TunnelSettings, batch: list[Any]) -> None:
    frames = [MACS + IPV4 + bytes(packet) for packet in batch]
    together = crossed(policy(GCM, tunnel), frames * 2, "outbound")
    alone = policy(GCM, tunnel)
    apart = [crossed(alone, [frame], "outbound") for frame in frames * 2]
    assert together.sent == [frame for item in apart for frame in item.sent]
    assert together.drops == [reason for item in apart for reason in item.drops]
    pieces = through_network(together.sent, 1000)
    first, second = policy(GCM, tunnel), policy(GCM, tunnel)
    one_by_one = [frame for piece in pieces for frame in crossed(second, [piece], "inbound").sent]
    assert crossed(first, pieces, "inbound").sent == one_by_one


def test_a_path_that_shrinks_counts_for_the_very_next_frame_of_a_known_flow() -> None:
    group = policy(GCM, TunnelSettings(learn_path_mtu=True))
    frame = MACS + IPV4 + bytes(IP(src="10.1.1.10", dst="10.1.2.10", flags="DF") / UDP() / Raw(bytes(1400)))
    result, crossing = Crossed(), Crossing(group, None)
    run(crossing, [frame] * 3, result, way="outbound")
    assert len(result.sent) == 3
    quote = result.sent[0][14:]
    told = IP(src="172.16.9.9", dst="10.1.1.10") / ICMP(type=3, code=4, nexthopmtu=1400) / Raw(quote[:200])
    other = IP(src="172.16.9.9", dst="10.1.1.10") / ICMP() / Raw(bytes(20))
    clear = [MACS + IPV4 + bytes(packet) for packet in (other, told, other)]
    result = Crossed()
    run(crossing, clear, result, way="inbound")
    assert result.sent == [clear[0], clear[2]]
    result = Crossed()
    run(crossing, [frame, frame], result, way="outbound")
    assert not result.sent and len(result.back) == 1 and crossing.drops == {"too-big": 2}
    assert IP(result.back[0][14:])[ICMP].nexthopmtu < 1400


@pytest.mark.parametrize("options", [[], [IPOption_NOP()] * 4], ids=["fast", "slow"])
def test_where_the_kernel_cannot_members_lower_what_syns_offer_both_ways(options: list[Any]) -> None:
    sender, receiver = policy(GCM, TunnelSettings()), policy(GCM, TunnelSettings(), seed=2)
    syn = IP(src="10.1.1.10", dst="10.1.2.10", options=options) / TCP(flags="S", options=[("MSS", 1460)])
    plain = IP(src="10.1.1.10", dst="192.0.2.1", options=options) / TCP(flags="S", options=[("MSS", 1460)])
    data = IP(src="10.1.1.10", dst="10.1.2.10", options=options) / TCP(flags="A") / Raw(bytes(30))
    frames = [MACS + IPV4 + bytes(packet) for packet in (syn, data, plain, syn, plain)]

    def offered(frames: list[bytes]) -> list[int]:
        return [IP(frame[14:])[TCP].options[0][1] for frame in frames if IP(frame[14:])[TCP].flags.S]

    sender.tunnel.mss = 1300
    left = crossed(sender, frames, "outbound")
    came = crossed(receiver, left.sent, "inbound")
    assert offered(came.sent) == [1300] * 4 and came.sent[1] == frames[1]
    assert sender.tunnel.counters()["counts"] == {"mss-lowered": 4}

    sender.tunnel.mss, receiver.tunnel.mss = None, 1200
    came = crossed(receiver, crossed(sender, frames, "outbound").sent, "inbound")
    assert offered(came.sent) == [1200] * 4 and came.sent[1] == frames[1]
    for frame in came.sent:
        checked = IP(frame[14:])
        del checked[TCP].chksum
        assert bytes(checked) == frame[14:]


NOT_IP = {
    "arp": ARP,
    "lldp": b"\x88\xcc",
    "isis": b"\x00\x40\xfe\xfe\x03",  # 802.3 with a length and LLC
    "mpls": b"\x88\x47",
    "a vlan tag": b"\x81\x00\x00\x05\x08\x00",
    "unknown": b"\xab\xcd",
}


@pytest.mark.parametrize("way", ["outbound", "inbound"])
@pytest.mark.parametrize("head", NOT_IP.values(), ids=NOT_IP)
def test_what_is_not_ip_passes_untouched(head: bytes, way: str) -> None:
    frame = MACS + head + bytes(IP(src="10.1.1.10", dst="10.1.2.10") / UDP() / Raw(bytes(30)))
    result = crossed(policy(GCM, TunnelSettings()), [frame, MACS + head], way)
    assert result.sent == [frame, MACS + head] and not result.drops


LAYERS: list[Packet] = [IP(), IP() / UDP(), IP() / TCP(), IP() / ICMP(), IP(proto=50), IPv6(), IPv6() / UDP()]


@pytest.mark.parametrize("way", ["outbound", "inbound"])
def test_fuzzed_packets_never_stop_a_member(way: str) -> None:
    chance = Random(11)
    group = policy(GCM, TunnelSettings(Fragmentation.AFTER, DfBit.CLEAR, learn_path_mtu=True))
    sealed = crossed(
        group, [MACS + IPV4 + bytes(IP(src="10.1.1.10", dst="10.1.2.10") / UDP() / Raw(bytes(900)))], "outbound"
    )
    good, whole = MACS + IPV4 + bytes(IP(src="10.1.1.10", dst="10.1.2.10") / UDP() / Raw(b"good")), sealed.sent[0]
    frames = []
    for number in range(400):
        layer = LAYERS[number % len(LAYERS)]
        noise = bytes(fuzz(layer.copy()) / Raw(chance.randbytes(chance.randrange(80))))
        frames.append(MACS + (IPV6 if layer.version == 6 else IPV4) + noise[:1480])
        hurt = bytearray(whole)
        for _ in range(chance.randrange(1, 4)):
            hurt[chance.randrange(12, len(hurt))] = chance.randrange(256)
        frames += [bytes(hurt), bytes(hurt[: chance.randrange(14, len(hurt))])]
        for part in split(IP(whole[14:]), 200)[: chance.randrange(1, 4)]:
            part.frag = chance.choice([part.frag, chance.randrange(0, 8191)])
            part.id = chance.randrange(3)
            frames.append(MACS + IPV4 + bytes(part))
    result = Crossed()
    crossing = Crossing(group, lambda reason, _: result.drops.append(reason))
    run(crossing, frames, result, way=way)
    assert DropReason.MALFORMED in result.drops
    # And it goes on.
    result.sent.clear()
    if way == "outbound":
        run(crossing, [good], result, way=way)
        assert len(result.sent) == 1 and IP(result.sent[0][14:]).proto == 50
    else:
        fresh = crossed(policy(GCM, TunnelSettings(), seed=9), [good], "outbound")
        run(crossing, fresh.sent, result, way=way)
        assert result.sent == [good]
