"""What goes in comes out; scapy's IPsec layer agrees, both ways; nothing hostile gets through."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6
from scapy.layers.ipsec import ESP
from scapy.layers.ipsec import SecurityAssociation as ScapySa
from scapy.packet import Raw

from labctl.configuration import AccessListEntry, Action, Cipher, Integrity, TransformSet
from labctl.esp import CryptoPolicy, DropPacket, DropReason, PolicyEntry, SecurityAssociation
from labctl.esp.policy import VerdictAction

KEY = bytes(range(1, 65))
SPI = 0x1A2B3C4D
OWN = IPv4Address("172.16.1.2")

TRANSFORMS = {
    TransformSet(Cipher.AES_GCM, 128): ("AES-GCM", None),
    TransformSet(Cipher.AES_GCM, 192): ("AES-GCM", None),
    TransformSet(Cipher.AES_GCM, 256): ("AES-GCM", None),
    TransformSet(Cipher.AES_GMAC, 256): ("AES-NULL-GMAC", None),
    TransformSet(Cipher.AES_CBC, 128, Integrity.SHA1): ("AES-CBC", "HMAC-SHA1-96"),
    TransformSet(Cipher.AES_CBC, 192, Integrity.SHA256): ("AES-CBC", "SHA2-256-128"),
    TransformSet(Cipher.AES_CBC, 256, Integrity.SHA384): ("AES-CBC", "SHA2-384-192"),
    TransformSet(Cipher.AES_CBC, 256, Integrity.SHA512): ("AES-CBC", "SHA2-512-256"),
    TransformSet(Cipher.TRIPLE_DES, 192, Integrity.SHA1): ("3DES", "HMAC-SHA1-96"),
    TransformSet(Cipher.NULL, 0, Integrity.SHA256): ("NULL", "SHA2-256-128"),
}
INTEGRITY_OCTETS = {
    Integrity.NONE: 0,
    Integrity.SHA1: 20,
    Integrity.SHA256: 32,
    Integrity.SHA384: 48,
    Integrity.SHA512: 64,
}
EVERY = pytest.mark.parametrize("transform", list(TRANSFORMS), ids=str)


def association(transform: TransformSet, sender_id: int | None = 7, seed: int = 1) -> SecurityAssociation:
    octets = transform.key_bits // 8 + (4 if transform.uses_counter_mode else 0)
    return SecurityAssociation(
        SPI,
        transform,
        KEY[:octets],
        KEY[: INTEGRITY_OCTETS[transform.integrity]],
        random=Random(seed).randbytes,
        sender_id=sender_id,
        sender_id_bits=24,
    )


def scapy_association(transform: TransformSet, packet: Any) -> ScapySa:
    cipher, integrity = TRANSFORMS[transform]
    octets = transform.key_bits // 8 + (4 if transform.uses_counter_mode else 0)
    return ScapySa(
        ESP,
        spi=SPI,
        crypt_algo=cipher,
        crypt_key=KEY[:octets] or None,
        auth_algo=integrity,
        auth_key=KEY[: INTEGRITY_OCTETS[transform.integrity]] or None,
        tunnel_header=type(packet)(src=packet.src, dst=packet.dst),
    )


def ping6(size: int = 56, **fields: Any) -> Any:
    header = IPv6(src="2001:db8:1::10", dst="2001:db8:2::10", **fields)
    return IPv6(bytes(header / ICMPv6EchoRequest(id=7, data=bytes(size))))


def ping(size: int = 56, **fields: Any) -> Any:
    return IP(bytes(IP(src="10.1.1.10", dst="10.1.2.10", **fields) / ICMP(id=7) / Raw(bytes(size))))


@EVERY
@pytest.mark.parametrize("size", [0, 1, 2, 3, 56, 1372])
def test_scapy_opens_what_we_send(transform: TransformSet, size: int) -> None:
    packet = ping(size)
    opened = scapy_association(transform, packet).decrypt(IP(association(transform).encapsulate(bytes(packet))))
    assert bytes(opened) == bytes(packet)


@EVERY
@pytest.mark.parametrize("size", [0, 1, 2, 3, 56, 1372])
def test_we_open_what_scapy_sends(transform: TransformSet, size: int) -> None:
    packet = ping(size)
    sealed = scapy_association(transform, packet).encrypt(packet)
    assert association(transform).decapsulate(bytes(sealed)) == bytes(packet)


@EVERY
@pytest.mark.parametrize("size", [0, 1, 2, 3, 56, 1372])
def test_scapy_opens_and_builds_ipv6_too(transform: TransformSet, size: int) -> None:
    packet = ping6(size)
    opened = scapy_association(transform, packet).decrypt(IPv6(association(transform).encapsulate(bytes(packet))))
    assert bytes(opened) == bytes(packet)
    sealed = scapy_association(transform, packet).encrypt(packet)
    assert association(transform).decapsulate(bytes(sealed)) == bytes(packet)


@EVERY
def test_the_outer_header_keeps_what_the_network_needs_to_see(transform: TransformSet) -> None:
    packet = ping(tos=0xB9, flags="DF", ttl=61)
    outer = IP(association(transform).encapsulate(bytes(packet)))
    assert (outer.src, outer.dst, outer.tos, outer.ttl, outer.proto) == ("10.1.1.10", "10.1.2.10", 0xB9, 61, 50)
    assert outer.flags == "DF" and outer.frag == 0
    assert outer.len == len(outer)
    check = outer.chksum
    del outer.chksum
    assert IP(bytes(outer)).chksum == check


def test_an_ipv6_packet_keeps_its_header_too() -> None:
    transform = TransformSet(Cipher.AES_GCM, 128)
    packet = bytes(IPv6(src="2001:db8:1::1", dst="2001:db8:2::1", tc=0xB8, fl=0x12345, hlim=60) / UDP() / Raw(b"x"))
    sealed = association(transform).encapsulate(packet)
    outer = IPv6(sealed)
    assert (outer.src, outer.dst, outer.tc, outer.fl, outer.hlim, outer.nh) == (
        "2001:db8:1::1",
        "2001:db8:2::1",
        0xB8,
        0x12345,
        60,
        50,
    )
    assert association(transform).decapsulate(sealed) == packet


def test_a_congestion_mark_on_the_way_reaches_the_inner_header_of_a_capable_flow() -> None:
    transform = TransformSet(Cipher.AES_GCM, 128)
    for inner_tos, expected in ((0x02, 0x03), (0x00, 0x00)):
        outer = IP(association(transform).encapsulate(bytes(ping(tos=inner_tos))))
        outer.tos |= 3
        del outer.chksum
        inner = IP(association(transform).decapsulate(bytes(outer)))
        assert inner.tos == expected
        check = inner.chksum
        del inner.chksum
        assert IP(bytes(inner)).chksum == check


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_any_packet_goes_through_unchanged(data: st.DataObject) -> None:
    transform = data.draw(st.sampled_from(list(TRANSFORMS)))
    layer = data.draw(st.sampled_from([UDP(), TCP(), ICMP()]))
    packet = bytes(
        IP(
            src=str(data.draw(st.ip_addresses(v=4))),
            dst=str(data.draw(st.ip_addresses(v=4))),
            tos=data.draw(st.integers(0, 255)),
            ttl=data.draw(st.integers(1, 255)),
            id=data.draw(st.integers(0, 65535)),
            flags=data.draw(st.sampled_from(["", "DF", "MF"])),
        )
        / layer
        / Raw(data.draw(st.binary(max_size=300)))
    )
    sender, receiver = association(transform), association(transform, seed=2)
    assert receiver.decapsulate(sender.encapsulate(packet)) == packet


@given(st.sampled_from(list(TRANSFORMS)), st.binary(max_size=200), st.integers(0, 400), st.integers(1, 255))
@settings(max_examples=300, deadline=None)
def test_hostile_octets_raise_nothing_but_drop(transform: TransformSet, noise: bytes, place: int, change: int) -> None:
    receiver = association(transform)
    sealed = bytearray(association(transform).encapsulate(bytes(ping())))
    start = 20 + place % (len(sealed) - 20)
    sealed[start] ^= change
    for packet in (bytes(sealed), bytes(sealed[:20]) + noise):
        with pytest.raises(DropPacket):
            receiver.decapsulate(packet)


@given(st.lists(st.integers(0, (1 << 24) - 1), min_size=2, max_size=6, unique=True))
@settings(max_examples=30, deadline=None)
def test_no_nonce_is_used_twice_under_one_key(sender_ids: list[int]) -> None:
    transform = TransformSet(Cipher.AES_GCM, 128)
    packet = bytes(ping())
    nonces = [
        sa.encapsulate(packet)[28:36] for sa in (association(transform, number) for number in sender_ids) for _ in "123"
    ]
    assert len(set(nonces)) == len(nonces)
    assert {int.from_bytes(nonce, "big") >> 40 for nonce in nonces} == set(sender_ids)


def test_without_a_sender_id_a_counter_mode_does_not_send() -> None:
    with pytest.raises(DropPacket) as caught:
        association(TransformSet(Cipher.AES_GCM, 128), None).encapsulate(bytes(ping()))
    assert caught.value.reason is DropReason.NO_SENDER_ID


def test_the_nonces_of_a_sender_end_before_they_run_into_the_next_senders() -> None:
    transform = TransformSet(Cipher.AES_GCM, 128)
    sa = SecurityAssociation(SPI, transform, KEY[:20], b"", random=Random(1).randbytes, sender_id=1, sender_id_bits=61)
    packet = bytes(ping())
    nonces = [int.from_bytes(sa.encapsulate(packet)[28:36], "big") for _ in range(7)]
    assert nonces == list(range(9, 16))
    with pytest.raises(DropPacket) as caught:
        sa.encapsulate(packet)
    assert caught.value.reason is DropReason.SEQUENCE_EXHAUSTED


LAN = IPv4Network("10.1.0.0/16")
ANY = IPv4Network("0.0.0.0/0")
GCM = TransformSet(Cipher.AES_GCM, 128)


def policy(*entries: PolicyEntry, mtu: int = 1500, keys: bool = True) -> CryptoPolicy:
    return CryptoPolicy(entries, {SPI: association(GCM)} if keys else {}, own=[OWN.packed], mtu=mtu)


def permit(entry: AccessListEntry | None = None) -> PolicyEntry:
    return PolicyEntry(entry or AccessListEntry(Action.PERMIT, 0, LAN, LAN), SPI, frozenset({SPI}))


def deny(protocol: int, port: int) -> PolicyEntry:
    return PolicyEntry(AccessListEntry(Action.DENY, protocol, ANY, ANY, 0, port))


def test_the_first_entry_that_matches_counts() -> None:
    group = policy(deny(6, 22), permit())
    to_port_22 = bytes(IP(src="10.1.1.1", dst="10.1.2.2") / TCP(dport=22))
    to_port_23 = bytes(IP(src="10.1.1.1", dst="10.1.2.2") / TCP(dport=23))
    elsewhere = bytes(IP(src="10.1.1.1", dst="10.9.2.2") / TCP(dport=23))
    for _ in "twice, so that the second time comes from the cache":
        assert group.outbound(to_port_22).action is VerdictAction.CLEAR
        assert group.outbound(to_port_23).action is VerdictAction.ESP
        assert group.outbound(elsewhere).action is VerdictAction.CLEAR


def test_a_protected_packet_without_a_key_is_dropped_not_sent_in_clear() -> None:
    verdict = policy(permit(), keys=False).outbound(bytes(ping()))
    assert (verdict.action, verdict.reason) == (VerdictAction.DROP, DropReason.NO_SA)


def test_a_clear_packet_that_should_have_been_encrypted_is_dropped() -> None:
    verdict = policy(permit()).inbound(bytes(ping()))
    assert (verdict.action, verdict.reason) == (VerdictAction.DROP, DropReason.NOT_IPSEC)


def test_what_one_member_sends_another_takes() -> None:
    sealed = policy(permit()).outbound(bytes(ping())).packets[0]
    verdict = policy(permit()).inbound(sealed)
    assert (verdict.action, list(verdict.packets)) == (VerdictAction.CLEAR, [bytes(ping())])


def test_an_unknown_spi_is_counted_as_such() -> None:
    stranger = bytes(IP(src="10.1.1.1", dst="10.1.2.2", proto=50) / Raw(bytes(64)))
    assert policy(permit()).inbound(stranger).reason is DropReason.INVALID_SPI


def test_esp_of_the_hosts_passes_where_the_policy_says_so() -> None:
    stranger = bytes(IP(src="10.1.1.1", dst="10.1.2.2", proto=50) / Raw(bytes(64)))
    assert policy(deny(50, 0), permit()).inbound(stranger).action is VerdictAction.CLEAR


def test_a_packet_whose_inner_addresses_the_policy_does_not_name_is_dropped() -> None:
    sealed = association(GCM).encapsulate(bytes(IP(src="192.0.2.1", dst="192.0.2.2") / ICMP()))
    assert policy(permit()).inbound(sealed).reason is DropReason.SELECTOR_MISMATCH


def test_a_packet_too_big_with_df_is_answered_with_the_size_that_fits() -> None:
    group = policy(permit())
    verdict = group.outbound(bytes(ping(1472, flags="DF")))
    assert (verdict.action, verdict.reason) == (VerdictAction.DROP, DropReason.TOO_BIG)
    assert verdict.back is not None
    answer = IP(verdict.back)
    assert (answer.src, answer.dst, answer[ICMP].type, answer[ICMP].code) == (str(OWN), "10.1.1.10", 3, 4)
    fits = ping(answer[ICMP].nexthopmtu - 28, flags="DF")
    assert len(fits) == answer[ICMP].nexthopmtu
    assert group.outbound(bytes(fits)).action is VerdictAction.ESP
    assert len(group.outbound(bytes(fits)).packets[0]) <= 1500


def test_a_packet_too_big_without_df_is_fragmented_before_encryption() -> None:
    packet = ping(2000)
    verdict = policy(permit()).outbound(bytes(packet))
    assert verdict.action is VerdictAction.ESP and len(verdict.packets) == 2
    assert all(len(part) <= 1500 for part in verdict.packets)
    parts = [IP(policy(permit()).inbound(part).packets[0]) for part in verdict.packets]
    data = b"".join(bytes(part.payload) for part in sorted(parts, key=lambda part: part.frag))
    assert data == bytes(packet.payload)
    assert [(part.frag, bool(part.flags & 1)) for part in parts] == [(0, True), (len(parts[0].payload) // 8, False)]


@given(st.binary(max_size=120))
@settings(max_examples=300, deadline=None)
def test_noise_never_stops_the_policy(noise: bytes) -> None:
    group = policy(deny(6, 22), permit())
    assert group.inbound(noise).action in VerdictAction
    assert group.outbound(noise).action in VerdictAction
