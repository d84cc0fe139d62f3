"""Members register with key servers in memory, and every way in which they may not."""

from __future__ import annotations

import itertools
from ipaddress import IPv4Network

import pytest
from gdoi_parties import (
    DENY,
    GCM,
    KS1,
    KS2,
    PERMIT,
    World,
    group,
    group_member,
    key_server,
    member_address,
)

from labctl.configuration import AccessListEntry, Action, Cipher, DhGroup, Integrity, IsakmpPolicy, TransformSet
from labctl.gdoi.member_registration import State

TRANSFORMS = [
    TransformSet(Cipher.AES_GCM, 128),
    TransformSet(Cipher.AES_GCM, 192),
    TransformSet(Cipher.AES_GCM, 256),
    TransformSet(Cipher.AES_GMAC, 128),
    TransformSet(Cipher.AES_CBC, 128, Integrity.SHA1),
    TransformSet(Cipher.AES_CBC, 192, Integrity.SHA384),
    TransformSet(Cipher.AES_CBC, 256, Integrity.SHA256),
    TransformSet(Cipher.TRIPLE_DES, 192, Integrity.SHA512),
    TransformSet(Cipher.NULL, 0, Integrity.SHA1),
]


@pytest.mark.parametrize("transform", TRANSFORMS, ids=str)
def test_members_get_the_same_keys_with_every_transform(transform: TransformSet) -> None:
    members = [group_member(number) for number in range(3)]
    world = World({KS1: key_server(group(transform=transform))}, members)
    for member in members:
        member.start(0)
    world.settle()
    keys = [member.keys for member in members]
    assert all(member.state is State.REGISTERED for member in members)
    assert keys[0] is not None and all(item is not None and item.teks == keys[0].teks for item in keys)
    assert [rule.entry for rule in keys[0].rules] == [PERMIT]
    assert next(iter(keys[0].teks.values())).transform == transform
    sender_ids = [item.sender_ids for item in keys if item is not None]
    if transform.uses_counter_mode:
        assert len(set(sender_ids)) == 3
    else:
        assert set(sender_ids) == {()}


def test_the_logs_tell_the_story_in_the_words_of_a_router() -> None:
    member = group_member()
    world = World({KS1: key_server(group())}, [member])
    member.start(0)
    world.settle()
    assert world.logs(member_address(0)) == [
        "GM_REGSTER",
        "SA_KEK_UPDATED",
        "SA_TEK_UPDATED",
        "GM_INSTALL_POLICIES_SUCCESS",
        "GM_REGS_COMPL",
    ]
    assert world.logs(KS1) == ["KS_FIRST_GM"]


def test_a_deny_entry_reaches_the_member_in_its_place() -> None:
    other = AccessListEntry(Action.PERMIT, 17, IPv4Network("10.2.0.0/16"), IPv4Network("10.3.0.0/16"), 53, 0)
    member = group_member()
    world = World({KS1: key_server(group(policy=[DENY, PERMIT, other]))}, [member])
    member.start(0)
    world.settle()
    assert member.keys is not None
    assert [rule.entry for rule in member.keys.rules] == [DENY, PERMIT, other]
    assert len(member.keys.teks) == 2, "counter modes have a key for each permit entry"


def test_entries_share_one_key_without_counter_mode() -> None:
    transform = TransformSet(Cipher.AES_CBC, 128, Integrity.SHA1)
    member = group_member()
    world = World({KS1: key_server(group(policy=[PERMIT, PERMIT.mirrored(), DENY], transform=transform))}, [member])
    member.start(0)
    world.settle()
    assert member.keys is not None and len(member.keys.teks) == 1


@pytest.mark.parametrize("lost", range(10))
def test_the_loss_of_any_one_message_is_survived(lost: int) -> None:
    count = itertools.count()
    member = group_member()
    world = World({KS1: key_server(group())}, [member], lambda datagram: [] if next(count) == lost else [datagram])
    member.start(0)
    world.run(29)
    assert member.registered


def test_every_message_may_come_three_times() -> None:
    member = group_member()
    server = key_server(group())
    world = World({KS1: server}, [member], lambda datagram: [datagram] * 3)
    member.start(0)
    world.run(29)
    assert member.registered
    assert server.group("GETVPN_LAB").sender_ids_given == 1


def test_a_wrong_pre_shared_key_is_named_on_both_sides() -> None:
    member = group_member(secret=b"other")
    world = World({KS1: key_server(group())}, [member])
    member.start(0)
    world.settle()
    assert "pre-shared keys differ" in member.reason and str(KS1) in member.reason
    world.run(31)
    assert "IKMP_BAD_MESSAGE" in world.logs(KS1)
    assert "IKMP_BAD_MESSAGE" in world.logs(member_address(0))
    assert not member.registered


def test_an_unknown_group_is_named_on_both_sides() -> None:
    member = group_member(identity=99)
    world = World({KS1: key_server(group())}, [member])
    member.start(0)
    world.settle()
    assert member.reason == "10.255.0.11: it does not know group 99"
    assert world.logs(KS1) == ["KS_BAD_ID"]
    assert not key_server(group()).group("GETVPN_LAB").members


