"""Fail-close, receive-only, passive, and what is exempt from a policy (reference/cisco-getvpn.md 2.6, 2.7, 2.10)."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from random import Random
from typing import Any

import pytest
from scapy.contrib.igmpv3 import IGMPv3, IGMPv3mr
from scapy.layers.inet import ICMP, IP, TCP, UDP, fragment
from scapy.packet import Raw

from labctl.configuration import AccessListEntry, Action, Cipher, TransformSet
from labctl.esp import (
    CryptoPolicy,
    DropReason,
    Exemptions,
    PolicyEntry,
    RegistrationPath,
    RekeyFlow,
    SecurityAssociation,
)
from labctl.esp.policy import VerdictAction

SPI = 0x1A2B3C4D
OWN, SERVER, STRANGER = (IPv4Address(text) for text in ("172.16.1.2", "10.255.0.11", "10.255.0.99"))
REKEY_GROUP = IPv4Address("239.192.1.1")
ANY = IPv4Network("0.0.0.0/0")
LAN = IPv4Network("10.1.0.0/16")
CLEAR, PROTECTED, DROPPED = VerdictAction.CLEAR, VerdictAction.ESP, VerdictAction.DROP

EXEMPT = Exemptions([RegistrationPath(OWN, SERVER)], [RekeyFlow(REKEY_GROUP, SERVER)], own=[OWN], membership=True)


def association() -> SecurityAssociation:
    key = bytes(range(20))
    random = Random(1).randbytes
    return SecurityAssociation(
        SPI, TransformSet(Cipher.AES_GCM, 128), key, b"", random=random, sender_id=1, sender_id_bits=24
    )


def policy(*entries: PolicyEntry, closed: bool = False, exemptions: Exemptions = EXEMPT) -> CryptoPolicy:
    return CryptoPolicy(
        entries, {SPI: association()}, own=[OWN.packed], exemptions=exemptions, closed=(4,) if closed else ()
    )


def permit(network: IPv4Network = ANY, *, keyed: bool = True) -> PolicyEntry:
    entry = AccessListEntry(Action.PERMIT, 0, network, network)
    return PolicyEntry(entry, SPI, frozenset({SPI})) if keyed else PolicyEntry(entry)


def deny(protocol: int, port: int = 0) -> PolicyEntry:
    return PolicyEntry(AccessListEntry(Action.DENY, protocol, ANY, ANY, 0, port))


def gdoi(source: object, destination: object, sport: int = 848, dport: int = 848) -> bytes:
    return bytes(IP(src=str(source), dst=str(destination)) / UDP(sport=sport, dport=dport) / Raw(b"x" * 40))


def between_sites(layer: Any = None) -> bytes:
    return bytes(IP(src="10.1.1.10", dst="10.1.2.10") / (layer or ICMP()))


def test_registration_passes_between_the_node_and_its_key_server() -> None:
    everything = policy(permit())
    assert everything.outbound(gdoi(OWN, SERVER)).action is CLEAR
    assert everything.inbound(gdoi(SERVER, OWN)).action is CLEAR


@pytest.mark.parametrize(
    "packet",
    [
        gdoi(OWN, STRANGER),
        gdoi(OWN, SERVER, dport=53),
        gdoi(OWN, SERVER, sport=5000),
        gdoi("10.1.1.1", SERVER),
        gdoi("10.1.1.1", "10.1.2.2"),
        gdoi(STRANGER, REKEY_GROUP),
        gdoi(SERVER, "239.192.1.2"),
        gdoi(SERVER, REKEY_GROUP, dport=5000),
    ],
    ids=[
        "own-to-stranger",
        "own-to-53",
        "from-5000",
        "host-to-server",
        "host-to-host",
        "stranger-rekeys",
        "other-group",
        "other-port",
    ],
)
def test_udp_848_of_anybody_else_does_not_get_past_the_policy(packet: bytes) -> None:
    assert policy(permit()).outbound(packet).action is PROTECTED
    backwards = IP(packet)
    if backwards.dst != str(REKEY_GROUP) and not backwards.dst.startswith("239."):
        backwards.src, backwards.dst = backwards.dst, backwards.src
        backwards[UDP].sport, backwards[UDP].dport = backwards[UDP].dport, backwards[UDP].sport
    assert policy(permit()).inbound(bytes(backwards)).reason is DropReason.NOT_IPSEC


def test_a_registration_message_that_comes_in_fragments_passes_whole() -> None:
    large = IP(src=str(SERVER), dst=str(OWN)) / UDP(sport=848, dport=848) / Raw(bytes(3000))
    parts = [bytes(part) for part in fragment(large, 1400)]
    assert len(parts) == 3
    for everything in (policy(permit()), policy(closed=True)):
        assert {everything.inbound(part).action for part in parts} == {CLEAR}


def test_rekeys_to_the_joined_group_pass_from_the_key_server_both_ways() -> None:
    everything = policy(permit())
    assert everything.inbound(gdoi(SERVER, REKEY_GROUP)).action is CLEAR
    # The key server may be behind this very router.
    assert everything.outbound(gdoi(SERVER, REKEY_GROUP)).action is CLEAR


def test_a_key_server_behind_the_crypto_map_of_its_own_node_is_reached_by_everybody() -> None:
    everything = policy(permit(), exemptions=Exemptions([RegistrationPath(OWN, None)]))
    assert everything.inbound(gdoi(STRANGER, OWN)).action is CLEAR
    assert everything.outbound(gdoi(OWN, STRANGER)).action is CLEAR
    assert everything.outbound(gdoi(STRANGER, SERVER)).action is PROTECTED


def test_membership_reports_of_the_link_pass_and_nothing_that_only_looks_like_one() -> None:
    report = IP(src=str(OWN), dst="224.0.0.22", ttl=1) / IGMPv3() / IGMPv3mr()
    query = IP(src=str(STRANGER), dst="224.0.0.1", ttl=1) / IGMPv3(type=0x11)
    everything = policy(permit())
    assert everything.outbound(bytes(report)).action is CLEAR
    assert everything.inbound(bytes(query)).action is CLEAR
    hello = IP(src=str(STRANGER), dst="224.0.0.13", ttl=1, proto=103) / Raw(bytes.fromhex("20000000"))
    assert everything.inbound(bytes(hello)).action is CLEAR
    assert everything.outbound(bytes(hello)).action is PROTECTED
    for changed in ({"ttl": 2}, {"src": "10.1.1.1"}, {"dst": "10.1.2.2"}):
        other = IP(bytes(report))
        for name, value in changed.items():
            setattr(other, name, value)
        assert everything.outbound(bytes(other)).action is PROTECTED
    silent = Exemptions([RegistrationPath(OWN, SERVER)], own=[OWN])
    assert policy(closed=True, exemptions=silent).outbound(bytes(report)).reason is DropReason.FAIL_CLOSE


def test_a_closed_policy_lets_denied_packets_and_the_nodes_registration_pass_and_nothing_else() -> None:
    closed = policy(deny(6, 22), closed=True)
    assert closed.outbound(gdoi(OWN, SERVER)).action is CLEAR
    assert closed.inbound(gdoi(SERVER, OWN)).action is CLEAR
    ssh = IP(src="10.1.1.10", dst="10.1.2.10") / TCP(dport=22)
    back = IP(src="10.1.2.10", dst="10.1.1.10") / TCP(sport=22)
    assert closed.outbound(bytes(ssh)).action is CLEAR
    assert closed.inbound(bytes(back)).action is CLEAR
    for _ in "twice, so that the second time comes from the cache":
        assert closed.outbound(between_sites()).reason is DropReason.FAIL_CLOSE
        assert closed.inbound(between_sites()).reason is DropReason.FAIL_CLOSE


def test_the_policy_of_another_group_still_protects_while_one_is_closed() -> None:
    shared = policy(permit(LAN), closed=True)
    sealed = shared.outbound(between_sites())
    assert sealed.action is PROTECTED
    assert shared.inbound(bytes(sealed.packets[0])).packets == (between_sites(),)
    assert shared.outbound(gdoi("192.0.2.1", "192.0.2.2")).reason is DropReason.FAIL_CLOSE


def test_a_receive_only_entry_sends_in_clear_and_takes_both() -> None:
    receiving = policy(replace(permit(LAN), send_clear=True, accept_clear=True))
    assert receiving.outbound(between_sites()).action is CLEAR
    assert receiving.hits[0] == 1
    assert receiving.inbound(between_sites()).action is CLEAR
    assert receiving.inbound(association().encapsulate(between_sites())).packets == (between_sites(),)


def test_a_passive_entry_sends_encrypted_and_takes_both() -> None:
    passive = policy(replace(permit(LAN), accept_clear=True))
    sealed = passive.outbound(between_sites())
    assert sealed.action is PROTECTED
    assert passive.inbound(between_sites()).action is CLEAR
    assert passive.inbound(bytes(sealed.packets[0])).packets == (between_sites(),)


def test_an_entry_counts_on_when_a_policy_with_the_same_entry_follows() -> None:
    first = policy(deny(6, 22), permit(LAN, keyed=False), permit(LAN))
    for _ in range(3):
        first.outbound(between_sites())
    second = policy(deny(17), permit(LAN), deny(6, 22), permit(LAN))
    second.succeed(first)
    second.outbound(between_sites())
    assert [second.hits[index] for index in range(4)] == [0, 4, 0, 0]
