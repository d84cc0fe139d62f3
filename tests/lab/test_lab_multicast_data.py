"""Multicast between sites, as its page walks through it: encrypted before it is copied, for whoever joins, whenever."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab_command import Labctl, finish
from lab_group import until
from lab_pages import Page
from lab_traces import processes

pytestmark = pytest.mark.lab

TOPOLOGY = Path(__file__).resolve().parents[2] / "topologies" / "multicast-data.yml"
SENDER, GROUP = "10.1.1.10", "239.7.7.7"


@pytest.fixture
def lab(machine: Labctl) -> Iterator[Labctl]:
    (machine.folder / "topology.yml").write_text(TOPOLOGY.read_text())
    machine.up()
    yield machine
    machine("down", "--all")
    until(lambda: not processes(machine.state), "what the page left running ends with the lab")


def heard(lab: Labctl, host: str) -> list[int]:
    """The numbers that a host has written down."""
    file = lab.folder / f"{host}.txt"
    return [int(line) for line in file.read_text().split()] if file.exists() else []


def wanted_on(lab: Labctl, router: str) -> list[str]:
    found: list[str] = lab.json("mroute", router)["groups"].get(GROUP, [])
    return found


class Wire:
    """A capture on a link."""

    def __init__(self, lab: Labctl, link: str) -> None:
        self._path = lab.folder / f"{link}.pcapng"
        self._capture = lab.start("capture", link, "-w", str(self._path))
        until(lambda: self._path.exists() and self._path.stat().st_size > 0, "the capture runs")

    def packets(self) -> list[bytes]:
        """End it: the packets of the flow, without what routers change on their way."""
        from scapy.layers.inet import IP
        from scapy.utils import PcapNgReader

        finish(self._capture, signal.SIGINT)
        with PcapNgReader(str(self._path)) as reader:
            found = [frame[IP] for frame in reader if IP in frame and frame[IP].dst == GROUP]
        assert found and {(packet.src, packet.proto) for packet in found} == {(SENDER, 50)}
        return [bytes(packet.payload)[: packet.len - 20] for packet in found]


def test_the_page_of_multicast_is_true(lab: Labctl) -> None:
    page = Page(lab, "multicast-data")
    page.run("Receivers")
    until(lambda: len(wanted_on(lab, "pe2")) == 1 and len(wanted_on(lab, "pe3")) == 1, "both reports came to the core")
    first, left, right = (Wire(lab, link) for link in ("ce1--pe1", "pe2--p1", "pe3--p1"))
    page.run("A sender")
    until(lambda: len(heard(lab, "h2")) > 30 and len(heard(lab, "h3")) > 30, "both receivers hear the sender")

    before = max(heard(lab, "h2"))
    page.run("Late")
    until(lambda: len(heard(lab, "h4")) > 10, "a late receiver hears it too")
    assert min(heard(lab, "h4")) >= before, "it has no keys to what was said before it came, but it did not come then"
    assert len(wanted_on(lab, "pe3")) == 2
    for host in ("h2", "h3", "h4"):
        numbers = heard(lab, host)
        assert numbers == list(range(numbers[0], numbers[-1] + 1)), f"{host} missed some, or heard some twice"

    capture = page.run("Who listens without keys")[-1]
    lines = [line for line in capture.out.splitlines() if GROUP in line]
    assert lines and all(f"{SENDER} > {GROUP} ESP" in line for line in lines if "protocol 2" not in line)
    assert heard(lab, "h5") == []

    associations = lab.json("counters", "ce1")["crypto"]["eth0"]["associations"]
    encrypted = sum(association["encrypted"] for association in associations.values())
    # Encrypted before it is copied: both sides of the core carry the same octets, each packet once.
    sent, to_left, to_right = (Counter(wire.packets()) for wire in (first, left, right))
    assert set(sent.values()) == set(to_left.values()) == set(to_right.values()) == {1}
    assert len(to_left & to_right & sent) > 30
    assert encrypted <= len(sent), "one encryption a packet, however many listen"
