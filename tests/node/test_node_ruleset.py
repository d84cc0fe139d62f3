"""What a node gives its kernel to translate and mark by; nft(8), which we did not write, reads it as it is meant."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from typing import Any

import pytest
from node_requests import agent, run

from labctl.configuration import (
    AddressTranslation,
    GroupIdentity,
    GroupMembership,
    Marking,
    MarkingRule,
    MssAdjustment,
    NodeConfiguration,
    NodeKind,
    Overload,
    StaticTranslation,
)
from labctl.configuration.access_list import parse_access_list_entry
from labctl.kernel import ruleset as module
from labctl.kernel.mss import mss_ruleset
from labctl.kernel.ruleset import RulesetFailure, load_ruleset, ruleset
from labctl.node.roles import play

NAT = AddressTranslation(
    inside=("eth1",),
    outside=("eth0", "eth2"),
    statics=(
        StaticTranslation(IPv4Address("10.1.1.10"), IPv4Address("10.200.1.10")),
        StaticTranslation(IPv4Address("10.1.1.11"), IPv4Address("10.200.1.11")),
    ),
    overloads=(
        Overload(IPv4Network("10.1.1.0/25"), interface="eth0"),
        Overload(IPv4Network("10.1.1.128/25"), first=IPv4Address("10.200.9.1"), last=IPv4Address("10.200.9.6")),
    ),
)
MARKING = Marking(
    ("eth1",),
    (
        MarkingRule(parse_access_list_entry("permit udp any 10.1.2.0/24 eq 5060"), 46),
        MarkingRule(parse_access_list_entry("deny icmp any any"), 0),
        MarkingRule(parse_access_list_entry("permit ip host 10.1.1.9 any"), 26),
        MarkingRule(parse_access_list_entry("permit udp 2001:db8:1::/48 any eq 5060", ipv6=True), 24),
        MarkingRule(parse_access_list_entry("deny icmp any host 2001:db8:1::9", ipv6=True), 0),
    ),
)


def node(nat: AddressTranslation | None = None, marking: Marking | None = None) -> NodeConfiguration:
    return NodeConfiguration("ce1", NodeKind.CE, nat=nat, marking=marking)


def rules(text: str, chain: str) -> list[str]:
    """The rules of a chain, in order."""
    body = text.split(f"chain {chain} {{\n", 1)[1].split("\t}\n", 1)[0]
    return [line.strip() for line in body.splitlines()[1:]]


def test_adjustments_of_the_mss_are_exchanged_as_one_and_lower_alone() -> None:
    text = mss_ruleset([MssAdjustment("eth1", 1360), MssAdjustment("eth0", 1300)])
    wanted = rules(text, "adjust")
    assert wanted[0] == (
        'iifname "eth1" tcp flags & (syn | rst) == syn tcp option maxseg size > 1360 counter '
        "tcp option maxseg size set 1360"
    )
    assert [line.split()[:2] for line in wanted] == [
        ["iifname", '"eth1"'],
        ["oifname", '"eth1"'],
        ["iifname", '"eth0"'],
        ["oifname", '"eth0"'],
    ]
    # Without any there is an empty place, whatever was there before.
    assert mss_ruleset([]) == "table ip labctl_mss\ndelete table ip labctl_mss\n"


def test_a_node_that_neither_translates_nor_marks_has_no_ruleset() -> None:
    assert ruleset(node()) == ""
    load_ruleset("")  # and needs no program for it


def test_statics_come_before_overloads_and_work_both_ways() -> None:
    text = ruleset(node(NAT))
    assert rules(text, "outward") == [
        'oifname { "eth0", "eth2" } snat to ip saddr map { 10.1.1.10 : 10.200.1.10, 10.1.1.11 : 10.200.1.11 }',
        'oifname "eth0" ip saddr 10.1.1.0/25 masquerade',
        'oifname { "eth0", "eth2" } ip saddr 10.1.1.128/25 snat to 10.200.9.1-10.200.9.6',
    ]
    assert rules(text, "inward") == [
        'iifname { "eth0", "eth2" } dnat to ip daddr map { 10.200.1.10 : 10.1.1.10, 10.200.1.11 : 10.1.1.11 }'
    ]


def test_what_is_marked_is_marked_by_the_first_rule_that_matches() -> None:
    assert rules(ruleset(node(marking=MARKING)), "marking") == [
        'iifname "eth1" ip protocol 17 ip daddr 10.1.2.0/24 th dport 5060 ip dscp set 46 accept',
        'iifname "eth1" ip protocol 1 accept',
        'iifname "eth1" ip saddr 10.1.1.9/32 ip dscp set 26 accept',
    ]


def test_ipv6_is_marked_in_a_table_of_its_own() -> None:
    text = ruleset(node(NAT, MARKING))
    assert text.index("table ip labctl {") < text.index("chain outward") < text.index("table ip6 labctl {")
    assert rules(text[text.index("table ip6") :], "marking") == [
        'iifname "eth1" meta l4proto 17 ip6 saddr 2001:db8:1::/48 th dport 5060 ip6 dscp set 24 accept',
        'iifname "eth1" meta l4proto 58 ip6 daddr 2001:db8:1::9/128 accept',
    ]


def test_without_nft_the_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PATH", "/nonexistent")
    with pytest.raises(RulesetFailure, match="'nft': sudo apt-get install nftables"):
        load_ruleset(ruleset(node(NAT)))


def test_a_node_that_cannot_translate_fails_and_plays_no_part_in_a_group(monkeypatch: pytest.MonkeyPatch) -> None:
    """In clear, or under an address that the policy does not know, packets would leave as they must not."""
    monkeypatch.setattr(module, "_PATH", "/nonexistent")
    address = IPv4Address("127.0.0.1")
    membership = GroupMembership("G", GroupIdentity(number=1), (address,), "eth0", address)

    async def main() -> None:
        async with agent() as ce1:
            await ce1.boot(replace(node(NAT), memberships=(membership,)))
            event = await ce1.events.until(type="state", state="failed")
            assert event["reason"].endswith("sudo apt-get install nftables") and event["groups"] == []
            assert (await ce1.call("status"))["state"] == "failed"

    run(main())


def test_a_router_whose_kernel_cannot_adjust_the_mss_fails_and_a_member_does_it_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_PATH", "/nonexistent")
    asked: list[int | None] = []

    class Roles:
        """What the agent asks of the real ones."""

        def __init__(self, *_: Any) -> None:
            self.groups = self.unready = lambda: ""

        async def start(self) -> None:
            """Nothing to open."""

        async def stop(self) -> None:
            """Nothing to close."""

        def adjust_mss(self, size: int | None) -> None:
            asked.append(size)

    monkeypatch.setattr(play, "Roles", Roles)
    adjusting = replace(node(), adjust_mss=(MssAdjustment("eth1", 1360), MssAdjustment("eth2", 1300)))
    address = IPv4Address("127.0.0.1")
    membership = GroupMembership("G", GroupIdentity(number=1), (address,), "eth0", address)

    async def main() -> None:
        async with agent() as pe1:
            await pe1.boot(adjusting)
            event = await pe1.events.until(type="state", state="failed")
            assert event["reason"].endswith("sudo apt-get install nftables")
        async with agent() as ce1:
            await ce1.boot(replace(adjusting, memberships=(membership,)))
            said = await ce1.events.until(type="log", mnemonic="ADJUST_MSS")
            assert said["text"].endswith("the crypto map does it for what passes it")
            await ce1.events.until(type="state", state="ready")

    run(main())
    assert asked == [1300]


@pytest.mark.lab
def test_nft_takes_it_and_says_the_same() -> None:
    """In a network namespace of its own, which ends with the program."""
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--net", "sh", "-c", "nft -f - && nft -j list ruleset"],
        input=ruleset(node(NAT, MARKING)),
        capture_output=True,
        text=True,
        check=True,
    )
    objects: list[dict[str, Any]] = json.loads(done.stdout)["nftables"]
    hooks = {
        item["chain"]["name"]: (item["chain"]["hook"], item["chain"]["prio"]) for item in objects if "chain" in item
    }
    # Marked before its destination is translated; translated after everything else that is routed.
    assert hooks["untranslated"][1] < hooks["marking"][1] < hooks["inward"][1]
    assert hooks["outward"] == hooks["unconnected"] == ("postrouting", 100)
    said = [item["rule"] for item in objects if "rule" in item]
    assert len(said) == 3 + 2 + 1 + 3 + 4 + 3
    actions = [(rule["chain"], kind) for rule in said for item in rule["expr"] for kind in item]
    assert sorted(chain for chain, kind in actions if kind == "mangle") == [*["marking"] * 3, "unconnected"]
    assert [chain for chain, kind in actions if kind in ("snat", "masquerade", "dnat")] == ["inward", *["outward"] * 3]
    assert {chain for chain, kind in actions if kind == "notrack"} == {"untranslated"}
