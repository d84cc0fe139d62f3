"""GROUPKEY-PUSH between live parties: unicast with acknowledgement, multicast without, orders, what goes wrong."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address

import pytest
from gdoi_parties import DENY, GCM, KS1, PERMIT, group, member_address
from gdoi_rekeyed import CBC, GM1, GM2, GM3, LAB, MULTICAST, UNICAST, kind, lab, multicast, unicast

from labctl import crypto
from labctl.configuration import (
    Acknowledgement,
    SaDirection,
    SaIpsec,
    TransformSet,
)
from labctl.gdoi.events import KeysLost
from labctl.gdoi.member_registration import State
from labctl.isakmp.datagram import Datagram
from labctl.isakmp.header import ExchangeType


def test_a_unicast_rekey_reaches_every_member_and_each_acknowledges_it() -> None:
    world = lab()
    first = {tek.spi for tek in world.members[0].keys.teks.values()}  # type: ignore[union-attr]
    # 3600 - (10 % + two copies ten seconds apart + 5) (reference/cisco-getvpn.md 2.3).
    world.run(3214)
    assert not world.of(ExchangeType.GROUPKEY_PUSH)
    world.run(3216)
    assert [at for at, _ in world.of(ExchangeType.GROUPKEY_PUSH)] == [3215.0] * 3
    assert len(world.of(ExchangeType.GROUPKEY_PUSH_ACK)) == 3
    assert world.same_keys()
    for member in world.members:
        assert member.keys is not None and first < set(member.keys.teks)
        assert member.successes == 1 and member.rekeys.received == member.rekeys.acknowledged == 1
    assert world.texts(KS1, "KS_SEND_UNICAST_REKEY") == [
        f"Sending Unicast Rekey for group {LAB} from address {KS1} with seq # 1"
    ]
    assert world.logs(GM1)[-2:] == ["GM_RECV_REKEY", "SA_TEK_UPDATED"]
    # Nobody is asked twice who answered, and nobody registers again.
    world.run(3600)
    assert len(world.of(ExchangeType.GROUPKEY_PUSH)) == 3 and [m.successes for m in world.members] == [1, 1, 1]
    assert all(set(member.keys.teks) != first and len(member.keys.teks) == 1 for member in world.members if member.keys)


@pytest.mark.parametrize("transform", [GCM, CBC])
def test_a_group_lives_for_a_week_on_rekeys_alone(transform: TransformSet) -> None:
    world = lab(replace(group(transform=transform), rekey=UNICAST))
    world.run(7 * 86400)
    assert [member.successes for member in world.members] == [1, 1, 1]
    assert world.same_keys() and list(world.server.group(LAB).members) == [GM1, GM2, GM3]
    # Sequence numbers start anew with each KEK.
    kek = world.server.group(LAB).kek
    assert kek is not None and kek.sequence < 40
    for member in world.members:
        assert member.keys is not None and member.keys.kek is not None
        assert (member.keys.kek.spi, member.keys.kek.sequence) == (kek.spi, kek.sequence)
        assert member.rekeys.rejected == member.rekeys.replayed == 0


def test_sending_moves_to_the_new_key_when_every_member_has_it() -> None:
    world = lab()
    world.run(3600)
    for address in (GM1, GM2, GM3):
        installs = world.installs(address)
        assert len({install.sending for install in installs}) == 2
        switched = next(item for item in installs if item.sending != installs[0].sending)
        # Both keys are accepted at the moment of the change.
        assert len(switched.keys.teks) == 2


def test_a_member_that_did_not_get_the_rekey_is_sent_it_again_and_the_others_are_not() -> None:
    world = lab()
    world.run(3000)
    world.cut = {GM2}
    world.run(3220)
    world.cut = set()
    world.run(3300)
    copies = [(at, datagram.destination.address) for at, datagram in world.of(ExchangeType.GROUPKEY_PUSH)]
    assert copies == [(3215.0, GM1), (3215.0, GM2), (3215.0, GM3), (3225.0, GM2)]
    assert world.same_keys() and world.members[1].successes == 1


def test_a_lost_acknowledgement_is_sent_again_for_the_same_octets() -> None:
    world = lab(members=1)
    lost: list[Datagram] = []
    carry = world.network

    def lossy(datagram: Datagram) -> list[Datagram]:
        out = carry(datagram)
        if kind(datagram) == ExchangeType.GROUPKEY_PUSH_ACK and not lost:
            lost.append(datagram)
            return []
        return out

    world.network = lossy
    world.run(3300)
    pushes = world.of(ExchangeType.GROUPKEY_PUSH)
    assert len(pushes) == 2 and pushes[0][1].data == pushes[1][1].data
    assert world.members[0].rekeys.received == 1
    assert world.server.group(LAB).members[GM1].acknowledged == 1


def test_three_rekeys_without_answer_end_a_membership_on_the_key_server() -> None:
    world = lab()
    world.run(100)
    world.cut = {GM2}
    for number in range(3):
        assert GM2 in world.server.group(LAB).members
        world.server.rekey(LAB, world.now)
        world.run(world.now + 60 + number)
    assert GM2 not in world.server.group(LAB).members
    assert world.texts(KS1, "GM_DELETE") == [f"GM {GM2} deleted from group {LAB}."]
    assert world.server.group(LAB).members[GM1].missed == 0


def test_a_member_that_missed_a_rekey_registers_again_and_says_why() -> None:
    world = lab()
    world.run(3000)
    world.cut = {GM1}
    world.run(3300)
    world.cut = set()
    world.run(3600)
    assert world.members[0].successes == 2 and world.same_keys()
    assert "GM_REKEY_NOT_RECD" in world.logs(GM1) and "GM_RE_REGISTER" in world.logs(GM1)


def test_a_member_cut_off_for_a_whole_life_loses_its_keys_and_comes_back() -> None:
    world = lab()
    world.run(100)
    world.cut = {GM1}
    world.run(4000)
    assert not world.members[0].registered and world.lost(GM1) == [KeysLost(LAB, policy=True)]
    world.cut = set()
    world.run(4200)
    assert world.members[0].registered and world.same_keys()


def test_a_multicast_rekey_is_one_message_repeated_and_not_answered() -> None:
    world = lab(multicast())
    assert [world.joined(address) for address in (GM1, GM2, GM3)] == [MULTICAST] * 3
    # Without the budget that unicast needs.
    world.run(3300)
    pushes = world.of(ExchangeType.GROUPKEY_PUSH)
    assert [(at, datagram.destination.address) for at, datagram in pushes] == [
        (3240.0, MULTICAST),
        (3250.0, MULTICAST),
        (3260.0, MULTICAST),
    ]
    assert not world.of(ExchangeType.GROUPKEY_PUSH_ACK) and world.same_keys()
    world.run(7 * 86400)
    assert [member.successes for member in world.members] == [1, 1, 1] and world.same_keys()
    assert all(member.rekeys.replayed == 0 for member in world.members)


def test_multicast_without_an_address_sends_no_rekeys_and_members_register_again() -> None:
    world = lab(group(transform=CBC))
    world.run(3600)
    assert not world.of(ExchangeType.GROUPKEY_PUSH) and [member.successes for member in world.members] == [2, 2, 2]


def test_a_group_without_rekeys_refuses_to_send_one_and_forgets_members_without_touching_their_keys() -> None:
    world = lab(group(transform=CBC))
    world.run(1000)
    before = [dict(member.keys.teks) for member in world.members if member.keys]
    with pytest.raises(ValueError, match="no way to send its members a rekey"):
        world.server.rekey(LAB, 1000)
    world.server.clear_members(LAB, 1000)
    world.settle()
    assert not world.server.group(LAB).members
    world.members[0].reregister(1000)
    world.settle()
    assert world.same_keys() and [member.keys.teks.keys() for member in world.members if member.keys] == [
        keys.keys() for keys in before
    ]


def test_new_tek_and_new_kek_that_are_due_at_once_travel_in_one_rekey() -> None:
    # A KEK of a day is due 8640 s before its end, in the same instant as the 24th TEK.
    world = lab(multicast(retransmit_count=1))
    world.run(77_770)
    pushes = [at for at, _ in world.of(ExchangeType.GROUPKEY_PUSH)]
    assert pushes[-2:] == [77_760.0, 77_770.0], "the rekey and its copy, nothing else"
    keks = {member.keys.kek.spi for member in world.members if member.keys and member.keys.kek}
    assert len(keks) == 1 and world.same_keys()


def test_a_member_whose_answers_get_lost_once_stays_on_the_list() -> None:
    world = lab(replace(group(transform=CBC, tek_lifetime=600), rekey=UNICAST))
    carry = world.network
    world.network = lambda datagram: [] if kind(datagram) == ExchangeType.GROUPKEY_PUSH_ACK else carry(datagram)
    world.run(610)
    world.network = carry
    assert len(world.server.group(LAB).members) == 3, "one rekey was not answered, and the key of before has ended"
    world.run(1300)
    assert [member.successes for member in world.members] == [1, 1, 1] and world.same_keys()


def test_a_member_that_registers_while_a_rekey_is_under_way_has_the_newest_keys() -> None:
    world = lab()
    late = world.members[2]
    late.stop(0.0)
    world.run(3000)
    # Message 3 of its registration arrives after the rekey of 3215 has begun.
    held: list[Datagram] = []
    carry = world.network

    def slow(datagram: Datagram) -> list[Datagram]:
        out = carry(datagram)
        if (
            datagram.source.address == GM3
            and kind(datagram) == ExchangeType.GROUPKEY_PULL
            and late.state is State.ACCEPTED
        ):
            held.append(datagram)
            return []
        return out

    world.network = slow
    world.now = 3214.9
    late.start(world.now)
    world.settle()
    world.network = carry
    world.run(3230)
    assert held and late.registered and world.same_keys()


def test_a_triggered_rekey_shortens_the_old_key_by_the_formula() -> None:
    world = lab()
    world.run(1600)
    world.server.rekey(LAB, 1600)
    world.settle()
    for member in world.members:
        assert member.keys is not None
        lives = sorted(tek.expires - 1600 for tek in member.keys.teks.values())
        # MIN(2000, MAX(90, MIN(180, 3600))) = 180.
        assert lives == pytest.approx([180, 3600], abs=2)
    world.run(1790)
    assert all(len(member.keys.teks) == 1 for member in world.members if member.keys) and world.same_keys()


def test_replace_now_takes_the_old_key_at_once() -> None:
    world = lab()
    world.run(100)
    old = {tek.spi for tek in world.members[0].keys.teks.values()}  # type: ignore[union-attr]
    world.server.rekey(LAB, 100, replace_now=True)
    world.settle()
    for number, member in enumerate(world.members):
        assert member.keys is not None and len(member.keys.teks) == 1 and not old & set(member.keys.teks)
        assert "GM_RECV_POLICY_REPLACE_NOW" in world.logs(member_address(number))
    assert world.same_keys()


def test_clearing_members_has_them_register_before_the_shortened_keys_end_and_traffic_never_stops() -> None:
    world = lab()
    world.run(1600)
    world.server.clear_members(LAB, 1600)
    world.settle()
    assert not world.server.group(LAB).members
    assert all(member.registered for member in world.members)
    world.run(1600 + 180)
    assert [member.successes for member in world.members] == [2, 2, 2] and world.same_keys()
    assert all("GM_RECV_DELETE" in world.logs(address) and not world.lost(address) for address in (GM1, GM2, GM3))
    # And rekeys go on under the new KEK.
    world.run(3 * 86400)
    assert [member.successes for member in world.members] == [2, 2, 2] and world.same_keys()


def test_clearing_members_now_takes_everything_and_they_come_back_within_seconds() -> None:
    world = lab()
    world.run(1600)
    world.server.clear_members(LAB, 1600, immediate=True)
    world.settle()
    assert not any(member.registered for member in world.members)
    assert all(install.sending == (None,) for install in (world.installs(GM1)[-1], world.installs(GM2)[-1]))
    world.run(1606)
    assert all(member.registered for member in world.members) and world.same_keys()
    assert "GM_RECV_DELETE_IMMEDIATE" in world.logs(GM1)


@pytest.mark.parametrize("immediate", [False, True])
def test_an_evicted_member_gets_no_more_keys_until_it_is_allowed_again(immediate: bool) -> None:
    world = lab()
    world.run(1600)
    world.server.evict(LAB, GM2, 1600, immediate=immediate)
    world.run(2000)
    assert not world.members[1].registered
    assert world.members[0].registered and world.members[2].registered
    assert "KS_GM_REVOKED" in world.logs(KS1)
    world.server.allow(LAB, GM2)
    world.run(2200)
    assert world.members[1].registered and world.same_keys()


def test_a_changed_policy_waits_for_the_next_rekey_and_says_so() -> None:
    world = lab()
    world.run(100)
    before = world.members[0].keys
    world.server.reconfigure(replace(unicast(), sas=(SaIpsec((DENY, PERMIT), CBC, 7200),)))
    world.run(200)
    assert world.members[0].keys == before and world.logs(KS1)[-1] == "POLICY_CHANGE"
    world.server.rekey(LAB, 200)
    world.settle()
    for member in world.members:
        assert member.keys is not None and [rule.entry for rule in member.keys.rules] == [DENY, PERMIT]
        assert max(tek.expires for tek in member.keys.teks.values()) == pytest.approx(7400, abs=2)


def test_a_changed_transport_is_told_with_the_next_kek() -> None:
    world = lab()
    world.run(100)
    world.server.reconfigure(multicast())
    world.server.rekey(LAB, 100)
    world.run(200)
    assert [world.joined(address) for address in (GM1, GM2, GM3)] == [MULTICAST] * 3
    assert "GM_REKEY_TRANS_2_MULTI" in world.logs(GM1)
    world.sent.clear()
    world.server.rekey(LAB, 200)
    world.settle()
    assert [datagram.destination.address for _, datagram in world.of(ExchangeType.GROUPKEY_PUSH)] == [MULTICAST]
    assert world.same_keys()


def test_a_new_signing_key_comes_with_a_rekey_under_the_old_one() -> None:
    world = lab()
    world.run(100)
    world.server.set_signing_key(LAB, crypto.generate_rsa_key(2048))
    for moment in (200, 300):
        world.server.rekey(LAB, moment)
        world.run(moment + 50)
    assert world.same_keys() and all(member.rekeys.received == 2 for member in world.members)


def test_a_rekey_with_a_wrong_signature_is_dropped_and_counted_and_moves_nothing() -> None:
    world = lab()
    world.run(100)
    keys = world.members[0].keys
    held = world.server.group(LAB)
    held._signer = crypto.generate_rsa_key(2048)  # the key pair that other key servers do not have
    world.server.rekey(LAB, 100)
    world.settle()
    for member in world.members:
        assert member.rekeys.rejected == 1 and member.rekeys.received == 0
    assert world.members[0].keys == keys and "GDOI_REKEY_FAILURE" in world.logs(GM1)
    assert not world.of(ExchangeType.GROUPKEY_PUSH_ACK)


def test_a_replayed_rekey_changes_nothing() -> None:
    world = lab()
    world.run(100)
    world.server.rekey(LAB, 100)
    world.run(300)
    world.server.rekey(LAB, 300)
    world.run(500)
    keys = world.members[0].keys
    old = next(d for _, d in world.of(ExchangeType.GROUPKEY_PUSH) if d.destination.address == GM1)
    world.members[0].receive_datagram(old, 500)
    world.settle()
    assert world.members[0].keys == keys and world.members[0].rekeys.replayed == 1
    assert "GDOI_REKEY_SEQ_FAILURE" in world.logs(GM1)


def test_an_acknowledgement_that_nobody_asked_for_is_told_and_ignored() -> None:
    world = lab()
    world.run(3300)
    answer = world.of(ExchangeType.GROUPKEY_PUSH_ACK)[0][1]
    world.server.receive_datagram(Datagram(answer.data[:-1] + b"\x63", answer.source, answer.destination), 3300)
    world.settle()
    assert "KS_UNSOL_ACK" in world.logs(KS1)


def test_members_that_are_not_asked_do_not_answer_and_are_never_counted_as_lost() -> None:
    world = lab(unicast(acknowledgement=Acknowledgement.NONE))
    world.run(3300)
    assert len(world.of(ExchangeType.GROUPKEY_PUSH)) == 9 and not world.of(ExchangeType.GROUPKEY_PUSH_ACK)
    world.run(3 * 86400)
    assert len(world.server.group(LAB).members) == 3 and [m.successes for m in world.members] == [1, 1, 1]


def test_activation_and_deactivation_delays_count_from_the_rekey() -> None:
    world = lab(replace(unicast(), activation_delay=40, deactivation_delay=100))
    world.run(100)
    world.server.rekey(LAB, 100)
    world.settle()
    old, new = (tek.spi for tek in sorted(world.members[0].keys.teks.values(), key=lambda tek: tek.expires))  # type: ignore[union-attr]
    assert world.installs(GM1)[-1].sending == (old,)
    world.run(139)
    assert world.installs(GM1)[-1].sending == (old,)
    world.run(141)
    assert world.installs(GM1)[-1].sending == (new,) and old in world.installs(GM1)[-1].keys.teks
    world.run(201)
    assert old not in world.installs(GM1)[-1].keys.teks


def test_receive_only_members_have_keys_and_send_under_none_until_it_is_turned_off() -> None:
    configuration = unicast()
    world = lab(replace(configuration, receive_only=True))
    world.run(100)
    assert all(world.installs(address)[-1].sending == (None,) for address in (GM1, GM2))
    assert all(member.keys is not None and member.keys.receive_only and member.keys.teks for member in world.members)
    world.server.reconfigure(configuration)
    world.server.rekey(LAB, 100)
    world.settle()
    assert world.installs(GM1)[-1].sending != (None,) and "GM_CONV_SA_DUPLEX" in world.logs(GM1)
    assert world.logs(KS1)[-3:] == ["POLICY_CHANGE", "KS_CONV_SAS_DUPLEX", "KS_SEND_UNICAST_REKEY"]


def test_a_passive_member_sends_encrypted_whatever_the_key_server_says() -> None:
    world = lab(replace(unicast(), receive_only=True))
    world.run(100)
    member = world.members[0]
    assert member.direction is SaDirection.INBOUND_ONLY and "GM_SA_INGRESS" in world.logs(GM1)
    member.reconfigure(replace(member.membership, passive=True), 100)
    world.settle()
    turned = world.installs(GM1)[-1]
    assert turned.direction is SaDirection.INBOUND_OPTIONAL and turned.sending != (None,)
    member.reconfigure(replace(member.membership, passive=False), 100)
    world.settle()
    assert world.installs(GM1)[-1].direction is SaDirection.INBOUND_ONLY
    assert member.attempts == 1, "none of it needs the key server"


def test_an_ordered_direction_counts_until_the_key_server_says_something_new() -> None:
    configuration = unicast()
    world = lab(configuration)
    world.members[0].turn(SaDirection.INBOUND_OPTIONAL, 0)
    world.run(100)
    member = world.members[0]
    member.turn(SaDirection.INBOUND_ONLY, 100)
    world.run(3300)
    assert member.rekeys.received == 1 and world.direction() is SaDirection.INBOUND_ONLY
    assert world.installs(GM1)[-1].sending == (None,)
    world.server.reconfigure(replace(configuration, receive_only=True))
    world.server.rekey(LAB, 3300)
    world.run(3400)
    world.server.reconfigure(configuration)
    world.server.rekey(LAB, 3400)
    world.settle()
    assert world.direction() is SaDirection.BOTH and world.installs(GM1)[-1].sending != (None,)
    member.turn(SaDirection.INBOUND_ONLY, 3400)
    member.reregister(3400)
    world.run(3500)
    assert world.direction() is SaDirection.BOTH


def test_clearing_a_member_forgets_everything_and_registers_at_once() -> None:
    world = lab()
    world.run(100)
    world.members[0].clear(100)
    world.settle()
    assert world.lost(GM1) == [KeysLost(LAB, policy=False)]
    world.run(101)
    assert world.members[0].registered and world.members[0].successes == 2


def test_recovery_check_registers_again_and_not_too_often() -> None:
    world = lab(members=1)
    member = world.members[0]
    world.run(100)
    member.data_plane_error("unknown SPI", 100)
    world.settle()
    assert member.attempts == 1, "it is off unless it is configured"
    member.membership = replace(member.membership, recovery_check=300)
    for moment in (100.0, 101.0, 399.0):
        member.data_plane_error("unknown SPI", moment)
        world.settle()
    assert member.successes == 2 and world.logs(GM1).count("GM_RECOVERY_REGISTRATION") == 1
    member.data_plane_error("unknown SPI", 401.0)
    world.settle()
    assert member.successes == 3


def test_only_an_spi_of_the_group_that_was_never_told_says_that_keys_are_missing() -> None:
    world = lab(members=1)
    member = world.members[0]
    world.run(100)
    member.reconfigure(replace(member.membership, recovery_check=60), 100)
    assert member.keys is not None
    (spi,) = member.keys.teks
    world.server.rekey(LAB, 100, replace_now=True)
    world.settle()
    assert spi not in member.keys.teks
    # A key that was taken away, SPIs of other groups, and then one of this group.
    for foreign in (spi, spi ^ 0x01000000, spi ^ 0xFF000000, 0):
        member.unknown_spi(foreign, 200)
    assert member.attempts == 1
    for number in range(1, 1000):
        member.unknown_spi(spi ^ number, 200)
        world.settle()
    assert member.successes == 2 and world.logs(GM1).count("GM_RECOVERY_REGISTRATION") == 1


def test_every_key_server_of_a_group_marks_its_spis_alike() -> None:
    one, other = lab(members=1), lab(members=1)
    other.server.rekey(LAB, 0)
    tops = {spi >> 24 for world in (one, other) for item in world.server.group(LAB).generations for spi in item.teks}
    assert len(tops) == 1


def test_ten_thousand_members_are_served_in_batches() -> None:
    from labctl.gdoi.rekeying import Rekey
    from labctl.gdoi.timing import Timing

    world = lab(members=1)
    kek = world.server.group(LAB).kek
    assert kek is not None
    everybody = [IPv4Address(0x0A000000 + number) for number in range(10_000)]
    timing = Timing()
    rekey = Rekey(kek, lambda _: b"", everybody, UNICAST, timing, 0.0)
    served: list[IPv4Address] = []
    while (now := rekey.next_deadline()) is not None and now < 10:
        batch = [address for address, _ in rekey.due(now)]
        assert len(batch) <= timing.rekey_batch
        served += batch
    assert served == everybody
