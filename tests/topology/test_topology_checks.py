"""Checks: those a topology states, and those it implies."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from labctl.topology import load, read
from labctl.topology.checks import CheckKind, CheckSpec
from labctl.topology.derived import matrices
from labctl.topology.plan import Plan
from labctl.topology.planner import plan

Planned = Callable[[str], Plan]


@pytest.fixture
def planned() -> Planned:
    """Plans a topology text."""
    return lambda text: plan(read(text))


@pytest.fixture(scope="module")
def basic() -> Plan:
    return plan(load(Path(__file__).resolve().parents[2] / "topologies/getvpn-basic.yml"))


SITES = """
name: sites
nodes: {ks1: ks, pe1: pe, pe2: pe, ce1: ce, ce2: ce, ce3: ce, h1: host, h2: host, h3: host, h4: host}
links:
  - pe1 -- pe2
  - ks1 -- pe1
  - ce1 -- pe1
  - ce2 -- pe2
  - ce3 -- pe2
  - h1 -- ce1
  - h2 -- ce2
  - h3 -- ce3
  - h4 -- ce3
groups:
  G:
    identity: 1
    key-servers: [ks1]
    members: [ce1, ce2]
    policy: [POLICY]
"""


def of_kind(made: Plan, kind: CheckKind) -> list[CheckSpec]:
    return [check for check in made.checks if check.kind is kind]


def pairs(checks: list[CheckSpec]) -> set[tuple[str, str]]:
    return {
        (source, destination)
        for check in checks
        for source in check.sources
        for destination in check.destinations
        if source != destination
    }


def test_without_checks_the_sensible_ones_are_derived(basic: Plan) -> None:
    assert [check.name for check in basic.checks] == [
        "reachable: any",
        "registered: GETVPN_LAB",
        "encrypted: h1 -> h2",
        "encrypted: h2 -> h3",
        "encrypted: h3 -> h1",
        "no-plain-text: any",
    ]
    encrypted = of_kind(basic, CheckKind.ENCRYPTED)[0]
    assert encrypted.links == (
        "ce1:eth0--pe1:eth2",
        "pe1:eth0--p1:eth0",
        "pe2:eth0--p1:eth1",
        "ce2:eth0--pe2:eth1",
    ), "every link of the provider on the way"
    assert encrypted.dscp == 46
    watched = of_kind(basic, CheckKind.NO_PLAIN_TEXT)[0].links
    assert len(watched) == 7 and not any(link.startswith("h") for link in watched)


def test_a_network_without_a_group_is_only_reachable(planned: Planned) -> None:
    made = planned(SITES[: SITES.index("groups:")])
    assert {check.kind for check in made.checks} == {CheckKind.REACHABLE}
    assert len(pairs(list(made.checks))) == 12


def test_a_policy_that_covers_a_site_outside_the_group_cuts_it_off(planned: Planned) -> None:
    made = planned(SITES.replace("POLICY", "permit ip 10.1.0.0/16 10.1.0.0/16"))
    hosts_behind_members = {("h1", "h2"), ("h2", "h1")}
    outside = {("h3", "h4"), ("h4", "h3")}
    assert pairs(of_kind(made, CheckKind.REACHABLE)) == hosts_behind_members | outside
    assert len(pairs(of_kind(made, CheckKind.BLOCKED))) == 8
    assert pairs(of_kind(made, CheckKind.NO_PLAIN_TEXT)) == hosts_behind_members


def test_what_the_policy_leaves_out_stays_reachable_in_clear(planned: Planned) -> None:
    made = planned(SITES.replace("POLICY", "permit ip 10.1.1.0/24 10.1.2.0/24, permit ip 10.1.2.0/24 10.1.1.0/24"))
    assert len(pairs(of_kind(made, CheckKind.REACHABLE))) == 12
    assert of_kind(made, CheckKind.BLOCKED) == []
    assert pairs(of_kind(made, CheckKind.ENCRYPTED)) == {("h1", "h2"), ("h2", "h1")}


def test_a_policy_for_one_direction_cuts_the_flow(planned: Planned) -> None:
    made = planned(SITES.replace("POLICY", "permit ip 10.1.1.0/24 10.1.2.0/24"))
    assert ("h1", "h2") in pairs(of_kind(made, CheckKind.BLOCKED)), "h2's answer leaves in clear, and ce1 drops it"


def test_a_policy_that_spares_ping_is_not_proved_by_ping(planned: Planned) -> None:
    made = planned(SITES.replace("POLICY", "permit tcp any any"))
    assert of_kind(made, CheckKind.ENCRYPTED) == []
    assert len(pairs(of_kind(made, CheckKind.REACHABLE))) == 12


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("{reachable: any}", {(a, b) for a in ("h1", "h2", "h3", "h4") for b in ("h1", "h2", "h3", "h4") if a != b}),
        ("{reachable: h1 -> h2}", {("h1", "h2")}),
        ("{reachable: h1 <-> h2}", {("h1", "h2"), ("h2", "h1")}),
        ("{blocked: 'h1, h2 -> h3'}", {("h1", "h3"), ("h2", "h3")}),
        ("{blocked: 'h1, h2 <-> h3'}", {("h1", "h3"), ("h2", "h3"), ("h3", "h1"), ("h3", "h2")}),
        ("{loss: any -> h1, at-most: 1}", {("h2", "h1"), ("h3", "h1"), ("h4", "h1")}),
        ("{reachable: pe1 -> ce1}", {("pe1", "ce1")}),
        ("{no-plain-text: any}", {(a, b) for a in "1234" for b in "1234" if a != b and {a, b} != {"3", "4"}}),
    ],
)
def test_a_flow_means_these_pairs(planned: Planned, statement: str, expected: set[tuple[str, str]]) -> None:
    made = planned(SITES.replace("POLICY", "permit ip any any") + f"checks:\n  - {statement}\n")
    wanted = {
        (f"h{one}" if one.isdigit() else one, f"h{other}" if other.isdigit() else other) for one, other in expected
    }
    assert pairs(list(made.checks)) == wanted


def test_links_to_watch_are_named_as_in_links(planned: Planned) -> None:
    made = planned(
        SITES.replace("POLICY", "permit ip any any")
        + "checks:\n  - {encrypted: h1 -> h2, links: [pe2 -- pe1, 'ce1:eth0 -- pe1'], dscp: 10, count: 7, name: mine}\n"
    )
    (check,) = made.checks
    assert check == CheckSpec(
        "mine", CheckKind.ENCRYPTED, ("h1",), ("h2",), ("pe1:eth0--pe2:eth0", "ce1:eth0--pe1:eth2"), count=7, dscp=10
    )


def test_no_checks_at_all_can_be_said(planned: Planned) -> None:
    assert planned(SITES.replace("POLICY", "permit ip any any") + "checks: []\n").checks == ()


def test_checks_have_names_of_their_own(planned: Planned) -> None:
    made = planned(
        SITES.replace("POLICY", "permit ip any any")
        + "checks: [{reachable: any}, {reachable: any}, {encrypted: h1 <-> h2}, {blocked: 'h1, h2 <-> h3, h4'}]\n"
    )
    names = [check.name for check in made.checks]
    assert len(set(names)) == len(names)


def test_matrices_stand_for_exactly_their_pairs() -> None:
    wanted = [("a", "b"), ("b", "a"), ("a", "c"), ("c", "a"), ("c", "d")]
    found = [
        (source, destination)
        for sources, destinations in matrices(wanted)
        for source in sources
        for destination in destinations
        if source != destination
    ]
    assert sorted(found) == sorted(wanted)
