"""Checks prove what is so, refute what is not, and admit what they could not see."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from checks_lab import TOPOLOGIES, TWO_SITES, Bench

from labctl.checks import UnknownCheck, Verdict
from labctl.checks.gather import TIMED_AT_ONCE

MakeBench = Callable[[str], Bench]


@pytest.fixture
def bench() -> MakeBench:
    """A bench for two-sites with these `checks:` lines."""
    return lambda checks: Bench(f"{TWO_SITES}checks:\n{checks}")


@pytest.fixture
def basic() -> Bench:
    """A bench for getvpn-basic and the checks that it implies."""
    return Bench((TOPOLOGIES / "getvpn-basic.yml").read_text())


REACHABLE = "  - reachable: h1 <-> h2\n"
ENCRYPTED = "  - {encrypted: h1 -> h2, dscp: 46}\n"
NO_PLAIN_TEXT = "  - no-plain-text: h1 <-> h2\n"


def test_a_lab_that_does_what_it_says_passes_everything(basic: Bench) -> None:
    results = basic.run()
    assert {result.verdict for result in results} == {Verdict.PASSED}, [result.reason for result in results]
    assert results[0].name == "reachable: any"
    assert len(results) == 6


def test_a_label_switched_provider_passes_as_well(basic: Bench) -> None:
    basic.lab.labels = 2
    assert all(result.passed for result in basic.run())


def test_reachable_counts_its_pairs(bench: MakeBench) -> None:
    result = bench(REACHABLE).one()
    assert result.passed
    assert result.reason == "2 pairs answered"
    assert result.details == ("h1 -> h2: 3 of 3 answered", "h2 -> h1: 3 of 3 answered")


def test_an_unreachable_pair_is_named_with_what_came_back(bench: MakeBench) -> None:
    made = bench(REACHABLE)
    made.lab.lost = {("h2", "h1")}
    result = made.one()
    assert result.verdict is Verdict.FAILED
    assert result.reason == "h2 -> h1: no answer to 3 echoes (timeout 3)"
    assert "h1 -> h2: 3 of 3 answered" in result.details


def test_a_node_that_is_gone_leaves_a_check_inconclusive(bench: MakeBench) -> None:
    made = bench(REACHABLE)
    made.lab.broken = {"h1"}
    result = made.one()
    assert result.verdict is Verdict.INCONCLUSIVE
    assert result.reason == "h1 -> h2 could not be tried: node h1 is not running"
    assert not result.passed


def test_of_many_failures_the_reason_names_three(basic: Bench) -> None:
    hosts = ("h1", "h2", "h3")
    basic.lab.lost = {(one, other) for one in hosts for other in hosts if one != other}
    result = basic.one("reachable")
    assert result.reason.endswith("; and 3 more")
    assert len(result.details) == 6


def test_blocked_holds_only_if_nothing_answers(bench: MakeBench) -> None:
    made = bench("  - blocked: h1 -> h2\n")
    refuted = made.one()
    assert refuted.verdict is Verdict.FAILED
    assert refuted.reason == "h1 -> h2: 3 of 3 echoes answered"
    made.lab.lost = {("h1", "h2")}
    assert made.one().passed


def test_blocked_is_not_proved_by_a_node_that_cannot_send(bench: MakeBench) -> None:
    made = bench("  - blocked: h1 -> h2\n")
    made.lab.broken = {"h1"}
    assert made.one().verdict is Verdict.INCONCLUSIVE


def test_registered_names_the_member_and_its_reason(bench: MakeBench) -> None:
    made = bench("  - registered: GETVPN_LAB\n")
    assert made.one().passed
    made.lab.states = {"ce2": {"state": "registering", "reason": "172.16.1.2 does not answer"}}
    result = made.one()
    assert result.verdict is Verdict.FAILED
    assert result.reason == "ce2 is registering: 172.16.1.2 does not answer"
    made.lab.states = {"ce2": {"name": "OTHER"}}
    assert made.one().reason == "ce2 knows no group GETVPN_LAB"


def test_encrypted_sees_esp_with_the_flows_own_addresses_and_dscp(bench: MakeBench) -> None:
    result = bench(ENCRYPTED).one()
    assert result.passed
    assert result.reason == "ESP with its own addresses and DSCP 46 on 2 links"
    assert result.details[0] == "ce1:eth0--pe1:eth1: 3 ESP packets 10.1.1.10 -> 10.1.2.10, DSCP 46"


def test_encrypted_is_refuted_by_the_flow_in_clear(bench: MakeBench) -> None:
    made = bench(ENCRYPTED)
    made.lab.clear = {("h1", "h2")}
    result = made.one()
    assert result.verdict is Verdict.FAILED
    assert "ce1:eth0--pe1:eth1: 3 packets in clear (10.1.1.10 -> 10.1.2.10 icmp)" in result.reason


def test_encrypted_is_refuted_by_new_addresses(bench: MakeBench) -> None:
    made = bench(ENCRYPTED)
    made.lab.keep_addresses = False
    result = made.one()
    assert result.verdict is Verdict.FAILED
    assert "nothing of 10.1.1.10 -> 10.1.2.10 was seen; ESP is seen only 172.16.2.2 -> 172.16.3.2" in result.reason


def test_encrypted_is_refuted_by_a_lost_dscp(bench: MakeBench) -> None:
    made = bench(ENCRYPTED)
    made.lab.keep_dscp = False
    result = made.one()
    assert result.verdict is Verdict.FAILED
    assert "has DSCP 0, not 46" in result.reason


def test_encrypted_is_refuted_where_nothing_passes(bench: MakeBench) -> None:
    made = bench(ENCRYPTED)
    made.lab.nowhere = {("h1", "h2")}
    result = made.one()
    assert result.verdict is Verdict.FAILED
    assert "nothing of 10.1.1.10 -> 10.1.2.10 was seen" in result.reason


def test_no_plain_text_passes_only_with_a_detector_that_works(bench: MakeBench) -> None:
    result = bench(NO_PLAIN_TEXT).one()
    assert result.passed
    assert result.reason == "no payload of 2 flows on 3 links"
    assert "h1 -> h2: in clear at h1:eth0, passed 3 watched links" in result.details


def test_no_plain_text_is_refuted_by_a_payload_that_shows(bench: MakeBench) -> None:
    made = bench(NO_PLAIN_TEXT)
    made.lab.clear = {("h2", "h1")}
    result = made.one()
    assert result.verdict is Verdict.FAILED
    assert "payload of h2 -> h1 in 3 packets (10.1.2.10 -> 10.1.1.10 icmp)" in result.reason
    assert "h1 -> h2 in" not in result.reason


def test_no_plain_text_is_refuted_behind_labels_too(bench: MakeBench) -> None:
    made = bench(NO_PLAIN_TEXT)
    made.lab.clear = {("h2", "h1")}
    made.lab.labels = 3
    assert made.one().verdict is Verdict.FAILED


def test_a_detector_that_is_blind_proves_nothing(bench: MakeBench) -> None:
    made = bench(NO_PLAIN_TEXT)
    made.lab.deaf = {"h1"}
    result = made.one()
    assert result.verdict is Verdict.INCONCLUSIVE
    assert result.reason == (
        "h1 -> h2: the payload was looked for at h1:eth0, but it was not seen where it must be in clear"
    )


def test_links_on_which_nothing_passes_prove_nothing(bench: MakeBench) -> None:
    made = bench(NO_PLAIN_TEXT)
    made.lab.deaf = {"pe1"}
    result = made.one()
    assert result.verdict is Verdict.INCONCLUSIVE
    assert "h1 -> h2: nothing of the flow passed the watched links" in result.reason


def test_a_capture_that_loses_packets_proves_nothing(bench: MakeBench) -> None:
    made = bench(NO_PLAIN_TEXT)
    made.lab.dropping = 4
    result = made.one()
    assert result.verdict is Verdict.INCONCLUSIVE
    assert "lost 4 packets" in result.reason


def test_a_capture_that_fails_says_why(bench: MakeBench) -> None:
    made = bench(ENCRYPTED)
    made.lab.broken = {"pe1"}
    result = made.one()
    assert result.verdict is Verdict.INCONCLUSIVE
    assert "the capture at pe1:eth1 failed: node pe1 is not running" in result.reason


@pytest.mark.parametrize(
    ("rtts", "bound", "verdict"),
    [((1.0,), 5, Verdict.PASSED), ((1.0,) * 19 + (80.0,), 5, Verdict.PASSED), ((1.0, 80.0), 5, Verdict.FAILED)],
)
def test_latency_judges_the_95th_percentile(
    bench: MakeBench, rtts: tuple[float, ...], bound: float, verdict: Verdict
) -> None:
    made = bench(f"  - {{latency: h1 -> h2, at-most: {bound}, count: 20}}\n")
    made.lab.rtts_ms = rtts
    result = made.one()
    assert result.verdict is verdict
    assert "95th percentile" in result.reason and "bound 5 ms" in result.reason


@pytest.mark.parametrize(("answered", "verdict"), [(20, Verdict.PASSED), (19, Verdict.PASSED), (18, Verdict.FAILED)])
def test_loss_is_a_share_of_what_was_sent(bench: MakeBench, answered: int, verdict: Verdict) -> None:
    made = bench("  - {loss: h1 -> h2, at-most: 5, count: 20}\n")
    made.lab.answered = answered
    result = made.one()
    assert result.verdict is verdict
    assert (result.verdict is Verdict.PASSED) or result.reason == (
        "h1 -> h2: 2 of 20 lost, 10.0 %, bound 5 % (timeout 2)"
    )


def test_echoes_are_sent_at_the_same_time(basic: Bench) -> None:
    basic.run("reachable")
    assert basic.lab.most_running == 6


def test_timed_echoes_do_not_crowd_each_other(bench: MakeBench) -> None:
    made = bench(
        "".join(f"  - {{latency: h1 <-> h2, at-most: 50, name: run {number}, dscp: {number}}}\n" for number in range(6))
    )
    made.run()
    assert made.lab.most_running == TIMED_AT_ONCE


def test_equal_echoes_of_two_checks_are_sent_once(bench: MakeBench) -> None:
    made = bench("  - reachable: h1 -> h2\n  - reachable: h1 -> h2\n")
    assert [result.verdict for result in made.run()] == [Verdict.PASSED] * 2
    assert made.lab.asked.count(("h1", "probe")) == 1


def test_only_the_selected_checks_run(basic: Bench) -> None:
    assert [result.name for result in basic.run("registered", "encrypted: h1 -> h2")] == [
        "registered: GETVPN_LAB",
        "encrypted: h1 -> h2",
    ]
    assert ("h1", "probe") in basic.lab.asked and ("h3", "probe") not in basic.lab.asked


def test_a_check_that_is_not_there_is_refused_before_anything_is_sent(basic: Bench) -> None:
    with pytest.raises(UnknownCheck) as caught:
        basic.run("encryptd")
    assert caught.value.hint == "did you mean 'encrypted'?"
    assert basic.lab.asked == []


def test_every_run_takes_new_markers(bench: MakeBench) -> None:
    made = bench(NO_PLAIN_TEXT)
    made.run()
    made.lab.deaf = {"h1"}
    assert made.one().verdict is Verdict.INCONCLUSIVE, "the marker of the first run must not prove the second"
