"""What a key server keeps of its groups and members, for whom, and how long."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Network

import pytest
from gdoi_parties import DENY, GCM, KS1, PERMIT, World, group, group_member, key_server, member_address, signing_key

from labctl.configuration import Cipher, Integrity, KeyServerGroup, TransformSet
from labctl.gdoi import Timing
from labctl.gdoi.group import Group
from labctl.gdoi.numbers import SaProtocol
from labctl.gdoi.pull_server import MAX_PULLS_PER_PEER
from labctl.isakmp import vendor
from labctl.isakmp.datagram import Datagram
from labctl.isakmp.errors import LocalError
from labctl.isakmp.header import ExchangeType
from labctl.isakmp.payloads import Identification, IdType, Nonce

CBC = TransformSet(Cipher.AES_CBC, 128, Integrity.SHA1)
LAB = "GETVPN_LAB"
CLUSTER = IPv4Address("239.1.1.1")


def is_pull(datagram: Datagram) -> bool:
    return datagram.data[18] == ExchangeType.GROUPKEY_PULL


def losing(wanted: Callable[[Datagram, int], bool]) -> Callable[[Datagram], list[Datagram]]:
    """A network that loses the GROUPKEY-PULL datagrams that `wanted` names, by their number."""
    count = itertools.count(1)
    return lambda datagram: [] if is_pull(datagram) and wanted(datagram, next(count)) else [datagram]


def test_nothing_changes_before_message_3_proves_that_the_member_is_alive() -> None:
    server, member = key_server(group()), group_member()
    world = World({KS1: server}, [member], losing(lambda _, number: number > 2))
    member.start(0)
    world.run(20)
    assert server.open_pulls == 1
    assert server.group(LAB).members == {} and server.group(LAB).sender_ids_given == 0
    assert world.logs(KS1) == []


@pytest.mark.parametrize("lifetime", [100, 3600, 86400])
def test_keys_that_no_member_took_end_and_are_not_replaced(lifetime: int) -> None:
    server, member = key_server(group(tek_lifetime=lifetime)), group_member()
    world = World({KS1: server}, [member], losing(lambda _, number: number > 2))
    member.start(0)
    world.run(5)
    member.stop(5)
    world.run(3 * 86400)
    assert server.group(LAB).generations == [] and server.group(LAB).kek is None
    assert server.next_deadline() is None


def test_a_member_whose_keys_have_ended_is_a_member_no_more() -> None:
    server, member, other = key_server(group()), group_member(0), group_member(1)
    world = World({KS1: server}, [member, other])
    member.start(0)
    world.settle()
    world.run(1000)
    other.start(1000)
    world.run(1001)
    member.stop(1001)
    world.run(7000)
    assert [item.address for item in server.status(7000)[0].members] == [member_address(1)]
    assert world.texts(KS1, "GM_DELETE") == [f"GM {member_address(0)} deleted from group {LAB}."]
    other.stop(7000)
    world.run(20_000)
    assert server.status(20_000)[0].members == ()
    assert "KS_LAST_GM" in world.logs(KS1)
    assert server.group(LAB).generations == [], "a group without members makes no keys"
    member.start(20_000)
    world.settle()
    assert member.registered and world.logs(KS1).count("KS_FIRST_GM") == 2


@pytest.mark.parametrize("offset", [0.1, 0.3, 1.7, 123.456789, 86400.1])
@pytest.mark.parametrize("lifetime", [120, 601, 3600, 7777])
def test_the_timer_for_new_keys_finds_them_due(offset: float, lifetime: int) -> None:
    """Whatever rounding does to the moment."""
    serial = itertools.count(1 << 24)
    kept = Group(
        group(tek_lifetime=lifetime),
        lambda count: next(serial).to_bytes(4, "big").rjust(count, bytes(1)),
        signing_key(),
        Timing(),
    )
    kept.renew(offset)
    kept.register(member_address(0), (), offset)
    moment = offset
    for _ in range(50):
        deadline = kept.next_deadline()
        assert deadline is not None and deadline > moment
        moment = deadline
        kept.advance(moment)
        kept.register(member_address(0), (), moment)


def test_who_comes_later_gets_the_same_key_with_the_life_that_is_left() -> None:
    server, early, late = key_server(group()), group_member(0), group_member(1)
    world = World({KS1: server}, [early, late])
    early.start(0)
    world.run(1000)
    late.start(1000)
    world.settle()
    assert early.keys is not None and late.keys is not None
    (spi,) = early.keys.teks
    assert late.keys.teks[spi].lifetime == 2600
    assert late.keys.teks[spi].encryption_key == early.keys.teks[spi].encryption_key


def test_a_member_gets_the_keys_that_it_was_offered_whatever_happens_before_message_4() -> None:
    """The first TEK ends, and the next one is made, while message 3 is on its way."""
    lost = [False]
    server, early, late = key_server(group(tek_lifetime=120)), group_member(0), group_member(1)

    def network(datagram: Datagram) -> list[Datagram]:
        if is_pull(datagram) and datagram.source.address == member_address(1) and server.open_pulls and not lost[0]:
            lost[0] = True
            return []
        return [datagram]

    world = World({KS1: server}, [early, late], network)
    early.start(0)
    world.run(119)
    first = server.group(LAB).generations[0]
    assert first.expires - 119 < 2
    late.start(119)
    world.run(123)
    assert lost == [True] and first not in server.group(LAB).generations
    assert late.registered and late.successes == 1


def test_an_unauthorized_member_is_refused_and_both_sides_say_so() -> None:
    server = key_server(group(authorized=[IPv4Network("192.0.2.0/24"), IPv4Network(f"{member_address(1)}/32")]))
    refused, welcome = group_member(0), group_member(1)
    world = World({KS1: server}, [refused, welcome])
    refused.start(0)
    welcome.start(0)
    world.settle()
    assert refused.reason == f"{KS1}: it does not authorize this member for group 1234: its address is not authorized"
    assert "UNAUTHORIZED_IPADDR" in world.logs(KS1)
    assert welcome.registered and list(server.group(LAB).members) == [member_address(1)]


def test_one_key_server_serves_groups_by_number_and_by_address() -> None:
    other = group(identity=CLUSTER, name="CLUSTER", transform=CBC)
    server = key_server(group(identity=1), more=[other, group(identity=2, name="SECOND")])
    members = [group_member(0, identity=1), group_member(1, identity=CLUSTER), group_member(2, identity=2)]
    world = World({KS1: server}, members)
    for member in members:
        member.start(0)
    world.settle()
    keys = [set(member.keys.teks) if member.keys else set() for member in members]
    assert all(keys) and not keys[0] & keys[1] and not keys[0] & keys[2]
    found = {status.name: [item.address for item in status.members] for status in server.status(0)}
    assert found == {LAB: [member_address(0)], "CLUSTER": [member_address(1)], "SECOND": [member_address(2)]}
    assert {status.identity for status in server.status(0)} == {"1", "2", "239.1.1.1"}


def test_a_registration_that_is_replayed_changes_nothing() -> None:
    sent: list[Datagram] = []
    server, member = key_server(group()), group_member()

    def recording(datagram: Datagram) -> list[Datagram]:
        sent.append(datagram)
        return [datagram]

    world = World({KS1: server}, [member], recording)
    member.start(0)
    world.settle()
    replayed = [item for item in sent if item.destination.address == KS1]
    for now in (1.0, 120.0, 1000.0):
        for datagram in replayed:
            server.receive_datagram(datagram, now)
            server.datagrams_to_send()
    kept = server.group(LAB)
    assert kept.sender_ids_given == 1
    assert kept.members[member_address(0)].registrations == 1 and kept.members[member_address(0)].registered == 0
    assert server.open_pulls <= MAX_PULLS_PER_PEER


def test_a_peer_has_few_registrations_open_at_once() -> None:
    server, member = key_server(group()), group_member()
    world = World({KS1: server}, [member])
    member.start(0)
    world.settle()
    sa = member.isakmp.associations[0]
    for message_id in range(1, 200):
        mid = message_id.to_bytes(4, "big")
        payloads = (Nonce(bytes(16)), Identification(IdType.KEY_ID, (1234).to_bytes(4, "big")))
        data = sa.protect(ExchangeType.GROUPKEY_PULL, message_id, payloads, mid)
        server.receive_datagram(Datagram(data, sa.local, sa.peer), 1.0)
    assert server.open_pulls == MAX_PULLS_PER_PEER
    other = group_member(1)
    world = World({KS1: server}, [other])
    other.start(1)
    world.settle()
    assert other.registered


def test_bad_messages_are_complained_of_once_a_second_not_more() -> None:
    server, member = key_server(group()), group_member()
    world = World({KS1: server}, [member])
    member.start(0)
    world.settle()
    sa = member.isakmp.associations[0]
    answers = 0
    for number in range(1, 101):
        data = sa.protect(ExchangeType.GROUPKEY_PULL, number, (Nonce(bytes(16)),), b"not the message ID")
        server.receive_datagram(Datagram(data, sa.local, sa.peer), 1 + number / 50)
        answers += len(server.datagrams_to_send())
    world.settle()
    assert 2 <= answers <= 3
    assert world.logs(KS1).count("KS_HASH_FAIL") == answers


def test_a_peer_without_our_vendor_id_gets_only_what_the_rfc_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vendor, "OURS", (vendor.DEAD_PEER_DETECTION,))
    server, member = key_server(group(policy=[DENY, PERMIT])), group_member()
    world = World({KS1: server}, [member])
    member.start(0)
    world.settle()
    assert member.keys is not None and [rule.entry for rule in member.keys.rules] == [PERMIT]
    assert "GDOI_ACE_DENY" in world.logs(KS1), "what it was not told is said here"
    plain = server.group(LAB).sa_payload(0, private=False)
    assert all(item.sa_protocol == SaProtocol.ESP and item.attributes[-1].kind < 32000 for item in plain.teks)


def test_without_a_signing_key_there_is_no_kek_and_no_sequence_number() -> None:
    server, member = key_server(group(), rekeys=False), group_member()
    world = World({KS1: server}, [member])
    member.start(0)
    world.run(10_000)
    assert member.registered and member.keys is not None and member.keys.kek is None
    assert member.successes >= 3, "it registers again before the end (reference 12.2)"
    assert "SA_KEK_UPDATED" not in world.logs(member_address(0))


def test_a_group_lives_on_when_its_kek_is_replaced() -> None:
    server, members = key_server(group(transform=CBC, tek_lifetime=36_000)), [group_member(0), group_member(1)]
    world = World({KS1: server}, members)
    for member in members:
        member.start(0)
    world.settle()
    first = server.group(LAB).kek
    world.run(86_400)
    second = server.group(LAB).kek
    assert first is not None and second is not None and second.spi != first.spi
    for member in members:
        assert member.keys is not None and member.keys.kek is not None
        assert member.keys.kek.spi == second.spi and member.keys.kek.expires > 86_400


@pytest.mark.parametrize(
    ("configuration", "words"),
    [
        (group(tek_lifetime=0), "at least a second"),
        (group(policy=[DENY]), "permits nothing"),
        (group(sender_id_bits=64), "1 to 32 bits"),
        (group(sender_id_bits=8, key_server_id=1), "does not fit"),
        (group(key_server_id=256), "does not fit"),
    ],
)
def test_a_configuration_that_no_group_can_keep_is_our_own_error(configuration: KeyServerGroup, words: str) -> None:
    with pytest.raises(LocalError, match=words):
        key_server(configuration)


def test_a_sender_id_is_never_given_twice_under_a_key() -> None:
    """However often members come back, and whatever they ask for."""
    kept = Group(group(sender_id_bits=12, key_server_id=3), bytes, None, Timing())
    given = [number for count in (1, 3, 1, 5, 6) for number in kept.take_sender_ids(count)]
    assert len(set(given)) == 16 and all(number >> 4 == 3 for number in given)


def test_three_hundred_members_register_and_register_again() -> None:
    members = [group_member(number) for number in range(300)]
    server = key_server(group(transform=GCM), members=300)
    world = World({KS1: server}, members)
    for member in members:
        member.start(0)
    world.settle()
    world.run(3599)
    assert all(member.registered and member.successes == 2 for member in members)
    sender_ids = [item.sender_ids for item in server.group(LAB).members.values()]
    assert len(set(sender_ids)) == 300 and server.group(LAB).sender_ids_given == 600
    assert server.open_pulls == 0 and server.isakmp.half_open_count == 0
