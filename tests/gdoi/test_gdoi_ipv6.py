"""IPv6 groups: selectors on the wire (RFC 6407 5.5.1.1, RFC 2407 4.6.2), and no group of two families."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv6Network

import pytest
from gdoi_parties import KS1, PERMIT, World, group, group_member, key_server

from labctl.configuration import AccessListEntry, Action, RekeyPolicy, RekeyTransport
from labctl.gdoi.payloads import SaTek, Selector
from labctl.isakmp.errors import LocalError, PeerError
from labctl.isakmp.reader import Reader

SITES = IPv6Network("2001:db8:1::/48")
SERVER = IPv6Network("2001:db8:1:2::443/128")
PERMIT_IPV6 = AccessListEntry(Action.PERMIT, 0, SITES, SITES)
POLICY = (AccessListEntry(Action.DENY, 6, SITES, SERVER, 0, 443), PERMIT_IPV6)

# ESP, inner protocol TCP; source: type 6, port 0, 32 octets of address and mask; destination the same with port 443;
# transform AES-CBC, SPI; life type 1, seconds.
SAT = bytes.fromhex(
    "01 06"
    "06 0000 20 20010db8000100000000000000000000 ffffffffffff00000000000000000000"
    "06 01bb 20 20010db8000100020000000000000443 ffffffffffffffffffffffffffffffff"
    "0c 00001001 80010001"
)


def test_a_sat_of_ipv6_is_what_the_standard_says() -> None:
    sat = SaTek.parse(Reader(SAT))
    assert sat.entry() == AccessListEntry(Action.PERMIT, 6, SITES, SERVER, 0, 443)
    assert sat.source == Selector.of(SITES, 0) and sat.destination == Selector.of(SERVER, 443)
    assert sat.pack() == SAT


def test_an_address_alone_is_a_prefix_of_128_bits() -> None:
    data = SERVER.network_address.packed
    assert Selector(5, data, 443).network == SERVER
    for bad in (data[:15], data + b"\0", b""):
        with pytest.raises(PeerError, match="selector of type 5"):
            Selector(5, bad).network  # noqa: B018


@pytest.mark.parametrize("mask", ["ffff00ff" + "00" * 12, "00" * 8 + "ff" * 8])
def test_a_mask_with_holes_is_refused(mask: str) -> None:
    with pytest.raises(PeerError, match="holes"):
        Selector(6, SITES.network_address.packed + bytes.fromhex(mask)).network  # noqa: B018


def test_a_sat_of_two_families_is_refused() -> None:
    mixed = replace(SaTek.parse(Reader(SAT)), source=Selector.of(PERMIT.source, 0))
    with pytest.raises(PeerError, match="two address families"):
        mixed.entry()


def test_a_member_of_an_ipv6_group_has_its_policy_from_registration_and_rekeys() -> None:
    rekey = RekeyPolicy(transport=RekeyTransport.UNICAST)
    server = key_server(replace(group(policy=POLICY, ipv6=True), rekey=rekey))
    member = group_member(ipv6=True)
    world = World({KS1: server}, [member])
    member.start(0)
    world.run(10)
    assert member.keys is not None and tuple(rule.entry for rule in member.keys.rules) == POLICY
    (first,) = member.keys.teks
    world.run(3500)
    assert member.rekeys.received >= 1 and member.rekeys.rejected == 0 and member.successes == 1
    assert tuple(rule.entry for rule in member.keys.rules) == POLICY and set(member.keys.teks) - {first}


@pytest.mark.parametrize("ipv6", [True, False])
def test_a_member_takes_no_policy_of_the_other_family(ipv6: bool) -> None:
    policy = (PERMIT,) if ipv6 else POLICY
    member = group_member(ipv6=ipv6)
    world = World({KS1: key_server(group(policy=policy, ipv6=not ipv6))}, [member])
    member.start(0)
    world.run(30)
    assert not member.registered and member.keys is None
    wanted, other = ("6", "4") if ipv6 else ("4", "6")
    assert f"a policy of IPv{other} for a group that is IPv{wanted} here" in member.reason


def test_a_rekey_of_the_other_family_is_rejected_and_changes_nothing() -> None:
    rekey = RekeyPolicy(transport=RekeyTransport.UNICAST)
    member = group_member(ipv6=True)
    world = World({KS1: key_server(replace(group(policy=POLICY, ipv6=True), rekey=rekey))}, [member])
    member.start(0)
    world.run(10)
    before = member.keys
    member.reconfigure(replace(member.membership, ipv6=False), world.now)
    world.run(3300)
    assert member.rekeys.received == 0 and member.rekeys.rejected >= 1
    assert member.keys == before


@pytest.mark.parametrize(
    ("ipv6", "policy"),
    [(True, (PERMIT,)), (False, POLICY), (True, (PERMIT_IPV6, PERMIT)), (False, (PERMIT, PERMIT_IPV6))],
)
def test_a_key_server_keeps_no_group_of_two_families(ipv6: bool, policy: tuple[AccessListEntry, ...]) -> None:
    with pytest.raises(LocalError, match="a group is of one family"):
        key_server(group(policy=policy, ipv6=ipv6))
