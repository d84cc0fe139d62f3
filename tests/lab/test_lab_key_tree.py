"""A member is evicted from a real group with a key tree, under traffic: the others lose nothing and stay."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from lab_command import TIMEOUT, Labctl
from lab_group import group_of, logged, until, until_logged

pytestmark = pytest.mark.lab

# Thirty times as fast: the old key's last 180 s are six of ours.
TOPOLOGY = """\
name: tree
clock: {{scale: 30}}
nodes: {{p1: p, pe1: pe, pe2: pe, pe3: pe, ks1: ks, ce1: ce, ce2: ce, ce3: ce, h1: host, h2: host, h3: host}}
links:
  - pe1 -- p1
  - pe2 -- p1
  - pe3 -- p1
  - ks1 -- pe1
  - {{ends: [ce1, pe1], mtu: {mtu}}}
  - ce2 -- pe2
  - ce3 -- pe3
  - h1 -- ce1
  - h2 -- ce2
  - h3 -- ce3
groups:
  LAB:
    identity: 1234
    key-servers: [ks1]
    members: [ce1, ce2, ce3]
    policy: [permit ip 10.1.0.0/16 10.1.0.0/16]
    transform: esp-aes 256 esp-sha256-hmac
    rekey: {{transport: {transport}, key-tree: true}}
"""
STAY = ("ce1", "ce3")


@pytest.fixture
def lab(machine: Labctl) -> Iterator[Labctl]:
    yield machine
    machine("down", "--all")


def spis_of(lab: Labctl, node: str) -> set[str]:
    return {tek["spi"] for tek in group_of(lab, node)["teks"]}


@pytest.mark.parametrize("transport", ["multicast", "unicast"])
def test_the_others_go_on_without_a_lost_packet_and_the_evicted_is_deaf(lab: Labctl, transport: str) -> None:
    (lab.folder / "topology.yml").write_text(TOPOLOGY.format(transport=transport, mtu=1500))
    lab.up()
    assert group_of(lab, "ks1")["key_tree"] == {"leaves": 3, "depth": 2}
    old = spis_of(lab, "ce2")
    ping = lab.start("exec", "h1", "--", "ping", "-q", "-n", "-i", "0.01", "-c", "1000", "-W", "5", "10.1.3.10")
    lab("gdoi", "evict", "ks1", "ce2")
    report = ping.communicate(timeout=TIMEOUT)[0]
    assert "1000 packets transmitted, 1000 received, 0% packet loss" in report
    until(lambda: all(not spis_of(lab, name) & old for name in STAY), "the old key ends")
    for name in STAY:
        found = group_of(lab, name)
        assert (found["registrations"], found["attempts"], found["rekeys_rejected"]) == (1, 1, 0)
        assert found["rekeys_received"] == 2
    new = spis_of(lab, "ce1")
    assert new == spis_of(lab, "ce3") and len(new) == 1
    # ce2 was given nothing. It asks (by itself only where it saw the others' rekey), and is refused.
    assert spis_of(lab, "ce2") <= old
    lab("gdoi", "reregister", "ce2")
    until_logged(lab, "ks1", "KS_GM_REVOKED")
    assert group_of(lab, "ks1")["key_tree"]["leaves"] == 2
    # What is sent to its site arrives there, and is not understood.
    lab("exec", "h1", "--", "ping", "-n", "-c", "3", "-W", "1", "10.1.2.10", status=1)
    until_logged(lab, "ce2", "RECVD_PKT_INV_SPI")
    assert "RECVD_PKT_INV_SPI" not in logged(lab, "ce3")
    # Let in again, it understands everything.
    lab("gdoi", "allow", "ks1", "ce2")
    until(lambda: group_of(lab, "ce2")["state"] == "registered" and bool(spis_of(lab, "ce2") & new), "ce2 comes back")
    lab("exec", "h1", "--", "ping", "-n", "-c", "3", "10.1.2.10")
    assert [group_of(lab, name)["registrations"] for name in STAY] == [1, 1]


def test_an_eviction_with_now_ends_the_old_key_at_once_also_where_rekeys_come_in_fragments(lab: Labctl) -> None:
    # All arrays and the signature are longer than the link to ce1 carries in one piece.
    (lab.folder / "topology.yml").write_text(TOPOLOGY.format(transport="multicast", mtu=700))
    lab.up()
    old = spis_of(lab, "ce2")
    lab("gdoi", "evict", "ks1", "ce2", "--now")
    until(lambda: all(spis_of(lab, name) and not spis_of(lab, name) & old for name in STAY), "the others have new keys")
    lab("exec", "h1", "--", "ping", "-n", "-c", "3", "10.1.3.10")
    lab("exec", "h1", "--", "ping", "-n", "-c", "3", "-W", "1", "10.1.2.10", status=1)
    assert [group_of(lab, name)["registrations"] for name in STAY] == [1, 1]
