"""`labctl counters` of a real lab: what passes is counted once on its way, what is dropped with its reason."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator

import pytest
from lab_command import Labctl, finish

pytestmark = pytest.mark.lab


@pytest.fixture
def lab(machine: Labctl) -> Iterator[Labctl]:
    (machine.folder / "topology.yml").write_text(
        "name: counters\n"
        "nodes: {ks1: ks, pe1: pe, ce1: ce, ce2: ce, h1: host, h2: host}\n"
        "links: [ks1 -- pe1, ce1 -- pe1, ce2 -- pe1, h1 -- ce1, h2 -- ce2]\n"
        "groups:\n"
        "  LAB: {identity: 1, key-servers: [ks1], members: [ce1, ce2], policy: [permit ip 10.1.0.0/16 10.1.0.0/16]}\n"
    )
    machine.up()
    yield machine
    machine("down", "--all")


def test_packets_are_counted_by_key_and_by_policy_and_drops_by_their_reason(lab: Labctl) -> None:
    lab("exec", "h1", "--", "ping", "-c", "20", "-i", "0.01", "10.1.2.10")
    for name in ("ce1", "ce2"):
        crypto = lab.json("counters", name)["crypto"]["eth0"]
        (sa,) = crypto["associations"].values()
        assert (sa["encrypted"], sa["decrypted"], sa["octets_encrypted"]) == (20, 20, 20 * 84)
        assert [entry["hits"] for entry in crypto["entries"]] == [20] and crypto["drops"] == {}
    # Broken on the last wire: the member's integrity check sees what the header's checksum does not.
    lab("impair", "pe1--ce2", "--from", "pe1", "--only", "esp", "--corrupt", "100 %")
    lab("exec", "h1", "--", "ping", "-q", "-c", "60", "-i", "0.01", "-W", "1", "10.1.2.10", status=None)
    assert lab.json("counters", "ce2")["crypto"]["eth0"]["drops"]["mac-verify-failed"] > 20
    said = lab("counters", "ce2").stdout
    assert "mac-verify-failed  its integrity check is wrong" in said
    assert "permit ip 10.1.0.0/16 10.1.0.0/16" in said and "eth0.wire" in said
    assert lab.json("counters", "pe1")["crypto"] == {}


def test_a_watcher_is_told_again_and_again_until_ctrl_c(lab: Labctl) -> None:
    watcher = lab.start("counters", "ce1", "--watch", "0.1", "--json")
    assert watcher.stdout is not None
    told = [json.loads(watcher.stdout.readline()) for _ in range(3)]
    assert all("eth0.wire" in item["interfaces"] for item in told)
    status, _, err = finish(watcher, signal.SIGINT)
    assert status == 130 and "Traceback" not in err
