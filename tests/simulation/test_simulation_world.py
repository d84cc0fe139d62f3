"""The simulator: the same seed is the same run, and a product that breaks a rule is found out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Network
from typing import Any

import pytest

from labctl.configuration import (
    AccessListEntry,
    Action,
    Cipher,
    DhGroup,
    GroupIdentity,
    IsakmpPolicy,
    KeyServerGroup,
    RekeyPolicy,
    RekeyTransport,
    SaIpsec,
    TransformSet,
)
from labctl.esp import CryptoPolicy, Verdict
from labctl.esp.policy import VerdictAction
from labctl.gdoi import group as group_module
from labctl.gdoi import group_member, key_tree, member_registration, member_rekey, policy, timing
from labctl.gdoi.push import open_push
from labctl.simulation import crossing, sharing
from labctl.simulation.designs import design
from labctl.simulation.invariants import Invariant
from labctl.simulation.run import Result, simulate
from labctl.simulation.scenario import HOUR, Faults, MemberTraits, NetworkConditions, Order, OrderKind, Rate, Scenario

ENTRY = AccessListEntry(Action.PERMIT, 0, design(0).group.policy[0].source, design(0).group.policy[0].destination)
UNICAST = RekeyPolicy(transport=RekeyTransport.UNICAST)
GROUP = KeyServerGroup(
    "G",
    GroupIdentity(number=1),
    IPv4Address("172.16.0.1"),
    (SaIpsec((ENTRY,), TransformSet(Cipher.AES_GCM, 256)),),
    rekey=UNICAST,
)
SCENARIO = Scenario(
    "test", GROUP, (IsakmpPolicy(group=DhGroup.ECP256),), members=4, duration=24 * HOUR, network=NetworkConditions()
)
MULTICAST = replace(SCENARIO, group=replace(GROUP, rekey=RekeyPolicy(address=IPv4Address("239.192.0.1"))))


def broken(result: Result) -> set[Invariant]:
    return {violation.invariant for violation in result.violations}


@pytest.mark.parametrize("scenario", [SCENARIO, MULTICAST], ids=["unicast", "multicast"])
def test_a_quiet_day_has_a_rekey_an_hour_and_nobody_registers_twice(scenario: Scenario) -> None:
    result = simulate(replace(scenario, traits=(MemberTraits(fail_close=True),)), 1)
    assert result.violations == () and result.registered == 4
    assert result.counts.registrations == 4
    # 3600 s less 10 % less the copies, and the KEK once.
    assert 26 <= result.rekeys_sent <= 29
    assert result.counts.rekeys_taken == 4 * result.rekeys_sent
    elsewhere = (Invariant.EVICTED, Invariant.EXCLUDED, Invariant.STAYED)
    assert all(result.checks[item] for item in Invariant if item not in elsewhere)


SITES6 = IPv6Network("2001:db8:1::/48")
IPV6 = replace(
    SCENARIO,
    group=replace(
        GROUP,
        ipv6=True,
        sas=tuple(replace(sa, policy=(AccessListEntry(Action.PERMIT, 0, SITES6, SITES6),)) for sa in GROUP.sas),
    ),
    traits=(MemberTraits(fail_close=True),),
)


def test_an_ipv6_group_lives_as_any_other_and_its_packets_are_watched() -> None:
    result = simulate(IPV6, 1)
    assert result.violations == () and result.registered == 4 and result.rekeys_sent >= 24
    assert result.checks[Invariant.CLEAR] and result.checks[Invariant.FAIL_CLOSE]
    packet = crossing.protected_packet(IPV6.group.policy)
    assert packet is not None and packet[0] >> 4 == 6 and len(packet) == 60


def test_without_rekeys_members_register_again_every_hour() -> None:
    result = simulate(replace(SCENARIO, group=replace(GROUP, rekey=RekeyPolicy())), 1)
    assert result.violations == () and result.rekeys_sent == 0
    assert result.counts.registrations >= 4 * 24


def test_the_same_seed_is_the_same_run_and_another_seed_is_another() -> None:
    runs = [simulate(design(seed, duration=100 * HOUR), seed, routine=True) for seed in (3, 3, 4)]
    assert runs[0].lines == runs[1].lines and runs[0].counts == runs[1].counts and runs[0].network == runs[1].network
    assert runs[0].lines != runs[2].lines


@pytest.mark.parametrize("seed", [3, 4, 14])
def test_members_that_share_the_work_of_opening_rekeys_see_the_same_month(seed: int) -> None:
    scenario = design(seed, duration=100 * HOUR)
    shared, alone = (simulate(scenario, seed, routine=True, lines=10**6, sharing=share) for share in (True, False))
    assert shared.lines == alone.lines and shared.checks == alone.checks
    assert (shared.counts, shared.network, shared.violations) == (alone.counts, alone.network, alone.violations)
    assert shared.counts.rekeys_taken > 0


def test_orders_cuts_and_crashes_happen_at_their_time() -> None:
    orders = (
        Order(2 * HOUR, OrderKind.CUT, "m1", 3 * HOUR),
        Order(6 * HOUR, OrderKind.RESTART, "m2", 60.0),
        Order(8 * HOUR, OrderKind.EVICT, "m3"),
        Order(10 * HOUR, OrderKind.ALLOW, "m3"),
        Order(12 * HOUR, OrderKind.RESTART, "ks1", 600.0),
        Order(16 * HOUR, OrderKind.CLEAR_MEMBERS_NOW, "ks1"),
        Order(18 * HOUR, OrderKind.REPLACE_NOW, "ks1"),
        Order(20 * HOUR, OrderKind.CLEAR, "m4"),
    )
    result = simulate(replace(SCENARIO, orders=orders), 5)
    assert result.violations == () and result.registered == 4
    said = [(line.at, line.party, line.text) for line in result.lines]
    assert (2 * HOUR, "network", "m1 cut off for 10800 s") in said and (5 * HOUR, "network", "m1 back") in said
    assert (6 * HOUR, "m2", "crashes, for 60 s") in said and (6 * HOUR + 60, "m2", "boots") in said
    assert result.messages["KS_GM_REVOKED"] > 0 and result.messages["GM_RECV_DELETE_IMMEDIATE"] == 4
    assert result.checks[Invariant.EVICTED] > 0
    assert result.counts.seconds_without_keys > HOUR, "m1 was cut off for longer than its key lived"


def test_what_the_network_loses_is_counted_and_made_up_for() -> None:
    network = NetworkConditions(delay=0.1, jitter=0.05, loss=0.2, duplication=0.1, reordering=0.1)
    result = simulate(replace(SCENARIO, network=network), 9)
    assert result.violations == () and result.registered == 4
    counts = result.network
    assert counts.lost > 0 and counts.duplicated > 0
    assert counts.delivered == counts.sent - counts.lost - counts.cut + counts.duplicated


def test_a_thousand_members_share_one_multicast_rekey() -> None:
    result = simulate(replace(MULTICAST, members=1000, duration=2 * HOUR), 1)
    assert result.violations == () and result.registered == 1000
    assert result.counts.rekeys_taken == 1000 * result.rekeys_sent > 0


def test_a_changed_policy_reaches_every_member_with_the_next_rekey() -> None:
    orders = (
        Order(2 * HOUR, OrderKind.RECEIVE_ONLY, "ks1"),
        Order(8 * HOUR, OrderKind.BOTH_WAYS, "ks1"),
        Order(12 * HOUR, OrderKind.TEK_LIFETIME, "ks1", 1800.0),
    )
    result = simulate(replace(SCENARIO, orders=orders, traits=(MemberTraits(fail_close=True), MemberTraits())), 3)
    assert result.violations == () and result.counts.registrations == 4
    assert result.messages["GM_SA_INGRESS"] == result.messages["GM_CONV_SA_DUPLEX"] == 4
    assert result.rekeys_sent > simulate(SCENARIO, 3).rekeys_sent + 8, "keys that live half as long"


def test_groups_of_one_key_server_live_side_by_side() -> None:
    result = simulate(replace(MULTICAST, groups=2, members=6), 4)
    assert result.violations == () and result.registered == 6
    assert result.messages["KS_FIRST_GM"] == 2
    assert result.counts.rekeys_taken == 3 * result.rekeys_sent > 100


def test_a_member_registers_with_the_second_key_server_while_the_first_is_down() -> None:
    orders = (Order(2 * HOUR, OrderKind.RESTART, "ks1", 12 * HOUR),)
    result = simulate(replace(SCENARIO, key_servers=2, orders=orders), 6)
    assert result.violations == () and result.registered == 4
    # Since its keys of the first one end, and it tries that one first.
    assert result.messages["GM_CONN_NEXT_SER"] >= 4 and result.counts.keys_lost == 0


def test_a_member_that_hears_a_key_it_does_not_have_recovers_at_once_where_it_may() -> None:
    orders = (Order(2 * HOUR, OrderKind.CUT, "m1", 60.0), Order(2 * HOUR + 5, OrderKind.REPLACE_NOW, "ks1"))
    deaf, recovering = (
        simulate(replace(SCENARIO, orders=orders, traits=(MemberTraits(recovery_check=check),)), 7)
        for check in (None, 300)
    )
    assert deaf.violations == recovering.violations == ()
    assert deaf.messages["GM_RECOVERY_REGISTRATION"] == 0 < recovering.messages["GM_RECOVERY_REGISTRATION"]


def test_an_evicted_member_reads_nobody_after_a_keys_life() -> None:
    result = simulate(replace(SCENARIO, orders=(Order(2 * HOUR, OrderKind.EVICT, "m1"),)), 8)
    assert result.violations == () and result.checks[Invariant.EXCLUDED] > 0


# Each of these is a fault of the product that somebody could make, and the invariant that it breaks.


def youngest_at_once(self: Any, *_: Any) -> int:
    return int(self.spis[-1])


def oldest_for_ever(self: Any, *_: Any) -> int:
    return int(self.spis[0])


def everybody_the_same(self: Any, count: int) -> tuple[int, ...]:
    return tuple(range(count))


def everybody(self: Any, address: IPv4Address) -> bool:
    return True


def never_again(self: Any, rounds: int) -> float:
    return 1e9


def with_an_old_number(data: bytes, kek: Any, *rest: Any, **named: Any) -> Any:
    return ORIGINAL_OPEN(data, replace(kek, sequence=0), *rest, **named)


ORIGINAL_OPEN = open_push
EVICTION = replace(SCENARIO, orders=(Order(2 * HOUR, OrderKind.EVICT, "m1"),))
CUT = replace(SCENARIO, orders=(Order(2 * HOUR, OrderKind.CUT, "m1", 2 * HOUR),))
REPLAYS = replace(MULTICAST, faults=Faults(replays=Rate(100.0)))
LOSSES = replace(REPLAYS, network=NetworkConditions(loss=0.3))
CLOSED = replace(SCENARIO, traits=(MemberTraits(fail_close=True),))
FAIL_OVER = replace(SCENARIO, key_servers=2, orders=(Order(2 * HOUR, OrderKind.RESTART, "ks1", 12 * HOUR),))


def nothing_changes(self: Any, *_: Any, **__: Any) -> Any:
    return group_module.Change()


def never_old(*_: Any) -> float:
    return 0.0


def always_the_first(self: Any, *rest: Any) -> Any:
    self._index = -1
    return ORIGINAL_FAILED(self, *rest)


def open_to_all(self: Any, packet: Any) -> Verdict:
    return Verdict(VerdictAction.CLEAR, (packet,))


ORIGINAL_FAILED = member_registration.MemberRegistration._failed


@pytest.mark.parametrize(
    ("place", "name", "fault", "scenario", "invariant"),
    [
        (policy.PolicyRule, "sending", youngest_at_once, SCENARIO, Invariant.DECRYPT),
        (policy.PolicyRule, "sending", oldest_for_ever, SCENARIO, Invariant.LIFE),
        (group_module.Group, "take_sender_ids", everybody_the_same, SCENARIO, Invariant.NONCE),
        (group_module.Group, "authorizes", everybody, EVICTION, Invariant.EVICTED),
        (timing.Timing, "pause_after", never_again, CUT, Invariant.REGISTERED),
        (sharing, "open_push", with_an_old_number, REPLAYS, Invariant.REPLAY),
        (member_rekey, "age_of", never_old, LOSSES, Invariant.LENGTH),
        (group_module.Group, "exclude", nothing_changes, EVICTION, Invariant.EXCLUDED),
        (member_registration.MemberRegistration, "_failed", always_the_first, FAIL_OVER, Invariant.REGISTERED),
        (CryptoPolicy, "_unmatched", open_to_all, CLOSED, Invariant.FAIL_CLOSE),
    ],
)
def test_a_product_that_breaks_a_rule_is_found_out(
    place: object,
    name: str,
    fault: Callable[..., Any],
    scenario: Scenario,
    invariant: Invariant,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert invariant not in broken(simulate(scenario, 2))
    crossing.forget()
    monkeypatch.setattr(place, name, fault)
    try:
        assert invariant in broken(simulate(scenario, 2))
    finally:
        crossing.forget()


def test_a_member_that_forgets_its_policy_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group_member.GroupMember, "_miss_rekey", group_member.GroupMember._forget_policy)
    assert Invariant.CLEAR in broken(simulate(CUT, 2))


TREES = [
    replace(scenario, group=replace(scenario.group, rekey=replace(scenario.group.rekey, key_tree=True)))
    for scenario in (SCENARIO, MULTICAST)
]
EVICTIONS = tuple(
    Order(hour * HOUR, kind, name)
    for hour, kind, name in (
        (2.1, OrderKind.EVICT, "m1"),
        (5.2, OrderKind.EVICT, "m2"),
        (8.3, OrderKind.ALLOW, "m1"),
        (11.4, OrderKind.EVICT, "m3"),
    )
)


@pytest.mark.parametrize("scenario", TREES, ids=["unicast", "multicast"])
def test_evictions_from_a_key_tree_make_nobody_else_register(scenario: Scenario) -> None:
    result = simulate(replace(scenario, orders=EVICTIONS), 1)
    assert result.violations == ()
    # The four first registrations, and m1's when it was let in again.
    assert result.counts.registrations == 5 and result.counts.again <= {"m1"}
    assert result.messages["KS_GM_REVOKED"] > 0


@pytest.mark.parametrize("scenario", TREES, ids=["unicast", "multicast"])
def test_a_key_tree_through_bad_months(scenario: Scenario) -> None:
    bad = replace(
        scenario,
        members=6,
        duration=60 * HOUR,
        network=NetworkConditions(loss=0.05, duplication=0.05, reordering=0.1, jitter=0.1),
        faults=Faults(
            Rate(1.0, 1.0, 6 * HOUR), Rate(1.0, 1.0, HOUR), Rate(0.2, 1.0, HOUR), Rate(12.0, 60.0, HOUR), Rate(6.0)
        ),
    )
    result = simulate(bad, 1)
    assert result.violations == ()
    assert result.checks[Invariant.STAYED] > 0


def test_an_eviction_that_calls_everybody_back_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key server that has a tree and does not use it."""

    def everybody(self: Any, addresses: Any, now: float, *, immediate: bool = False) -> Any:
        return self.clear_members(now, immediate=immediate)

    monkeypatch.setattr(group_module.Group, "exclude", everybody)
    result = simulate(replace(TREES[0], orders=EVICTIONS[:1]), 1)
    assert broken(result) == {Invariant.STAYED}


def test_a_tree_whose_keys_do_not_change_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key server that evicts and goes on with the path of before, which the evicted has too."""

    def unchanged(self: Any, members: Any) -> Any:
        return key_tree.Update({self.leaf(member): key_tree.Cover(self.path(member)[0], ()) for member in self.members})

    monkeypatch.setattr(key_tree.KeyTree, "exclude", unchanged)
    result = simulate(replace(TREES[1], orders=EVICTIONS[:1]), 1)
    assert broken(result) == {Invariant.EVICTED, Invariant.EXCLUDED}
