"""What a group member accepts, what it keeps, and where it goes when a key server fails."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from ipaddress import IPv4Network, IPv6Network

import pytest
from gdoi_parties import DENY, KS1, KS2, PERMIT, World, group, group_member, key_server, member_address
from hypothesis import given
from hypothesis import strategies as st

from labctl.configuration import AccessListEntry, Action, Cipher, Integrity, TransformSet
from labctl.gdoi import GroupKeys, PolicyRule, TrafficEncryptionKey
from labctl.gdoi.member_registration import State
from labctl.gdoi.numbers import GapAttribute, KdType, KekAttribute, SaAttribute, SaProtocol
from labctl.gdoi.payloads import GdoiSa, GroupAssociatedPolicy, KeyPacket
from labctl.isakmp.attributes import Attribute
from labctl.isakmp.datagram import Datagram
from labctl.isakmp.errors import NotifyType
from labctl.isakmp.payloads import Payload
from labctl.isakmp.sa import Phase1Sa

CBC = TransformSet(Cipher.AES_CBC, 128, Integrity.SHA1)
LAB = "GETVPN_LAB"
MEMBER = member_address(0)


def entry(action: Action, protocol: int, source: str, destination: str, *ports: int) -> AccessListEntry:
    return AccessListEntry(action, protocol, IPv4Network(source), IPv4Network(destination), *ports)


def with_attribute(sa: GdoiSa, kind: int, value: Attribute | None) -> GdoiSa:
    """The same SA payload with one attribute of every SAT replaced, added or left out."""
    teks = tuple(
        replace(
            tek,
            attributes=tuple(item for item in tek.attributes if item.kind != kind)
            + (() if value is None else (value,)),
        )
        for tek in sa.teks
    )
    return replace(sa, teks=teks)


def with_kek_attribute(sa: GdoiSa, value: Attribute) -> GdoiSa:
    assert sa.kek is not None
    kept = tuple(item for item in sa.kek.attributes if item.kind != value.kind)
    return replace(sa, kek=replace(sa.kek, attributes=(*kept, value)))


REFUSED: dict[str, tuple[Callable[[GdoiSa], GdoiSa], str]] = {
    "a cipher that we do not have": (
        lambda sa: replace(sa, teks=tuple(replace(tek, transform=13) for tek in sa.teks)),
        "ESP transform 13",
    ),
    "AH": (
        lambda sa: replace(sa, teks=tuple(replace(tek, sa_protocol=int(SaProtocol.AH)) for tek in sa.teks)),
        "AH is not supported",
    ),
    "an authentication algorithm that we do not have": (
        lambda sa: with_attribute(sa, 5, Attribute.tv(SaAttribute.AUTHENTICATION_ALGORITHM, 9)),
        "authentication algorithm 9",
    ),
    "a cipher without authentication": (lambda sa: with_attribute(sa, 5, None), "authentication algorithm 0"),
    "AES without key length": (lambda sa: with_attribute(sa, 6, None), "AES key of 0 bits"),
    "transport mode": (
        lambda sa: with_attribute(sa, 4, Attribute.tv(SaAttribute.ENCAPSULATION_MODE, 2)),
        "other than tunnel",
    ),
    "one address preserved": (
        lambda sa: with_attribute(sa, 14, Attribute.tv(SaAttribute.ADDRESS_PRESERVATION, 2)),
        "address preservation",
    ),
    "one direction": (lambda sa: with_attribute(sa, 15, Attribute.tv(SaAttribute.SA_DIRECTION, 1)), "SA direction"),
    "a life in kilobytes": (lambda sa: with_attribute(sa, 1, Attribute.tv(SaAttribute.LIFE_TYPE, 2)), "not in seconds"),
    "no life left": (
        lambda sa: with_attribute(sa, 2, Attribute.tlv(SaAttribute.LIFE_DURATION, bytes(4))),
        "without lifetime",
    ),
    "a life of ages": (
        lambda sa: with_attribute(sa, 2, Attribute.tlv(SaAttribute.LIFE_DURATION, b"\xff" * 200)),
        "absurd lifetime",
    ),
    "an attribute that nobody knows": (
        lambda sa: with_attribute(sa, 11, Attribute.tv(11, 1)),
        "SAT attributes \\[11\\]",
    ),
    "a mask with holes": (
        lambda sa: replace(
            sa,
            teks=tuple(
                replace(tek, source=replace(tek.source, data=bytes.fromhex("0a000000ff00ff00"))) for tek in sa.teks
            ),
        ),
        "has holes",
    ),
    "a KEK cipher that we do not have": (
        lambda sa: with_kek_attribute(sa, Attribute.tv(KekAttribute.ALGORITHM, 1)),
        "KEK algorithm 1",
    ),
    "a signature that we do not have": (
        lambda sa: with_kek_attribute(sa, Attribute.tv(KekAttribute.SIG_ALGORITHM, 4)),
        "signature algorithm 4",
    ),
    "a KEK attribute that nobody knows": (
        lambda sa: with_kek_attribute(sa, Attribute.tv(8, 1)),
        "SAK attributes \\[8\\]",
    ),
    "a GAP attribute that nobody knows": (
        lambda sa: replace(sa, gap=GroupAssociatedPolicy((Attribute.tv(99, 1),))),
        "GAP attributes",
    ),
}


@pytest.mark.parametrize("what", list(REFUSED))
def test_a_policy_that_it_cannot_keep_is_refused_and_both_sides_say_so(
    what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    change, words = REFUSED[what]
    server, member = key_server(group(transform=CBC)), group_member()
    kept = server.group(LAB)
    true = kept.sa_payload
    monkeypatch.setattr(kept, "sa_payload", lambda now, private: change(true(now, private=private)))
    world = World({KS1: server}, [member])
    member.start(0)
    world.settle()
    assert member.keys is None and member.state is State.PAUSED
    assert member.reason.startswith(f"{KS1}: its policy is not acceptable: ")
    (text,) = world.texts(MEMBER, "GM_REJECTING_SA_PAYLOAD")
    with pytest.raises(AssertionError, match=words):
        raise AssertionError(text)
    assert "KS_GM_REJECTS_SA_PAYLOAD" in world.logs(KS1)
    assert server.isakmp.associations == [] and kept.members == {}, "phase 1 is deleted (RFC 6407 3.3)"


@pytest.mark.parametrize(
    ("keep", "words"),
    [
        (lambda packet: packet.kind != KdType.TEK, "no key for SPI"),
        (lambda packet: packet.kind != KdType.KEK, "no key for the KEK"),
    ],
    ids=["no TEK", "no KEK"],
)
def test_keys_that_are_missing_are_refused(
    keep: Callable[[KeyPacket], bool], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, member = key_server(group(transform=CBC)), group_member()
    kept = server.group(LAB)
    true = kept.key_packets
    monkeypatch.setattr(kept, "key_packets", lambda: tuple(filter(keep, true())))
    world = World({KS1: server}, [member])
    member.start(0)
    world.settle()
    assert member.keys is None and words in member.reason


def test_two_transforms_for_one_spi_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    server, member = key_server(group(transform=CBC)), group_member()
    kept = server.group(LAB)
    true = kept.sa_payload

    def twice(now: float, private: bool) -> GdoiSa:
        sa = true(now, private=private)
        changed = with_attribute(sa, 5, Attribute.tv(SaAttribute.AUTHENTICATION_ALGORITHM, 5))
        return replace(sa, teks=sa.teks + changed.teks)

    monkeypatch.setattr(kept, "sa_payload", twice)
    world = World({KS1: server}, [member])
    member.start(0)
    world.settle()
    assert "two transforms for SPI" in member.reason


def test_the_order_that_the_key_server_says_counts_not_that_of_the_message(monkeypatch: pytest.MonkeyPatch) -> None:
    other = entry(Action.PERMIT, 17, "10.2.0.0/16", "10.3.0.0/16", 53, 0)
    server, member = key_server(group(policy=[DENY, PERMIT, other], transform=CBC)), group_member()
    kept = server.group(LAB)
    true = kept.sa_payload

    def reversed_order(now: float, private: bool) -> GdoiSa:
        sa = true(now, private=private)
        return replace(sa, teks=sa.teks[::-1])

    monkeypatch.setattr(kept, "sa_payload", reversed_order)
    world = World({KS1: server}, [member])
    member.start(0)
    world.settle()
    assert member.keys is not None
    assert [rule.entry for rule in member.keys.rules] == [DENY, PERMIT, other]


ACCESS_LISTS = {
    "a subnet": [PERMIT],
    "both ways": [
        entry(Action.PERMIT, 0, "10.1.0.0/16", "10.2.0.0/16"),
        entry(Action.PERMIT, 0, "10.2.0.0/16", "10.1.0.0/16"),
    ],
    "any": [entry(Action.PERMIT, 0, "0.0.0.0/0", "0.0.0.0/0")],
    "hosts": [entry(Action.PERMIT, 0, "10.1.1.1/32", "10.1.2.1/32")],
    "multicast": [entry(Action.PERMIT, 0, "0.0.0.0/0", "239.0.0.0/8")],
    "a protocol": [entry(Action.PERMIT, 1, "10.1.0.0/16", "10.1.0.0/16")],
    "ports": [entry(Action.PERMIT, 6, "10.1.0.0/16", "10.1.0.0/16", 1024, 443)],
    "deny first": [DENY, DENY.mirrored(), PERMIT],
    "deny amid": [
        PERMIT,
        DENY,
        entry(Action.PERMIT, 0, "10.9.0.0/16", "10.9.0.0/16"),
    ],
    "deny last": [PERMIT, DENY],
    "the same networks denied and permitted": [entry(Action.DENY, 0, "10.1.0.0/16", "10.1.0.0/16"), PERMIT],
    "IPv6": [AccessListEntry(Action.PERMIT, 58, IPv6Network("2001:db8::/32"), IPv6Network("2001:db8:1::1/128"))],
    "a hundred": [entry(Action.PERMIT, 0, f"10.{number}.0.0/16", "10.0.0.0/8") for number in range(100)],
}


@pytest.mark.parametrize("shape", list(ACCESS_LISTS))
@pytest.mark.parametrize("transform", [CBC, TransformSet(Cipher.AES_GCM, 128)], ids=str)
def test_every_access_list_reaches_the_member_as_it_is(shape: str, transform: TransformSet) -> None:
    policy = ACCESS_LISTS[shape]
    ipv6 = policy[0].source.version == 6
    member = group_member(ipv6=ipv6)
    world = World({KS1: key_server(group(policy=policy, transform=transform, ipv6=ipv6))}, [member])
    member.start(0)
    world.run(3300)
    assert member.keys is not None
    assert [rule.entry for rule in member.keys.rules] == policy
    permits = [rule for rule in member.keys.rules if rule.entry.action is Action.PERMIT]
    assert member.keys.permits == len(permits)
    keys = {rule.spis for rule in permits}
    assert len(keys) == (len(permits) if transform.uses_counter_mode else 1)
    sending = world.installs(MEMBER)[-1].sending
    assert [spi is None for spi in sending] == [rule.entry.action is Action.DENY for rule in member.keys.rules]


def test_earlier_datagrams_that_arrive_again_between_later_ones_do_no_harm() -> None:
    source = random.Random(3)
    earlier: list[Datagram] = []

    def network(datagram: Datagram) -> list[Datagram]:
        again = source.sample(earlier, min(len(earlier), 4))
        earlier.append(datagram)
        return [*again[:2], datagram, *again[2:]]

    members = [group_member(number) for number in range(3)]
    server = key_server(group())
    world = World({KS1: server}, members, network)
    for member in members:
        member.start(0)
    world.run(29)
    assert all(member.registered and member.attempts == 1 for member in members)
    assert server.group(LAB).sender_ids_given == 3


@pytest.mark.parametrize("seed", range(5))
def test_members_register_over_a_bad_network(seed: int) -> None:
    """A fifth of the datagrams lost, a fifth doubled, the order mixed."""
    source = random.Random(seed)
    held: list[Datagram] = []

    def network(datagram: Datagram) -> list[Datagram]:
        out = [datagram] * source.choice((0, 1, 1, 1, 2)) + held
        held.clear()
        if out and source.random() < 0.2:
            held.append(out.pop())
        return out

    members = [group_member(number) for number in range(5)]
    server = key_server(group(), members=5)
    world = World({KS1: server}, members, network)
    for member in members:
        member.start(0)
    world.run(300)
    assert all(member.registered for member in members)
    sender_ids = [member.keys.sender_ids for member in members if member.keys]
    assert len(set(sender_ids)) == 5


def test_a_key_server_that_restarted_is_found_and_old_keys_are_kept_for_receiving_only() -> None:
    member = group_member()
    world = World({KS1: key_server(group(transform=CBC))}, [member])
    member.start(0)
    world.run(3000)
    assert member.keys is not None
    (old,) = member.keys.teks
    anew = key_server(group(transform=CBC, tek_lifetime=7200), seed=1)
    other = group_member(1)
    world.parties[KS1], world.parties[member_address(1)] = anew, other
    world.events[member_address(1)] = []
    other.start(3000)
    while member.successes < 2 and world.now < 3600:
        world.run(world.now + 5)
    assert member.successes == 2, "the old phase 1 is worth nothing, a new one is made at once"
    assert "GM_CONN_NEXT_SER" not in world.logs(MEMBER) and member.attempts == 2
    assert other.keys is not None and member.keys is not None
    (new,) = other.keys.teks
    (rule,) = member.keys.rules
    assert rule.spis == (old, new) and rule.retired == {old}
    assert set(member.keys.teks) == {old, new}
    assert world.installs(MEMBER)[-1].sending == (new,), "others may not have the old key"
    world.run(3601)
    assert set(member.keys.teks) == {new}


def test_the_list_of_key_servers_is_tried_in_order_and_from_the_top_again() -> None:
    member = group_member(servers=[KS2, KS1])
    world = World({}, [member])
    member.start(0)
    world.run(400)
    asked = [text.split(" KS ")[1].split()[0] for text in world.texts(MEMBER, "GM_REGSTER")]
    assert asked[:6] == [str(KS2), str(KS1)] * 3


def test_a_member_goes_back_to_the_first_key_server_when_it_registers_again() -> None:
    alive = False
    member = group_member(servers=[KS1, KS2])
    servers = {KS1: key_server(group(transform=CBC)), KS2: key_server(group(KS2, transform=CBC))}

    def network(datagram: Datagram) -> list[Datagram]:
        return [datagram] if alive or KS1 not in (datagram.source.address, datagram.destination.address) else []

    world = World(servers, [member], network)
    member.start(0)
    world.run(100)
    assert member.registered_with == KS2
    alive = True
    world.run(3700)
    assert member.registered_with == KS1 and member.registered
    assert member.keys is not None and len(member.keys.rules) == 1


def test_without_a_pre_shared_key_of_its_own_it_says_so_and_goes_on() -> None:
    member = group_member(servers=[KS2, KS1], keys_for=[KS1])
    world = World({KS1: key_server(group())}, [member])
    member.start(0)
    world.run(1)
    assert member.registered_with == KS1
    (text,) = world.texts(MEMBER, "IKMP_MODE_FAILURE")
    assert f"no pre-shared key for {KS2}" in text


def test_an_answer_that_it_cannot_read_is_named_when_nothing_better_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    server, member = key_server(group()), group_member()
    kept = server.group(LAB)
    true = kept.sa_payload
    monkeypatch.setattr(kept, "sa_payload", lambda now, private: replace(true(now, private=private), kek=None, teks=()))
    monkeypatch.setattr(GdoiSa, "pack", lambda _: b"\x00\x00\x00\x02" + bytes(8))
    world = World({KS1: server}, [member])
    member.start(0)
    world.run(34)
    assert member.reason == f"{KS1}: its answer is not acceptable: an SA payload without SAK and SAT"


@pytest.mark.parametrize("kind", [NotifyType.INVALID_HASH_INFORMATION, NotifyType.PAYLOAD_MALFORMED])
def test_a_complaint_about_a_message_that_another_sent_does_not_end_a_registration(kind: NotifyType) -> None:
    server, member = key_server(group()), group_member()
    count = itertools.count()

    def network(datagram: Datagram) -> list[Datagram]:
        if datagram.source.address == KS1 and next(count) == 3:
            server.isakmp.notify(server.isakmp.associations[0], kind)
        return [datagram]

    world = World({KS1: server}, [member], network)
    member.start(0)
    world.settle()
    assert member.registered and member.attempts == 1


@pytest.mark.parametrize("datagrams", range(8))
def test_a_member_can_be_stopped_at_any_moment(datagrams: int) -> None:
    server, member = key_server(group()), group_member()
    count = itertools.count()
    world = World({KS1: server}, [member], lambda item: [item] if next(count) < datagrams else [])
    member.start(0)
    world.settle()
    member.stop(1)
    assert member.state is State.IDLE and not member.registered and member.keys is None
    assert member.next_deadline() is None
    world.network = lambda item: [item]
    member.start(100)
    world.now = 100
    world.run(101)
    assert member.registered


def tek(spi: int, expires: float) -> TrafficEncryptionKey:
    return TrafficEncryptionKey(spi, CBC, bytes(16), bytes(20), 3600, expires)


@given(st.floats(1, 1e7), st.floats(0.001, 1000), st.floats(1, 1e5))
def test_at_the_moment_of_the_switch_the_next_key_is_sent_under(end: float, margin: float, more: float) -> None:
    """Whatever rounding does to the moment."""
    teks = {256: tek(256, end), 257: tek(257, end + more)}
    rule = PolicyRule(PERMIT, (256, 257))
    assert rule.sending(teks, end - margin, margin) == 257


def test_a_stale_sequence_number_of_the_same_kek_is_ignored() -> None:
    member = group_member()
    world = World({KS1: key_server(group(transform=CBC))}, [member])
    member.start(0)
    world.settle()
    keys = member.keys
    assert keys is not None and keys.kek is not None
    heard = replace(keys, kek=replace(keys.kek, sequence=7))
    again = keys.succeeding(heard, 0).kek
    other = keys.succeeding(replace(heard, kek=replace(keys.kek, spi=bytes(16), sequence=7)), 0).kek
    assert again is not None and again.sequence == 7, "RFC 6407 3.3"
    assert other is not None and other.sequence == 0


def test_an_entry_that_is_gone_takes_its_keys_along() -> None:
    gone = entry(Action.PERMIT, 17, "10.2.0.0/16", "10.3.0.0/16")
    old = GroupKeys((PolicyRule(PERMIT, (256,)), PolicyRule(gone, (257,))), {256: tek(256, 9), 257: tek(257, 9)})
    new = GroupKeys((PolicyRule(PERMIT, (300,)),), {300: tek(300, 99)})
    both = new.succeeding(old, 0)
    assert both.rules == (PolicyRule(PERMIT, (256, 300), frozenset({256})),)
    assert new.succeeding(old, 10).teks == new.teks


def test_a_key_that_was_retired_stays_so_through_a_rekey_of_the_kek_alone() -> None:
    of_another_server = GroupKeys((PolicyRule(PERMIT, (256,)),), {256: tek(256, 99)})
    registered = GroupKeys((PolicyRule(PERMIT, (300,)),), {300: tek(300, 99)}).succeeding(of_another_server, 0)
    # It says nothing of TEKs, so the member goes on with the rules that it has.
    for _ in range(2):
        registered = replace(registered, kek=None).succeeding(registered, 1)
        (rule,) = registered.rules
        assert rule.retired == {256} and rule.sending(registered.teks, 1, 0) == 300
    # The key server that hands it out again takes it back.
    (again,) = GroupKeys((PolicyRule(PERMIT, (256,)),), {256: tek(256, 99)}).succeeding(registered, 2).rules
    assert again.retired == {300} and again.sending(registered.teks, 2, 0) == 256


def test_the_sender_ids_that_a_member_asks_for_are_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """GAP in message 3, as a member with several encryption engines sends it (RFC 6407 5.4)."""
    true = Phase1Sa.protect
    gap = GroupAssociatedPolicy.of({GapAttribute.SENDER_ID_REQUEST: 3})

    def asking(sa: Phase1Sa, exchange: int, message_id: int, payloads: Sequence[Payload], *prefix: bytes) -> bytes:
        return true(sa, exchange, message_id, payloads or (gap,), *prefix)

    monkeypatch.setattr(Phase1Sa, "protect", asking)
    server, member = key_server(group(key_server_id=1)), group_member()
    world = World({KS1: server}, [member])
    member.start(0)
    world.settle()
    assert member.keys is not None
    assert member.keys.sender_ids == (0x10000, 0x10001, 0x10002)
    assert server.group(LAB).members[MEMBER].sender_ids == member.keys.sender_ids
