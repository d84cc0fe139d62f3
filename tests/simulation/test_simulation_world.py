"""The simulator: the same seed is the same run, and a product that breaks a rule is found out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Address
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
from labctl.gdoi import group as group_module
from labctl.gdoi import group_member, key_tree, policy, timing
from labctl.gdoi.push import open_push
from labctl.simulation.designs import design
from labctl.simulation.invariants import Invariant
from labctl.simulation.run import Result, simulate
from labctl.simulation.scenario import HOUR, Faults, NetworkConditions, Order, OrderKind, Rate, Scenario

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
    result = simulate(scenario, 1)
    assert result.violations == () and result.registered == 4
    assert result.counts.registrations == 4
    # 3600 s less 10 % less the copies, and the KEK once.
    assert 26 <= result.rekeys_sent <= 29
    assert result.counts.rekeys_taken == 4 * result.rekeys_sent
    elsewhere = (Invariant.EVICTED, Invariant.STAYED)
    assert all(result.checks[item] for item in Invariant if item not in elsewhere)


def test_without_rekeys_members_register_again_every_hour() -> None:
    result = simulate(replace(SCENARIO, group=replace(GROUP, rekey=RekeyPolicy())), 1)
    assert result.violations == () and result.rekeys_sent == 0
    assert result.counts.registrations >= 4 * 24


def test_the_same_seed_is_the_same_run_and_another_seed_is_another() -> None:
    runs = [simulate(design(seed, duration=100 * HOUR), seed, routine=True) for seed in (3, 3, 4)]
    assert runs[0].lines == runs[1].lines and runs[0].counts == runs[1].counts and runs[0].network == runs[1].network
    assert runs[0].lines != runs[2].lines


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


@pytest.mark.parametrize(
    ("place", "name", "fault", "scenario", "invariant"),
    [
        (policy.PolicyRule, "sending", youngest_at_once, SCENARIO, Invariant.DECRYPT),
        (policy.PolicyRule, "sending", oldest_for_ever, SCENARIO, Invariant.LIFE),
        (group_module.Group, "take_sender_ids", everybody_the_same, SCENARIO, Invariant.NONCE),
        (group_module.Group, "authorizes", everybody, EVICTION, Invariant.EVICTED),
        (timing.Timing, "pause_after", never_again, CUT, Invariant.REGISTERED),
        (group_member, "open_push", with_an_old_number, REPLAYS, Invariant.REPLAY),
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
    monkeypatch.setattr(place, name, fault)
    assert invariant in broken(simulate(scenario, 2))


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
    assert broken(result) == {Invariant.EVICTED}
