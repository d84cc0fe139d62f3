"""Links that misbehave in real labs, on each runtime: as the topology says, and live, without a node that notices."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from lab_command import Labctl
from lab_group import until

pytestmark = pytest.mark.lab

TOPOLOGY = """\
name: impair
nodes: {{p1: p, pe1: pe, pe2: pe, ks1: ks, ce1: ce, ce2: ce, sw: switch, h1: host, h2: host, h3: host}}
links:
  - {{ends: [pe1, p1], impair: {{delay: {delay}}}}}
  - pe2 -- p1
  - ks1 -- pe1
  - ce1 -- pe1
  - ce2 -- pe2
  - ce1 -- sw
  - h1 -- sw
  - h3 -- sw
  - h2 -- ce2
groups:
  LAB:
    identity: 1234
    key-servers: [ks1]
    members: [ce1, ce2]
    policy: [permit ip 10.1.0.0/16 10.1.0.0/16]
    rekey: {{transport: {transport}}}
"""


@pytest.fixture
def lab(machine: Labctl) -> Iterator[Labctl]:
    yield machine
    machine("impair", "--clear", status=None)


def start(machine: Labctl, delay: str = "30 ms", transport: str = "unicast") -> None:
    """The lab, without a live impairment; the one that is up, if it is the same."""
    text = TOPOLOGY.format(delay=delay, transport=transport)
    file = machine.folder / "topology.yml"
    if not file.exists() or file.read_text() != text:
        machine("down", "--all")
        file.write_text(text)
    machine.up()


def ping(lab: Labctl, one: str, other: str, count: int = 20) -> tuple[int, float]:
    """How many answers came, and the least round trip in milliseconds."""
    said = lab("exec", one, "--", "ping", "-n", "-i", "0.01", "-W", "3", "-c", str(count), other, status=None).stdout
    received = re.search(r"(\d+) received", said)
    least = re.search(r"rtt min/avg/max/mdev = ([0-9.]+)/", said)
    assert received is not None, said
    return int(received[1]), float(least[1]) if least else 0.0


def counts(lab: Labctl, link: str) -> Any:
    (found,) = lab.json("impair", link)
    return found["senders"]


@pytest.mark.parametrize("link", ["ce2--pe2", "h1--sw", "h2--ce2", "p1--pe2"])
def test_a_link_is_impaired_live_and_mended_again_and_its_nodes_keep_what_they_had(lab: Labctl, link: str) -> None:
    start(lab, delay="0 ms")
    one, other = link.split("--")
    before = {name: addresses_and_routes(lab, name) for name in (one, other) if name != "sw"}
    # What a user did to a node by hand stays as well.
    if other == "pe2":
        lab("exec", "pe2", "--", "ip", "route", "replace", "198.51.100.0/24", "via", "172.16.3.2")
        before["pe2"] = addresses_and_routes(lab, "pe2")
    lab("impair", link, "--delay", "25 ms")
    received, least = ping(lab, "h1", "10.1.2.10")
    assert received == 20 and least >= 50
    lab("impair", link, "--from", one, "--loss", "100 %")
    assert ping(lab, "h1", "10.1.2.10", 3)[0] == 0
    assert sum(side["rules"][0].get("lost", 0) for side in counts(lab, link).values() if side["rules"]) >= 3
    assert lab("impair", link, "--clear").stdout.endswith("a bare wire again\n")
    received, least = ping(lab, "h1", "10.1.2.10")
    assert received == 20 and least < 50
    for name, had in before.items():
        assert addresses_and_routes(lab, name) == had
    assert "not impaired" in lab("impair", link, "--clear").stdout


def addresses_and_routes(lab: Labctl, node: str) -> list[str]:
    said = lab("exec", node, "--", "sh", "-c", "ip -o -4 address; ip -4 route").stdout
    # The number that the kernel gives a link is its own affair.
    return sorted(re.sub(r"^\d+: ", "", line).rstrip() for line in said.splitlines())


def test_one_packet_of_many_can_be_meant(lab: Labctl) -> None:
    start(lab, delay="0 ms")
    lab("impair", "pe2--ce2", "--from", "pe2", "--only", "udp port 848", "--packets", "1", "--loss", "100 %")
    lab("gdoi", "rekey", "ks1")
    # The first copy for ce2 is lost and no other packet is; ce1 has had its own. The second comes ten seconds later.
    until(lambda: lab.json("gdoi", "show", "ks1")[0]["waiting_for"] == 1, "only ce2 has not answered")
    sides = counts(lab, "pe2--ce2")
    assert sides["pe2"]["rules"] == [{"taken": 1, "lost": 1}] and sides["ce2"]["rules"] == []
    assert ping(lab, "h1", "10.1.2.10")[0] == 20


def test_rules_stand_in_order_and_frames_are_broken_only_where_it_is_said(lab: Labctl) -> None:
    start(lab, delay="0 ms")
    lab("impair", "p1--pe2", "--corrupt", "100 %")
    assert ping(lab, "h1", "10.1.2.10", 5)[0] == 0
    added = lab("impair", "p1--pe2", "--only", "esp", "--delay", "1 ms", "--add").stdout
    assert added.splitlines() == [
        "pe2:eth0--p1:eth1: delay 1 ms for 'esp'",
        "pe2:eth0--p1:eth1: corrupt 100 %",
    ]
    assert ping(lab, "h1", "10.1.2.10")[0] == 20


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("pe1--pe9", "--loss", "1 %"), "lab impair has no link 'pe1--pe9'"),
        (("pe1--p1", "--loss", "1"), "--loss: '1' is not a share. A share is in percent, for example '0.5 %'"),
        (("pe1--p1", "--from", "pe2", "--loss", "1 %"), "--from: 'pe2' is not on this link. Did you mean 'pe1'?"),
        (("pe1--p1", "--only", "esp"), "say what the link does: --delay, --loss, --reorder"),
        (("--loss", "1 %"), "say which link, for example pe1--p1"),
        (("pe1--p1", "--loss", "1 %", "--only", "udp prt 1"), "--only: 'udp prt 1' is not a capture filter"),
    ],
)
def test_words_that_make_no_sense_are_refused_and_change_nothing(
    lab: Labctl, words: tuple[str, ...], said: str
) -> None:
    start(lab, delay="0 ms")
    assert said in lab("impair", *words, status=2).stderr
    assert lab.json("impair") == []


def test_a_link_does_what_the_topology_says_and_ps_shows_it(lab: Labctl) -> None:
    start(lab)
    received, least = ping(lab, "h1", "10.1.2.10")
    assert received == 20 and least >= 60
    assert "pe1:eth0--p1:eth0  delay 30 ms" in lab("ps").stdout
    # One side of the topology's own words changes, live; no node is replaced for it.
    pids = {name: node["pid"] for name, node in lab.nodes().items()}
    (lab.folder / "topology.yml").write_text(TOPOLOGY.format(delay="70 ms", transport="unicast"))
    assert "~ link pe1:eth0--p1:eth0 (impairments)" in lab.up(status=7).stderr
    lab.up("--apply")
    assert ping(lab, "h1", "10.1.2.10")[1] >= 140
    assert {name: node["pid"] for name, node in lab.nodes().items()} == pids
    assert lab.json("test")["failed"] == 0


def test_multicast_goes_on_over_a_link_that_was_opened_and_closed(lab: Labctl) -> None:
    start(lab, delay="0 ms", transport="multicast")
    for words in (("--delay", "5 ms"), ("--clear",)):
        lab("impair", "p1--pe2", *words)
        before = {name: rekeys(lab, name) for name in ("ce1", "ce2")}
        until(lambda: len(lab.json("mroute", "p1")["neighbours"]) == 2, "p1 and pe2 hear each other again")
        lab("gdoi", "rekey", "ks1")
        for name, had in before.items():
            until(partial(_has_rekey_after, lab, name, had), f"{name} has the rekey")


def _has_rekey_after(lab: Labctl, name: str, had: int) -> bool:
    return rekeys(lab, name) > had


def rekeys(lab: Labctl, name: str) -> int:
    return int(lab.json("gdoi", "show", name)[0]["rekeys_received"])
