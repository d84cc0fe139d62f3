"""The pseudotime of a group: told by its key server, kept by members whose clocks drift (reference 7.3)."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address
from typing import Any, cast

import pytest
from gdoi_parties import GCM, KS1, PERMIT, World, group_member, key_server
from gdoi_rekeyed import CBC, GM1, GM2, LAB, UNICAST, Rekeyed, kind, lab, unicast
from hypothesis import given
from hypothesis import strategies as st

from labctl.configuration import (
    NO_REPLAY,
    KeyServerGroup,
    RekeyPolicy,
    Replay,
    ReplayMethod,
    SaIpsec,
)
from labctl.gdoi import GroupMember, KeyServer
from labctl.gdoi.decoding import PolicyRefused, read_policy
from labctl.gdoi.encoding import sa_tek
from labctl.gdoi.events import Event
from labctl.gdoi.numbers import SaAttribute
from labctl.gdoi.payloads import GdoiSa
from labctl.gdoi.policy import TrafficEncryptionKey
from labctl.gdoi.pseudotime import Pseudotime, ToldTime, read_pseudotime
from labctl.isakmp.attributes import Attribute
from labctl.isakmp.datagram import Datagram
from labctl.isakmp.errors import LocalError, MalformedMessage, PeerError
from labctl.isakmp.header import ExchangeType

TBAR = Replay(ReplayMethod.TIME, 5)
COUNTER = Replay(ReplayMethod.COUNTER, 64)


def tbar(replay: Replay = TBAR, tek: int = 3600, **rekey: object) -> KeyServerGroup:
    return replace(unicast(**rekey), sas=(SaIpsec((PERMIT,), CBC, tek, replay=replay),))


class Drifting:
    """A party whose clock is fast by `rate`, and `jump` seconds ahead."""

    def __init__(self, party: GroupMember, rate: float) -> None:
        self.party = party
        self.rate = 1.0 + rate
        self.jump = 0.0

    def shows(self, now: float) -> float:
        return now * self.rate + self.jump

    def receive_datagram(self, datagram: Datagram, now: float) -> None:
        self.party.receive_datagram(datagram, self.shows(now))

    def handle_timer(self, now: float) -> None:
        self.party.handle_timer(self.shows(now))

    def next_deadline(self) -> float | None:
        at = self.party.next_deadline()
        return None if at is None else (at - self.jump) / self.rate

    def datagrams_to_send(self) -> list[Datagram]:
        return self.party.datagrams_to_send()

    def next_event(self) -> Event | None:
        return self.party.next_event()


def drifting(configuration: KeyServerGroup, *rates: float) -> tuple[Rekeyed, list[Drifting]]:
    world = lab(configuration, len(rates))
    wrapped = [Drifting(member, rate) for member, rate in zip(world.members, rates, strict=True)]
    for item in wrapped:
        world.parties[item.party.membership.local_address] = cast(GroupMember, item)
    return world, wrapped


def of_server(world: Rekeyed) -> float:
    clock = world.server.group(LAB).pseudotime
    assert clock is not None
    return clock.at(world.now)


def errors(world: Rekeyed, members: list[Drifting]) -> list[float]:
    """How far each member's pseudotime is ahead of the key server's."""
    found = []
    for item in members:
        shown = item.party.clock.read(item.shows(world.now))
        assert shown is not None
        found.append(shown - of_server(world))
    return found


def told(sa: GdoiSa) -> list[dict[int, int]]:
    return [{item.kind: item.number for item in tek.attributes} for tek in sa.teks]


def test_members_have_the_time_with_their_keys() -> None:
    world = lab(tbar())
    world.run(100)
    for member in world.members:
        assert member.clock.read(100) == pytest.approx(100) and of_server(world) == pytest.approx(100)
        assert member.keys is not None
        (tek,) = member.keys.teks.values()
        assert tek.replay == TBAR and tek.epoch == world.server.group(LAB).pseudotime.epoch  # type: ignore[union-attr]
        install = world.installs(member.membership.local_address)[-1]
        assert install.clocks == member.clock.clocks and set(install.clocks) == {tek.epoch}


def test_the_clock_starts_with_the_first_member_and_not_with_the_key_server() -> None:
    world = Rekeyed(key_server(tbar(), 1), [])
    world.run(5000)
    assert world.server.group(LAB).pseudotime is None
    member = group_member(0)
    world.parties[GM1] = member
    world.events[GM1] = []
    member.start(5000)
    world.run(5010)
    assert member.clock.read(world.now) == pytest.approx(of_server(world)) == pytest.approx(10)


@pytest.mark.parametrize("replay", [NO_REPLAY, COUNTER])
def test_other_groups_have_no_clock(replay: Replay) -> None:
    world = lab(tbar(replay, 86400))
    world.run(20_000)
    assert world.server.group(LAB).pseudotime is None and not world.of(ExchangeType.GROUPKEY_PUSH)
    for member in world.members:
        assert member.keys is not None and {tek.replay for tek in member.keys.teks.values()} == {replay}
        assert member.clock.read(world.now) is None


def test_strangers_are_told_nothing_of_it() -> None:
    world = lab(tbar())
    served = world.server.group(LAB)
    private, plain = (told(served.sa_payload(0, private=known)) for known in (True, False))
    ours = {SaAttribute.REPLAY_MODE, SaAttribute.REPLAY_WINDOW, SaAttribute.PSEUDOTIME}
    assert all(ours <= set(item) for item in private) and not any(ours & set(item) for item in plain)
    assert private[0][SaAttribute.REPLAY_MODE] == 2 and private[0][SaAttribute.REPLAY_WINDOW] == 5


def test_rekeys_keep_drifting_clocks_together_for_a_week() -> None:
    world, members = drifting(tbar(), 50e-6, -50e-6, 0.0)
    for hour in range(1, 7 * 24):
        world.run(hour * 3600.0)
        fast, slow, right = errors(world, members)
        assert abs(right) < 0.01 and abs(fast) < 0.5 and abs(slow) < 0.5, hour
    assert [item.party.successes for item in members] == [1, 1, 1]
    assert all(item.party.clock.sync.errors == 0 for item in members)


def test_without_a_rekey_of_its_own_the_time_is_told_every_two_hours_under_the_same_keys() -> None:
    world, members = drifting(tbar(tek=86400), 50e-6, -50e-6)
    world.run(7199)
    assert not world.of(ExchangeType.GROUPKEY_PUSH)
    keys = [set(item.party.keys.teks) for item in members if item.party.keys]
    world.run(70_000)
    assert sorted({round(at) for at, _ in world.of(ExchangeType.GROUPKEY_PUSH)}) == [7200 * n for n in range(1, 10)]
    assert [set(item.party.keys.teks) for item in members if item.party.keys] == keys
    assert all(abs(error) < 0.5 for error in errors(world, members))
    assert [item.party.clock.sync.heard for item in members] == [10, 10]


def test_a_late_copy_of_a_rekey_sets_no_clock_back() -> None:
    world, members = drifting(tbar(), 0.0, 0.0)
    world.run(3000)
    world.cut = {GM2}
    world.run(3220)
    world.cut = set()
    world.run(3300)
    assert members[1].party.rekeys.received == 1
    on_time, late = errors(world, members)
    assert on_time == pytest.approx(0) and -0.5 < late <= 0
    assert members[1].party.clock.sync.last == pytest.approx(-10, abs=0.01)


def test_a_rekey_that_is_held_back_sets_no_clock_back() -> None:
    world, members = drifting(tbar(retransmit_count=1), 0.0, 0.0)
    held: list[Datagram] = []
    carry = world.network

    def holding(datagram: Datagram) -> list[Datagram]:
        if kind(datagram) == ExchangeType.GROUPKEY_PUSH and datagram.destination.address == GM2:
            held.append(datagram)
            return []
        return carry(datagram)

    world.network = holding
    world.run(3350)
    world.parties[GM2].receive_datagram(held[0], world.now)
    assert members[1].party.rekeys.received == 1
    assert -0.5 < errors(world, members)[1] <= 0 and members[1].party.clock.sync.errors == 0


def test_a_clock_that_stood_still_is_set_forward_and_the_log_says_so() -> None:
    world, members = drifting(tbar(), 0.0, 0.0)
    world.run(1000)
    members[0].jump = -60.0
    assert errors(world, members)[0] == pytest.approx(-60)
    world.run(3300)
    assert errors(world, members) == [pytest.approx(0, abs=0.01)] * 2
    assert [item.party.clock.sync.errors for item in members] == [1, 0]
    (text,) = world.texts(GM1, "PSEUDO_TIME_LARGE")
    assert "is ahead of ours: my_pseudotime is 31" in text and "replay_window is 5 (second)" in text


def test_a_clock_that_jumped_ahead_is_set_back_where_no_delay_explains_it() -> None:
    world, members = drifting(tbar(), 0.0, 0.0)
    world.run(1000)
    clock = members[0].party.clock
    assert clock.current is not None
    held = clock.clocks[clock.current]
    clock.clocks[clock.current] = replace(held, offset=held.offset + 60)
    world.run(3300)
    assert errors(world, members) == [pytest.approx(0, abs=0.01)] * 2
    assert len(world.texts(GM1, "PSEUDO_TIME_TOO_OLD")) == clock.sync.errors == 1


def test_a_registration_sets_a_clock_both_ways() -> None:
    world, members = drifting(tbar(), 0.0)
    for error in (3.0, -3.0):
        world.run(world.now + 100)
        clock = members[0].party.clock
        assert clock.current is not None
        held = clock.clocks[clock.current]
        clock.clocks[clock.current] = replace(held, offset=held.offset + error)
        members[0].party.reregister(world.now)
        world.run(world.now + 1)
        assert errors(world, members) == [pytest.approx(0, abs=0.01)]


def test_a_policy_that_may_be_old_is_asked_for_again() -> None:
    """The first answer goes lost: a copy of the question gets a copy of it, two seconds later."""
    configuration = tbar()
    pulls: list[Datagram] = []

    def lossy(datagram: Datagram) -> list[Datagram]:
        if kind(datagram) == ExchangeType.GROUPKEY_PULL and datagram.source.address == KS1:
            pulls.append(datagram)
            return [] if len(pulls) == 1 else [datagram]
        return [datagram]

    member = group_member(0)
    world = World({KS1: key_server(configuration, 1)}, [member], lossy)
    member.start(0.0)
    world.run(60)
    assert pulls[0].data == pulls[1].data and member.successes == 1
    server = cast(KeyServer, world.parties[KS1])
    clock = server.group(LAB).pseudotime
    assert clock is not None and member.clock.read(60) == pytest.approx(clock.at(60), abs=0.1)
    assert list(server.group(LAB).members) == [GM1] and server.group(LAB).members[GM1].registrations == 1


def test_a_key_server_that_comes_back_has_another_clock_and_old_keys_keep_theirs() -> None:
    world = lab(tbar(), members=2)
    world.run(1000)
    member = world.members[0]
    assert member.keys is not None
    (old,) = member.keys.teks.values()
    world.server = world.parties[KS1] = key_server(tbar(), 2, seed=1)
    member.reregister(1000)
    world.run(1100)
    assert len(member.keys.teks) == 2
    (new,) = (tek for tek in member.keys.teks.values() if tek.spi != old.spi)
    assert {old.epoch, new.epoch} == set(member.clock.clocks) and old.epoch != new.epoch
    assert member.clock.read(world.now) == pytest.approx(of_server(world)) == pytest.approx(100)
    assert member.clock.clocks[old.epoch].at(world.now) == pytest.approx(1100)  # type: ignore[index]
    world.run(3700)
    assert set(member.clock.clocks) == {new.epoch}


def test_another_window_comes_with_the_next_keys_and_goes_for_them_alone() -> None:
    world = lab(tbar(), members=2)
    world.run(100)
    for wanted in (Replay(ReplayMethod.TIME, 20), COUNTER, NO_REPLAY, TBAR):
        world.server.reconfigure(tbar(wanted))
        world.run(world.now + 10)
        before = [dict(member.keys.teks) for member in world.members if member.keys]
        world.server.rekey(LAB, world.now)
        world.run(world.now + 10)
        for member, old in zip(world.members, before, strict=True):
            assert member.keys is not None and member.keys.teks.keys() > old.keys()
            assert all(member.keys.teks[spi].replay == tek.replay for spi, tek in old.items())
            assert {tek.replay for spi, tek in member.keys.teks.items() if spi not in old} == {wanted}
        world.run(world.now + 200)
    # One clock for all of it: it went on while nobody needed it.
    assert world.members[0].clock.read(world.now) == pytest.approx(of_server(world)) == pytest.approx(world.now)


def test_a_member_that_forgets_its_policy_forgets_the_time() -> None:
    world = lab(tbar(), members=1)
    member = world.members[0]
    world.run(100)
    member.clear(100)
    assert member.clock.clocks == {} and member.clock.read(100) is None
    world.run(101)
    assert member.clock.read(world.now) == pytest.approx(of_server(world))


@pytest.mark.parametrize(("transform", "warned"), [(CBC, True), (GCM, False)], ids=str)
def test_a_third_member_that_shares_a_window_is_worth_a_word(transform: Any, warned: bool) -> None:
    configuration = replace(unicast(), sas=(SaIpsec((PERMIT,), transform, replay=COUNTER),))
    world = lab(configuration, members=4)
    assert len(world.texts(KS1, "KS_COUNTER_REPLAY")) == warned
    for member in world.members:
        member.reregister(10)
    world.settle()
    assert len(world.texts(KS1, "KS_COUNTER_REPLAY")) == warned
    assert not lab(configuration, members=2).texts(KS1, "KS_COUNTER_REPLAY")


KEY = TrafficEncryptionKey(0x1001, CBC, bytes(32), bytes(32), 3600, 3600.0, TBAR)
SAT = sa_tek(PERMIT, KEY, 10.0, 0, clock=Pseudotime(0xA1B2C3D4, 3713.00025))


def test_a_sat_tells_window_and_time() -> None:
    policy = read_policy(GdoiSa(None, None, (SAT,)), 50.0)
    assert policy.teks[0].replay.replay == TBAR
    assert policy.told == ToldTime(0xA1B2C3D4, 3723.00025, 50.0, 5)
    (said,) = (item for item in SAT.attributes if item.kind == SaAttribute.PSEUDOTIME)
    assert said.value.hex() == "a1b2c3d400000e8b000000fa"


def changed(kind: int, value: Attribute | None) -> GdoiSa:
    attributes = tuple(item for item in SAT.attributes if item.kind != kind)
    return GdoiSa(None, None, (replace(SAT, attributes=attributes + (() if value is None else (value,))),))


@pytest.mark.parametrize(
    ("sa", "error"),
    [
        (changed(SaAttribute.REPLAY_MODE, Attribute.tv(SaAttribute.REPLAY_MODE, 7)), PolicyRefused),
        (changed(SaAttribute.REPLAY_MODE, Attribute.tv(SaAttribute.REPLAY_MODE, 1)), PolicyRefused),
        (changed(SaAttribute.REPLAY_WINDOW, Attribute.tv(SaAttribute.REPLAY_WINDOW, 101)), PolicyRefused),
        (changed(SaAttribute.REPLAY_WINDOW, None), PolicyRefused),
        (changed(SaAttribute.PSEUDOTIME, None), PolicyRefused),
        (changed(SaAttribute.PSEUDOTIME, Attribute.tlv(SaAttribute.PSEUDOTIME, bytes(11))), MalformedMessage),
        (changed(SaAttribute.PSEUDOTIME, Attribute.tlv(SaAttribute.PSEUDOTIME, b"\xff" * 12)), MalformedMessage),
        (
            GdoiSa(None, None, (SAT, sa_tek(PERMIT, replace(KEY, spi=0x1002), 10.0, 1, clock=Pseudotime(1, 0.0)))),
            PolicyRefused,
        ),
    ],
    ids=["mode", "counter-5", "window-101", "no-window", "no-time", "short", "microseconds", "two-clocks"],
)
def test_a_member_takes_no_policy_that_it_cannot_follow(sa: GdoiSa, error: type[PeerError]) -> None:
    with pytest.raises(error):
        read_policy(sa, 0.0)


@pytest.mark.parametrize(
    "replay",
    [
        Replay(ReplayMethod.TIME, 0),
        Replay(ReplayMethod.TIME, 101),
        Replay(ReplayMethod.COUNTER, 65),
        Replay(ReplayMethod.NONE, 5),
    ],
    ids=str,
)
def test_no_key_server_has_a_window_that_a_router_does_not_take(replay: Replay) -> None:
    with pytest.raises(LocalError, match="anti-replay window"):
        key_server(tbar(replay))


@given(st.integers(0, 2**32 - 1), st.floats(-1e6, 1e6), st.floats(0, 2**33), st.floats(-100, 100))
def test_what_is_packed_is_read_and_found_again_where_it_has_wrapped(
    epoch: int, now: float, shows: float, behind: float
) -> None:
    clock = Pseudotime(epoch, shows - now)
    said, seconds = read_pseudotime(clock.pack(now))
    assert said == epoch
    member = Pseudotime(epoch, clock.offset - behind)
    heard = ToldTime(epoch, seconds, now, 5).near(member.offset)
    assert heard.offset - member.offset == pytest.approx(behind, abs=1e-3)
    assert IPv4Address(int(seconds) % 2**32)  # seconds fit their 32 bits


def test_multicast_rekeys_tell_the_time_as_well() -> None:
    configuration = replace(tbar(), rekey=RekeyPolicy(address=IPv4Address("239.192.1.1")))
    world, members = drifting(configuration, 50e-6, -50e-6)
    world.run(4 * 3600)
    assert all(abs(error) < 0.5 for error in errors(world, members))
    assert configuration.rekey != UNICAST and all(item.party.clock.sync.heard >= 4 for item in members)
