"""`labctl isakmp show` in a real lab: phase 1 as it stands, what ends it, and what cannot be shown."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from lab_command import Labctl
from lab_group import until

pytestmark = pytest.mark.lab

TOPOLOGY = """\
name: phase1
clock: {scale: 60}
isakmp:
  keepalive: {interval: 10, retry: 2, periodic: true}
  admission-limit: 5
nodes: {pe1: pe, p1: p, ks1: ks, ce1: ce, ce2: ce, h1: host, h2: host}
links: [pe1 -- p1, ks1 -- pe1, ce1 -- pe1, ce2 -- pe1, h1 -- ce1, h2 -- ce2]
groups:
  LAB:
    identity: 1234
    key-servers: [ks1]
    members: [ce1, ce2]
    policy: [permit ip 10.1.0.0/16 10.1.0.0/16]
    isakmp: {group: 19, lifetime: 900}
"""


@pytest.fixture
def lab(machine: Labctl) -> Iterator[Labctl]:
    (machine.folder / "topology.yml").write_text(TOPOLOGY)
    machine.up()
    yield machine
    machine("down", "--all")


def phase1(lab: Labctl, node: str) -> Any:
    return lab.json("isakmp", "show", node)


def test_phase_1_is_shown_ends_with_its_life_and_is_made_anew_to_register(lab: Labctl) -> None:
    shown = phase1(lab, "ks1")
    assert {row["state"] for row in shown["associations"]} == {"GDOI_IDLE"}
    assert len(shown["associations"]) == shown["counters"]["established"] == 2
    assert all(0 < row["left"] <= 900 for row in shown["associations"])
    (own,) = phase1(lab, "ce1")["associations"]
    assert own["cookies"] in {row["cookies"] for row in shown["associations"]}
    assert (own["initiator"], own["authentication"], own["group"]) == (True, "pre-share", 19)
    table = lab("isakmp", "show", "ks1").stdout
    assert "GDOI_IDLE" in table and "half open dropped" in table
    until(lambda: not phase1(lab, "ks1")["associations"], "phase 1 has ended")
    counters = phase1(lab, "ks1")["counters"]
    assert counters["keepalives_sent"] == 0, "a key server does not ask its members"
    assert counters["expired"] + counters["deleted_by_peer"] == 2
    assert [group["state"] for group in lab.json("gdoi", "show", "ce1")] == ["registered"]
    lab("gdoi", "reregister", "ce1")
    until(lambda: phase1(lab, "ce1")["counters"]["established"] == 2, "ce1 has authenticated anew")
    for words, said in (
        (("p1",), "p1: this node is in no group. Key servers and group members are"),
        (("ce7",), "ce7"),
    ):
        outcome = lab("isakmp", "show", *words, status=2)
        assert said in outcome.stderr and "Traceback" not in outcome.stderr
