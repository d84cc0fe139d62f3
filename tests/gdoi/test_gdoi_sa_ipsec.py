"""Several `sa ipsec` entries in a group, and several groups on a key server (reference/cisco-getvpn.md 1.3, 2.6)."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest
from gdoi_parties import DENY, GCM, KS1, PERMIT, World, group, group_member, key_server, member_address

from labctl.configuration import (
    MOST_PERMITS,
    AccessListEntry,
    Action,
    Cipher,
    Integrity,
    KeyServerGroup,
    RekeyPolicy,
    RekeyTransport,
    SaIpsec,
    TransformSet,
)
from labctl.gdoi import GroupMember, KeyServer, access_lists
from labctl.gdoi.policy import GroupKeys
from labctl.isakmp.errors import LocalError

LAB = "GETVPN_LAB"
GM1, GM2 = member_address(0), member_address(1)
CBC = TransformSet(Cipher.AES_CBC, 256, Integrity.SHA256)
UNICAST = RekeyPolicy(transport=RekeyTransport.UNICAST)


def permit(number: int) -> AccessListEntry:
    network = IPv4Network(f"10.{number // 250}.{number % 250}.0/24")
    return AccessListEntry(Action.PERMIT, 0, network, network)


VOICE, DATA, BULK = permit(1), permit(2), permit(3)
# Voice is renewed often, the rest seldom, and each with another cipher.
FAST, SLOW = SaIpsec((VOICE,), CBC, 600, number=1), SaIpsec((DATA, BULK), GCM, 7200, number=2)


def design(*sas: SaIpsec, **changes: object) -> KeyServerGroup:
    return replace(group(sas=sas or (FAST, SLOW)), rekey=UNICAST, **changes)  # type: ignore[arg-type]


def lab(configuration: KeyServerGroup | None = None, members: int = 2) -> tuple[World, list[GroupMember]]:
    parties = [group_member(number) for number in range(members)]
    world = World({KS1: key_server(configuration or design(), members)}, parties)
    for member in parties:
        member.start(0.0)
    world.settle()
    return world, parties


def held(member: GroupMember) -> GroupKeys:
    assert member.keys is not None
    return member.keys


def key_server_of(world: World) -> KeyServer:
    server = world.parties[KS1]
    assert isinstance(server, KeyServer)
    return server


def newest(member: GroupMember, entry: AccessListEntry) -> int:
    return next(rule.spis[-1] for rule in held(member).rules if rule.entry == entry)


def test_entries_are_one_policy_in_the_order_of_their_numbers_each_with_its_own_transform_and_keys() -> None:
    second = SaIpsec((DENY, DATA, BULK), GCM, 7200, number=20)
    first = SaIpsec((VOICE, PERMIT), CBC, 600, number=10)
    _, members = lab(design(second, first))
    for member in members:
        keys = held(member)
        assert [rule.entry for rule in keys.rules] == [VOICE, PERMIT, DENY, DATA, BULK]
        by_entry = {rule.entry: keys.teks[rule.spis[0]] for rule in keys.rules if rule.spis}
        assert {entry: str(tek.transform) for entry, tek in by_entry.items()} == {
            VOICE: str(CBC),
            PERMIT: str(CBC),
            DATA: str(GCM),
            BULK: str(GCM),
        }
        assert by_entry[VOICE].spi == by_entry[PERMIT].spi, "a CBC entry has one key for its list"
        assert by_entry[DATA].spi != by_entry[BULK].spi, "a counter mode has one for each permit"
        assert (by_entry[VOICE].lifetime, by_entry[DATA].lifetime) == (600, 7200)
    assert set(held(members[0]).sender_ids).isdisjoint(held(members[1]).sender_ids)


def test_an_entry_of_a_list_that_stands_before_it_under_another_number_has_no_keys_of_its_own() -> None:
    world, (member, _) = lab(design(FAST, replace(SLOW, policy=(VOICE, DATA))))
    assert [len(rule.spis) for rule in held(member).rules] == [1, 1]
    teks = key_server_of(world).status(0)[0].teks
    assert [tek.number for tek in teks] == [1, 2]


def test_each_entry_is_renewed_in_its_own_time_and_nobody_registers_again() -> None:
    world, members = lab()
    fast, slow = {newest(members[0], VOICE)}, {newest(members[0], DATA)}
    for moment in range(60, 86_400, 60):
        world.run(moment)
        fast.add(newest(members[0], VOICE))
        slow.add(newest(members[0], DATA))
        for sender, receiver in ((0, 1), (1, 0)):
            sending = world.installs(member_address(sender))[-1].sending
            assert None not in sending, "there is always a key to send under"
            assert set(sending) <= set(held(members[receiver]).teks), "which the other has"
    assert [member.successes for member in members] == [1, 1]
    # 600 - (90 + 25) and 7200 - (720 + 25) seconds apart (reference/cisco-getvpn.md 2.3).
    assert len(fast) == 1 + 86_400 // 485 and len(slow) == 1 + 86_400 // 6455


def test_a_rekey_of_one_entry_says_again_what_the_others_have() -> None:
    world, members = lab()
    slow = newest(members[0], DATA)
    world.run(500)
    keys = held(members[0])
    assert newest(members[0], DATA) == slow and keys.teks[slow].expires == 7200
    assert len(keys.rules[0].spis) == 2


def test_what_is_due_within_seconds_of_each_other_travels_in_one_rekey() -> None:
    world, members = lab(design(FAST, replace(SLOW, tek_lifetime=604)))
    world.run(500)
    assert members[0].rekeys.received == 1
    assert all(len(rule.spis) == 2 for rule in held(members[0]).rules)


def test_a_deactivation_delay_ends_the_replaced_keys_alone() -> None:
    world, members = lab(design(activation_delay=30, deactivation_delay=60))
    slow = newest(members[0], DATA)
    world.run(486)
    for member in members:
        expires = {spi: tek.expires for spi, tek in held(member).teks.items()}
        assert expires.pop(slow) == 7200
        old, new = (expires[spi] for spi in held(member).rules[0].spis)
        assert old == pytest.approx(545) and new == pytest.approx(1085)
    world.run(600)
    assert {tek.number: tek.left for tek in key_server_of(world).status(600)[0].teks}.keys() == {1, 2}
    assert len(held(members[0]).teks) == 3


def test_a_new_entry_comes_with_the_next_rekey_and_leaves_the_keys_of_the_others() -> None:
    world, members = lab()
    before = {entry: newest(members[0], entry) for entry in (VOICE, DATA, BULK)}
    third = SaIpsec((PERMIT,), CBC, 3600, number=3)
    server = key_server_of(world)
    server.reconfigure(design(FAST, SLOW, third))
    world.run(480)
    assert len(held(members[0]).rules) == 3, "it waits"
    world.run(490)
    keys = held(members[1])
    assert [rule.entry for rule in keys.rules] == [VOICE, DATA, BULK, PERMIT]
    assert newest(members[1], DATA) == before[DATA] and newest(members[1], VOICE) != before[VOICE]
    assert keys.teks[newest(members[1], PERMIT)].lifetime == pytest.approx(3600, abs=1)


def test_a_removed_entry_is_in_the_policy_no_more_and_what_is_on_its_way_is_still_read() -> None:
    world, members = lab()
    voice = newest(members[0], VOICE)
    key_server_of(world).reconfigure(design(SLOW))
    key_server_of(world).rekey(LAB, 100.0)
    world.now = 100.0
    world.settle()
    for member in members:
        assert [rule.entry for rule in held(member).rules] == [DATA, BULK]
        assert voice in held(member).teks
    world.run(700)
    assert all(voice not in held(member).teks for member in members)


def test_an_entry_that_changes_its_cipher_gets_new_keys_and_keeps_the_old_ones_until_their_end() -> None:
    world, members = lab()
    key_server_of(world).reconfigure(design(FAST, replace(SLOW, transform=CBC)))
    world.run(490)
    keys = held(members[0])
    data = next(rule for rule in keys.rules if rule.entry == DATA)
    assert [str(keys.teks[spi].transform) for spi in data.spis] == [str(GCM), str(CBC)]


def test_replace_now_deletes_the_keys_of_every_entry() -> None:
    world, members = lab()
    before = set(held(members[0]).teks)
    world.now = 50.0
    key_server_of(world).rekey(LAB, 50.0, replace_now=True)
    world.settle()
    assert before.isdisjoint(held(members[0]).teks) and [len(rule.spis) for rule in held(members[0]).rules] == [1, 1, 1]


@pytest.mark.parametrize(
    ("sas", "why"),
    [
        ((FAST, replace(SLOW, number=1)), "one number"),
        ((FAST, replace(SLOW, tek_lifetime=0)), "at least a second"),
        ((replace(FAST, policy=(DENY,)), replace(SLOW, policy=())), "permits nothing"),
        ((), "permits nothing"),
    ],
)
def test_entries_that_no_group_can_keep_are_refused(sas: tuple[SaIpsec, ...], why: str) -> None:
    server = key_server(design())
    with pytest.raises(LocalError, match=why):
        key_server(replace(design(), sas=sas))
    with pytest.raises(LocalError, match=why):
        server.reconfigure(replace(design(), sas=sas))


def test_an_entry_may_deny_alone() -> None:
    world, (member, _) = lab(design(SaIpsec((DENY,), GCM, 3600, 1), replace(FAST, number=2)))
    world.run(2000)
    assert [rule.entry for rule in held(member).rules] == [DENY, VOICE] and member.successes == 1


def test_a_member_says_that_its_own_list_and_the_key_servers_are_one() -> None:
    with_own, without = group_member(0), group_member(1)
    with_own.membership = replace(with_own.membership, local_policy=(DENY,))
    world = World({KS1: key_server(design(), 2)}, [with_own, without])
    for member in (with_own, without):
        member.start(0.0)
    world.settle()
    assert world.texts(GM1, "GM_ACL_MERGE") == ["ACL between KS and GM in group GETVPN_LAB merged."]
    assert world.logs(GM2).count("GM_ACL_MERGE") == 0


# Sizes.

LONG = design(
    SaIpsec(tuple(permit(number) for number in range(60)), CBC, 3600, 1),
    SaIpsec((*(permit(number) for number in range(60, 110)), DENY), CBC, 3600, 2),
)


def test_of_more_than_a_hundred_permits_the_key_server_honours_the_first_and_says_so() -> None:
    world, (member, _) = lab(LONG)
    assert [rule.entry for rule in held(member).rules] == [permit(number) for number in range(MOST_PERMITS)]
    assert world.texts(KS1, "GDOI_ACL_NUM") == [
        "The ACL of sa ipsec 2 in group GETVPN_LAB contains too many entries. "
        "GDOI will honor the first 100 ACL entries specified."
    ]
    assert "GDOI_ACL_NUM" not in world.logs(GM1)
    key_server_of(world).reconfigure(design())
    world.settle()
    assert len(world.texts(KS1, "GDOI_ACL_NUM")) == 1, "a list that fits is no reason"


def test_a_member_takes_a_hundred_permits_from_a_key_server_that_hands_out_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(access_lists, "MOST_PERMITS", 1000)
    world, members = lab(LONG)
    for number, member in enumerate(members):
        assert [rule.entry for rule in held(member).rules] == [permit(number) for number in range(MOST_PERMITS)]
        assert len(world.texts(member_address(number), "GDOI_ACL_NUM")) == 1
    # A rekey says the same again, with new keys beside the old: still a hundred entries, and nothing new to log.
    world.now = 10.0
    key_server_of(world).rekey(LAB, 10.0)
    world.settle()
    assert [len(rule.spis) for rule in held(members[0]).rules] == [2] * MOST_PERMITS
    assert len(world.texts(GM1, "GDOI_ACL_NUM")) == 1


def test_the_longest_policy_and_the_most_keys_fit_a_rekey() -> None:
    anywhere = IPv4Network("0.0.0.0/0")
    denies = [AccessListEntry(Action.DENY, 6, anywhere, permit(number).source, 0, 22) for number in range(100)]
    permits = [permit(number) for number in range(MOST_PERMITS)]
    # A counter mode has a key for each permit, and of lives so short four are there at a time.
    world, members = lab(design(SaIpsec((*denies, *permits), GCM, 120)))
    world.run(300)
    for member in members:
        assert member.successes == 1 and member.rekeys.rejected == 0 and len(held(member).teks) == 400


# Several groups.


def test_groups_of_one_key_server_have_nothing_in_common() -> None:
    other = replace(design(replace(SLOW, policy=(permit(9),))), name="OTHER", identity=group(identity=7).identity)
    # One router's two crypto interfaces, which register with two addresses, and a member of each group alone.
    red = [group_member(0), group_member(1)]
    blue = [group_member(2, identity=7), group_member(3, identity=7)]
    world = World({KS1: key_server(design(), 4, more=[other])}, [*red, *blue])
    for member in (*red, *blue):
        member.start(0.0)
    world.settle()
    assert set(held(red[0]).teks).isdisjoint(held(blue[0]).teks)
    before = set(held(blue[0]).teks)
    world.now = 5.0
    server = key_server_of(world)
    server.rekey(LAB, 5.0)
    server.evict(LAB, GM2, 5.0, immediate=True)
    world.settle()
    world.run(100)
    assert set(held(blue[0]).teks) == before and blue[0].rekeys.received == 0
    assert red[0].registered and not red[1].registered and all(member.registered for member in blue)
    groups = {status.name: status for status in server.status(100)}
    assert [item.address for item in groups[LAB].members] == [GM1]
    assert [item.address for item in groups["OTHER"].members] == [member_address(2), member_address(3)]


def test_two_memberships_at_one_address_are_one_member_of_each_group() -> None:
    other = replace(design(replace(SLOW, policy=(permit(9),))), name="OTHER", identity=group(identity=7).identity)
    server = key_server(design(), 1, more=[other])
    # What one of them says of old phase 1s would be said of the other's (labctl.node.roles.group_member).
    parties = [group_member(0, identity=identity, seed=identity, initial_contact=False) for identity in (1234, 7)]
    for member in parties:
        member.start(0.0)
    owners: dict[bytes, GroupMember] = {}
    while waiting := [(member, item) for member in parties for item in member.datagrams_to_send()]:
        for member, datagram in waiting:
            owners[datagram.data[:8]] = member
            server.receive_datagram(datagram, 0.0)
            for answer in server.datagrams_to_send():
                owners[answer.data[:8]].receive_datagram(answer, 0.0)
    assert all(member.registered for member in parties)
    assert {status.name: [item.address for item in status.members] for status in server.status(0.0)} == {
        LAB: [IPv4Address(GM1)],
        "OTHER": [IPv4Address(GM1)],
    }
    # Both get a rekey of either group; each takes its own.
    server.rekey(LAB, 1.0)
    for datagram in server.datagrams_to_send():
        for member in parties:
            member.receive_datagram(datagram, 1.0)
    assert [member.rekeys.received for member in parties] == [1, 0]
    assert [member.rekeys.rejected for member in parties] == [0, 0]