def test_no_common_proposal_is_named_on_both_sides() -> None:
    member = group_member()
    server = key_server(group(), policies=[IsakmpPolicy(group=DhGroup.ECP384)])
    world = World({KS1: server}, [member])
    member.start(0)
    world.settle()
    assert "accepts none of our ISAKMP policies" in member.reason
    world.run(31)
    assert "IKMP_MODE_FAILURE" in world.logs(KS1)
    assert "IKMP_MODE_FAILURE" in world.logs(member_address(0))


def test_a_silent_key_server_is_named_and_the_next_one_is_asked() -> None:
    member = group_member(servers=[KS2, KS1])
    world = World({KS1: key_server(group())}, [member])
    member.start(0)
    world.run(29)
    assert str(KS2) in member.reason
    world.run(40)
    assert member.registered and member.registered_with == KS1
    assert "GM_CONN_NEXT_SER" in world.logs(member_address(0))


def test_after_the_whole_list_failed_it_is_tried_again_with_growing_pauses() -> None:
    member = group_member(servers=[KS1, KS2])
    world = World({}, [member])
    member.start(0)
    world.run(61)
    assert member.state is State.PAUSED
    assert member.reason == "10.255.0.12: it does not answer"
    world.run(600)
    assert 6 <= member.attempts <= 16


def test_a_key_server_that_comes_back_is_found() -> None:
    alive = False
    member = group_member()
    world = World({KS1: key_server(group())}, [member], lambda datagram: [datagram] if alive else [])
    member.start(0)
    world.run(100)
    assert not member.registered
    alive = True
    world.run(300)
    assert member.registered


def test_registration_again_brings_a_new_sender_id_and_the_same_key() -> None:
    server = key_server(group())
    first, second = group_member(seed=1), group_member(seed=2)
    first.start(0)
    world = World({KS1: server}, [first])
    world.settle()
    world = World({KS1: server}, [second])
    world.now = 100
    second.start(100)
    world.settle()
    assert first.keys is not None and second.keys is not None
    assert set(first.keys.teks) == set(second.keys.teks)
    assert first.keys.sender_ids != second.keys.sender_ids
    spi = next(iter(first.keys.teks))
    assert abs(first.keys.teks[spi].expires - second.keys.teks[spi].expires) <= 1, "the remaining life is handed out"


def test_key_servers_give_disjoint_sender_ids() -> None:
    members = [group_member(0, [KS1]), group_member(1, [KS2])]
    world = World({KS1: key_server(group(key_server_id=1)), KS2: key_server(group(KS2, key_server_id=2))}, members)
    for member in members:
        member.start(0)
    world.settle()
    assert [member.keys.sender_ids for member in members if member.keys] == [(1 << 16,), (2 << 16,)]


def test_when_sender_ids_run_out_the_group_starts_over_under_new_keys() -> None:
    server = key_server(group(sender_id_bits=9), members=4)
    members = [group_member(number) for number in range(3)]
    world = World({KS1: server}, members)
    for member in members[:2]:
        member.start(0)
    world.settle()
    old = set(members[0].keys.teks) if members[0].keys else set()
    members[2].start(0)
    world.run(60)
    assert members[2].registered and members[2].keys is not None
    assert not set(members[2].keys.teks) & old
    assert members[2].keys.sender_ids == (0,)


@pytest.mark.parametrize("lifetime", [120, 600, 3600])
def test_a_group_lives_on_and_members_always_share_a_key_to_send_under(lifetime: int) -> None:
    members = [group_member(number) for number in range(3)]
    world = World({KS1: key_server(group(tek_lifetime=lifetime))}, members)
    for member in members:
        member.start(0)
    world.settle()
    for step in range(1, 200):
        world.run(step * lifetime / 20)
        for sender, receiver in itertools.permutations(members, 2):
            assert sender.keys is not None and receiver.keys is not None
            sending = world.installs(sender.membership.local_address)[-1].sending
            assert all(spi in receiver.keys.teks for spi in sending), f"at {world.now}"
            assert None not in sending
    assert all(member.successes > 5 for member in members)


def test_fifty_members_register() -> None:
    members = [group_member(number) for number in range(50)]
    server = key_server(group(), members=50)
    world = World({KS1: server}, members)
    for member in members:
        member.start(0)
    world.settle()
    assert all(member.registered for member in members)
    (status,) = server.status(0)
    assert len(status.members) == 50 and status.identity == "1234"
    assert len({member.keys.sender_ids for member in members if member.keys}) == 50


def test_leaving_ends_phase_1_on_the_key_server_too() -> None:
    member = group_member()
    server = key_server(group())
    world = World({KS1: server}, [member])
    member.start(0)
    world.settle()
    member.stop(5)
    world.settle()
    assert member.state is State.IDLE and server.isakmp.associations == []
    assert "GM_UNREGISTER" in world.logs(member_address(0))


def test_without_keys_in_time_the_member_says_that_it_has_none() -> None:
    cut = False
    member = group_member()
    world = World({KS1: key_server(group(transform=GCM))}, [member], lambda item: [] if cut else [item])
    member.start(0)
    world.settle()
    cut = True
    world.run(3700)
    assert not member.registered
    assert world.installs(member_address(0))[-1].sending == (None,)
    assert str(KS1) in member.reason
