"""How packets fit their way: DF bit and fragmentation as the vendor documents them, who is told what, and path MTUs."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_interface
from random import Random
from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest, ICMPv6PacketTooBig, ICMPv6TimeExceeded, IPv6, IPv6ExtHdrFragment
from scapy.packet import Raw

from labctl.configuration import (
    AccessListEntry,
    Action,
    Cipher,
    DfBit,
    Fragmentation,
    Integrity,
    TransformSet,
    TunnelSettings,
)
from labctl.esp import CryptoPolicy, DropReason, PolicyEntry, SecurityAssociation, Tunnel, Verdict
from labctl.esp.ip import checksum
from labctl.esp.path_mtu import LIFETIME
from labctl.esp.policy import VerdictAction

SPI = 0x1A2B3C4D
CBC = TransformSet(Cipher.AES_CBC, 128, Integrity.SHA1)
LAN = IPv4Network("10.1.0.0/16")
OWN = [ip_interface(text) for text in ("172.16.1.2/30", "10.1.1.1/24", "2001:db8:ffff::2/64", "2001:db8:1::1/64")]
# Of CBC and SHA-1 on a link of 1,500 octets (reference/cisco-getvpn.md 2.9).
ROOM = 1438


class Clocks:
    now = 0.0
    lab = 0.0


@dataclass
class Member:
    """A policy and what stays when policies change."""

    policy: CryptoPolicy
    tunnel: Tunnel
    clocks: Clocks

    def send(self, packet: Any) -> Verdict:
        return self.policy.outbound(bytes(packet))

    def take(self, packet: Any) -> Verdict:
        return self.policy.inbound(bytes(packet))


def member(
    settings: TunnelSettings = TunnelSettings(),  # noqa: B008
    *,
    mtu: int = 1500,
    entries: tuple[AccessListEntry, ...] = (AccessListEntry(Action.PERMIT, 0, LAN, LAN),),
    six: bool = False,
) -> Member:
    clocks = Clocks()
    if six:
        everything = IPv6Network("2001:db8::/32")
        entries = (AccessListEntry(Action.PERMIT, 0, everything, everything),)
    tunnel = Tunnel(mtu, OWN, settings, now=lambda: clocks.now, lab_now=lambda: clocks.lab)
    sa = SecurityAssociation(SPI, CBC, bytes(16), bytes(20), random=Random(3).randbytes)
    places = [PolicyEntry(item, SPI if item.action is Action.PERMIT else None, frozenset({SPI})) for item in entries]
    return Member(CryptoPolicy(places, {SPI: sa}, tunnel=tunnel), tunnel, clocks)


def datagram(octets: int, *, df: bool = False, **fields: Any) -> Any:
    """UDP in an IPv4 packet of that many octets."""
    header = {"src": "10.1.1.10", "dst": "10.1.2.10", "flags": "DF" if df else 0} | fields
    return IP(bytes(IP(**header) / UDP(sport=7, dport=7) / Raw(bytes(n & 255 for n in range(octets - 28)))))


B, A = Fragmentation.BEFORE, Fragmentation.AFTER


@pytest.mark.parametrize(
    ("fragmentation", "df_bit", "df", "becomes"),
    [
        (B, DfBit.CLEAR, False, "before"),
        (B, DfBit.CLEAR, True, "before"),
        (A, DfBit.CLEAR, False, "after"),
        (A, DfBit.CLEAR, True, "after"),
        (B, DfBit.SET, False, "before"),
        (B, DfBit.SET, True, "dropped"),
        (A, DfBit.SET, False, "after"),
        (A, DfBit.SET, True, "dropped"),
        (B, DfBit.COPY, False, "before"),
        (B, DfBit.COPY, True, "dropped"),
        (A, DfBit.COPY, False, "after"),
        (A, DfBit.COPY, True, "dropped"),
    ],
)
def test_a_packet_that_does_not_fit_is_split_or_dropped_as_ios_does(
    fragmentation: Fragmentation, df_bit: DfBit, df: bool, becomes: str
) -> None:
    sender = member(TunnelSettings(fragmentation, df_bit))
    receiver = member()
    whole = datagram(1500, df=df)
    verdict = sender.send(whole)
    if becomes == "dropped":
        assert (verdict.action, verdict.reason) == (VerdictAction.DROP, DropReason.TOO_BIG)
        assert verdict.back is not None and IP(verdict.back)[ICMP].nexthopmtu == ROOM
        return
    assert verdict.action is VerdictAction.ESP and len(verdict.packets) == 2
    parts = [IP(bytes(part)) for part in verdict.packets]
    assert all(len(bytes(part)) <= 1500 for part in parts)
    assert all(bool(part.flags.DF) is (df_bit is DfBit.SET) for part in parts)
    came = [receiver.take(part) for part in parts]
    counts = sender.tunnel.counters()["counts"]
    if becomes == "after":
        assert parts[0].flags.MF and [item.action for item in came] == [VerdictAction.HELD, VerdictAction.CLEAR]
        assert [bytes(item) for item in came[1].packets] == [bytes(whole)]
        assert counts == {"split-after-encryption": 1}
        assert receiver.tunnel.counters()["counts"] == {"esp-reassembled": 1}
    else:
        assert not any(part.flags.MF for part in parts)
        inside = [IP(bytes(item.packets[0])) for item in came]
        assert b"".join(bytes(part.payload) for part in inside) == bytes(whole.payload)
        assert counts == {"split-before-encryption": 1}


@pytest.mark.parametrize("df", [False, True])
@pytest.mark.parametrize("df_bit", list(DfBit))
def test_the_outer_df_bit_of_what_fits_is_as_configured(df_bit: DfBit, df: bool) -> None:
    sealed = IP(bytes(member(TunnelSettings(df_bit=df_bit)).send(datagram(ROOM, df=df)).packets[0]))
    assert bool(sealed.flags.DF) is {DfBit.COPY: df, DfBit.SET: True, DfBit.CLEAR: False}[df_bit]
    checked = sealed.copy()
    del checked.chksum
    assert bytes(checked) == bytes(sealed)
    opened = member().take(sealed).packets[0]
    assert bytes(opened) == bytes(datagram(ROOM, df=df))


def test_a_sender_is_told_from_the_address_on_its_own_subnet_with_what_it_sent() -> None:
    sender = member()
    whole = datagram(1500, df=True)
    message = sender.send(whole).back or b""
    answer = IP(message)
    assert (answer.src, answer.dst, answer.proto) == ("10.1.1.1", "10.1.1.10", 1)
    assert (answer[ICMP].type, answer[ICMP].code, answer[ICMP].nexthopmtu) == (3, 4, ROOM)
    # RFC 1812 4.3.2.3: as much of the packet as fits 576 octets.
    assert len(message) == 576 and message[28:] == bytes(whole)[:548]
    assert checksum(message[:20]) == checksum(message[20:]) == 0
    # Of a sender on no subnet of ours: from the crypto interface.
    assert IP(sender.send(datagram(1500, df=True, src="10.1.9.9")).back or b"").src == "172.16.1.2"


def test_one_sender_is_told_every_half_second_and_others_do_not_wait_for_it() -> None:
    sender = member()
    told = []
    for moment, source in (
        (0.0, "10.1.1.10"),
        (0.1, "10.1.1.10"),
        (0.1, "10.1.1.11"),
        (0.49, "10.1.1.10"),
        (0.5, "10.1.1.10"),
    ):
        sender.clocks.now = moment
        told.append(sender.send(datagram(1500, df=True, src=source)).back is not None)
    assert told == [True, False, True, False, True]
    assert sender.tunnel.counters()["counts"] == {"senders-told-too-big": 3}


def test_who_must_not_be_told_is_not() -> None:
    error = IP(src="10.1.1.10", dst="10.1.2.10", flags="DF") / ICMP(type=3, code=1) / Raw(bytes(1472))
    everyone = IPv4Network("0.0.0.0/0")
    sender = member(entries=(AccessListEntry(Action.PERMIT, 0, everyone, everyone),))
    for quiet in (
        error,
        datagram(1500, df=True, dst="239.1.1.1"),
        datagram(1500, df=True, frag=100),
        datagram(1500, df=True, src="0.0.0.0"),
        datagram(1500, df=True, src="127.0.0.1"),
        datagram(1500, df=True, src="224.0.0.9"),
        datagram(1500, df=True, dst="255.255.255.255"),
    ):
        verdict = sender.send(quiet)
        assert (verdict.action, verdict.reason, verdict.back) == (VerdictAction.DROP, DropReason.TOO_BIG, None)
    echo = IP(src="10.1.1.10", dst="10.1.2.10", flags="DF") / ICMP() / Raw(bytes(1472))
    assert sender.send(echo).back is not None


def six(octets: int, **fields: Any) -> Any:
    header = {"src": "2001:db8:1::10", "dst": "2001:db8:2::10"} | fields
    return IPv6(bytes(IPv6(**header) / UDP(sport=7, dport=7) / Raw(bytes(octets - 48))))


def test_an_ipv6_sender_is_told_and_never_split_for() -> None:
    sender = member(TunnelSettings(Fragmentation.AFTER, DfBit.CLEAR), six=True)
    verdict = sender.send(six(1500))
    assert (verdict.action, verdict.reason) == (VerdictAction.DROP, DropReason.TOO_BIG)
    answer = IPv6(verdict.back or b"")
    assert (answer.src, answer.dst, answer[ICMPv6PacketTooBig].mtu) == ("2001:db8:1::1", "2001:db8:1::10", 1422)
    assert len(bytes(answer)) == 1280
    assert sender.send(six(1422)).action is VerdictAction.ESP
    sender.clocks.now += 1
    assert sender.send(IPv6(bytes(six(1500, dst="ff0e::1")))).action is VerdictAction.CLEAR  # no entry has it
    error = IPv6(src="2001:db8:1::10", dst="2001:db8:2::10") / ICMPv6TimeExceeded() / Raw(bytes(1452))
    assert sender.send(error).back is None
    echo = IPv6(src="2001:db8:1::11", dst="2001:db8:2::10") / ICMPv6EchoRequest(data=bytes(1452))
    assert sender.send(echo).back is not None


def test_ipv6_packets_of_1280_octets_pass_any_link_in_fragments_of_esp() -> None:
    sender, receiver = member(mtu=1280, six=True), member(mtu=1280, six=True)
    verdict = sender.send(six(1281))
    assert verdict.reason is DropReason.TOO_BIG
    assert IPv6(verdict.back or b"")[ICMPv6PacketTooBig].mtu == 1280
    parts = sender.send(six(1280)).packets
    assert len(parts) == 2 and all(len(part) <= 1280 for part in parts)
    assert all(IPv6(bytes(part))[IPv6ExtHdrFragment].nh == 50 for part in parts)
    came = [receiver.take(part) for part in reversed(parts)]
    assert [item.action for item in came] == [VerdictAction.HELD, VerdictAction.CLEAR]
    assert bytes(came[1].packets[0]) == bytes(six(1280))


def test_what_was_put_together_is_split_again_for_a_smaller_inside() -> None:
    sender, receiver = member(TunnelSettings(A, DfBit.CLEAR)), member(mtu=1400)
    whole = datagram(1500, df=True)
    last = [receiver.take(part) for part in sender.send(whole).packets][-1]
    parts = [IP(bytes(part)) for part in last.packets]
    assert len(parts) == 2 and all(len(bytes(part)) <= 1400 for part in parts)
    assert b"".join(bytes(part.payload) for part in parts) == bytes(whole.payload)


def test_the_hosts_own_esp_passes_in_the_fragments_that_it_came_in() -> None:
    passing = member(entries=(AccessListEntry(Action.DENY, 50, LAN, LAN), AccessListEntry(Action.PERMIT, 0, LAN, LAN)))
    data = bytes(4) + bytes(2000)
    parts = [
        IP(src="10.1.2.10", dst="10.1.1.10", proto=50, id=9, flags="MF") / Raw(data[:1200]),
        IP(src="10.1.2.10", dst="10.1.1.10", proto=50, id=9, frag=150) / Raw(data[1200:]),
    ]
    came = [passing.take(part) for part in parts]
    assert [item.action for item in came] == [VerdictAction.HELD, VerdictAction.CLEAR]
    assert [bytes(item) for item in came[1].packets] == [bytes(part) for part in parts]


def test_a_reassembled_packet_under_an_unknown_key_is_reported_whole() -> None:
    receiver = member()
    parts = [
        IP(src="10.1.2.10", dst="10.1.1.10", proto=50, id=9, flags="MF") / Raw(b"\x00\x00\xab\xcd" + bytes(60)),
        IP(src="10.1.2.10", dst="10.1.1.10", proto=50, id=9, frag=8) / Raw(bytes(60)),
    ]
    verdict = [receiver.take(part) for part in parts][1]
    assert verdict.reason is DropReason.INVALID_SPI
    assert verdict.dropped is not None and verdict.dropped[20:24] == b"\x00\x00\xab\xcd"


def told_by_router(sealed: bytes, mtu: int, *, to: str = "10.1.1.10", **changes: Any) -> Any:
    """What a router in the network says of an ESP packet: to its source, with its first octets."""
    quote = IP(sealed[:28])
    for name, value in changes.items():
        setattr(quote, name, value)
    del quote.chksum
    return IP(bytes(IP(src="172.16.9.9", dst=to) / ICMP(type=3, code=4, nexthopmtu=mtu) / Raw(bytes(quote))))


LEARNING = TunnelSettings(learn_path_mtu=True)


def test_a_member_that_learns_takes_the_message_and_tells_the_host_what_fits() -> None:
    sender = member(LEARNING)
    sealed = bytes(sender.send(datagram(ROOM, df=True)).packets[0])
    verdict = sender.take(told_by_router(sealed, 1400))
    assert verdict.action is VerdictAction.HELD and not verdict.packets
    assert sender.tunnel.counters()["paths"] == {"10.1.2.10": 1400} and sender.tunnel.take_change()
    answer = IP(sender.send(datagram(ROOM, df=True)).back or b"")
    assert answer[ICMP].nexthopmtu == 1342
    assert len(sender.send(datagram(1342, df=True)).packets[0]) <= 1400
    # Another destination has its own path.
    assert sender.send(datagram(ROOM, df=True, dst="10.1.2.11")).action is VerdictAction.ESP
    # Without DF it is split for this path.
    assert all(len(part) <= 1400 for part in sender.send(datagram(1500)).packets)
    # Told again: for us, and nothing new.
    assert sender.take(told_by_router(sealed, 1400)).action is VerdictAction.HELD
    assert not sender.tunnel.take_change()
    assert sender.tunnel.counters()["counts"]["path-mtu-lowered"] == 1
    # After ten minutes of the lab's, larger packets are tried again.
    sender.clocks.lab += LIFETIME
    assert sender.send(datagram(ROOM, df=True)).action is VerdictAction.ESP
    assert sender.tunnel.take_change() and sender.tunnel.counters()["paths"] == {}


def test_a_member_that_does_not_learn_lets_the_message_go_to_the_host() -> None:
    sender = member()
    sealed = bytes(sender.send(datagram(ROOM, df=True)).packets[0])
    assert sender.take(told_by_router(sealed, 1400)).action is VerdictAction.CLEAR
    assert sender.tunnel.counters()["paths"] == {}


@pytest.mark.parametrize(
    "lie",
    [
        lambda sealed: told_by_router(sealed[:20] + b"\0\0\0\1" + sealed[24:], 600),
        lambda sealed: told_by_router(sealed[:24] + b"\0\0\0\2" + sealed[28:], 600),
        lambda sealed: told_by_router(sealed[:24] + b"\0\0\0\0" + sealed[28:], 600),
        lambda sealed: told_by_router(sealed, 600, to="10.1.1.77"),
        lambda sealed: told_by_router(sealed, 600, proto=17),
        lambda sealed: told_by_router(sealed, 600, frag=8),
        lambda sealed: IP(bytes(told_by_router(sealed, 600))[:-1] + b"\x55"),
        lambda sealed: IP(bytes(told_by_router(sealed, 600))[:40]),
        lambda sealed: IP(src="172.16.9.9", dst="10.1.1.10") / ICMP(type=3, code=1) / Raw(sealed[:28]),
    ],
    ids=[
        "spi",
        "not sent yet",
        "sequence 0",
        "not its source",
        "no esp",
        "a later fragment",
        "checksum",
        "cut",
        "other",
    ],
)
def test_what_nobody_on_the_path_could_have_said_is_no_news(lie: Any) -> None:
    sender = member(LEARNING)
    sealed = bytes(sender.send(datagram(ROOM, df=True)).packets[0])
    assert sender.take(bytes(lie(sealed))).action is not VerdictAction.HELD
    assert sender.tunnel.counters()["paths"] == {}


@pytest.mark.parametrize(
    ("said", "believed"), [(68, 576), (0, 1492), (1500, None), (9000, None)], ids=["tiny", "none", "its size", "more"]
)
def test_a_path_is_never_believed_to_have_less_than_every_path_nor_more_than_the_packet(
    said: int, believed: int | None
) -> None:
    sender = member(LEARNING)
    sealed = bytes(sender.send(datagram(ROOM, df=True)).packets[0])
    assert len(sealed) == 1496
    sender.take(told_by_router(sealed, said))
    assert sender.tunnel.counters()["paths"] == ({} if believed is None else {"10.1.2.10": believed})


def test_ipv6_routers_are_believed_too() -> None:
    sender = member(LEARNING, six=True)
    sealed = bytes(sender.send(six(1422)).packets[0])
    told = IPv6(src="2001:db8:ffff::9", dst="2001:db8:1::10") / ICMPv6PacketTooBig(mtu=1400) / Raw(sealed[:1200])
    assert sender.take(told).action is VerdictAction.HELD
    assert sender.tunnel.counters()["paths"] == {"2001:db8:2::10": 1400}
    assert IPv6(sender.send(six(1422)).back or b"")[ICMPv6PacketTooBig].mtu == 1310


def entry(action: Action, protocol: int, port: int) -> AccessListEntry:
    return AccessListEntry(action, protocol, LAN, LAN, 0, port)


def test_later_fragments_match_what_is_permitted_with_ports_and_not_what_is_denied() -> None:
    first = datagram(500, flags="MF")
    later = IP(src="10.1.1.10", dst="10.1.2.10", proto=17, frag=60) / Raw(bytes(100))
    permitting = member(entries=(entry(Action.PERMIT, 17, 7),))
    assert [permitting.send(item).action for item in (first, later)] == [VerdictAction.ESP] * 2
    # Nothing leaves in clear for want of ports; another port's first fragment does, as its entry says.
    other = member(entries=(entry(Action.PERMIT, 17, 8),))
    assert [other.send(item).action for item in (first, later)] == [VerdictAction.CLEAR, VerdictAction.ESP]
    denying = member(entries=(entry(Action.DENY, 17, 7), AccessListEntry(Action.PERMIT, 0, LAN, LAN)))
    assert [denying.send(item).action for item in (first, later)] == [VerdictAction.CLEAR, VerdictAction.ESP]
    # Who receives judges alike.
    for pair in (permitting, other, denying):
        receiver = member(entries=tuple(item.entry for item in pair.policy.entries))
        for item in (first, later):
            verdict = pair.send(item)
            assert receiver.take(verdict.packets[0]).action is VerdictAction.CLEAR
    backwards = IP(src="10.1.2.10", dst="10.1.1.10", proto=17, frag=60) / Raw(bytes(100))
    assert permitting.take(backwards).reason is DropReason.NOT_IPSEC


def test_a_datagram_that_would_be_no_ip_packet_once_encrypted_is_dropped() -> None:
    sender = member(TunnelSettings(A))
    assert sender.send(IP(src="10.1.1.10", dst="10.1.2.10") / TCP() / Raw(bytes(65_490))).reason is DropReason.TOO_BIG
