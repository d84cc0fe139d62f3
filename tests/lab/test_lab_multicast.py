"""Multicast between hosts: carried by the routers to the sites that want it, encrypted on the way, on each runtime."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest
from lab_command import TIMEOUT, Labctl, finish
from lab_group import until

pytestmark = pytest.mark.lab

# Two homes for ce2, two routers on the LAN of h3: several ways for one packet.
TOPOLOGY = """\
name: groups
nodes: {p1: p, pe1: pe, pe2: pe, pe3: pe, ks1: ks, ce1: ce, ce2: ce, ce3: ce, ce4: ce, sw: switch,
        h1: host, h2: host, h3: host, h4: host}
links:
  - pe1 -- p1
  - pe2 -- p1
  - pe3 -- p1
  - pe1 -- pe2
  - ks1 -- pe1
  - ce1 -- pe1
  - ce2 -- pe2
  - ce3 -- pe3
  - ce4 -- pe2
  - h1 -- ce1
  - h2 -- ce2
  - ce3 -- sw
  - ce4 -- sw
  - h3 -- sw
  - h4 -- sw
groups:
  LAB:
    identity: 1234
    key-servers: [ks1]
    members: [ce1, ce2, ce3, ce4]
    policy:
      - permit ip 10.1.0.0/16 10.1.0.0/16
      - permit ip 10.1.0.0/16 239.7.0.0/16
"""

# Say READY once the group is joined; then every number that comes, until the end of the time.
LISTEN = """
import socket, struct, sys, time
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.bind(("239.7.7.7", 5000))
sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, socket.inet_aton("239.7.7.7") + bytes(4))
print("READY", flush=True)
end = time.monotonic() + float(sys.argv[1])
while (left := end - time.monotonic()) > 0:
    sock.settimeout(left)
    try:
        number = sock.recv(100).decode()
        print(number, flush=True)
        if number == "49":
            end = min(end, time.monotonic() + 1)  # for a copy that may still come
    except TimeoutError:
        break
"""
SEND = """
import socket, time
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 16)
for number in range(50):
    sock.sendto(str(number).encode(), ("239.7.7.7", 5000))
    time.sleep(0.05)
"""
COUNT = 50


@pytest.fixture
def lab(machine: Labctl) -> Iterator[Labctl]:
    (machine.folder / "topology.yml").write_text(TOPOLOGY)
    machine.up()
    yield machine
    machine("down", "--all")


def flows(lab: Labctl, node: str) -> dict[str, list[str]]:
    """Interfaces that flows to the hosts' group leave a router by, by source."""
    return {
        flow["source"]: flow["outgoing"] for flow in lab.json("mroute", node)["flows"] if flow["group"] == "239.7.7.7"
    }


def wanted(lab: Labctl, node: str) -> int:
    """On how many interfaces of a router the hosts' group is wanted."""
    return len(lab.json("mroute", node)["groups"].get("239.7.7.7", []))


def test_each_host_that_wants_a_group_gets_each_packet_once_and_the_wire_shows_esp(lab: Labctl) -> None:
    wire = lab.start("capture", "p1--pe1", "-w", str(lab.folder / "wire.pcapng"))
    until((lab.folder / "wire.pcapng").exists, "the capture runs")
    listeners = [lab.start("exec", name, "--", "python3", "-c", LISTEN, "60") for name in ("h2", "h3")]
    for listener in listeners:
        assert listener.stdout is not None and listener.stdout.readline().strip() == "READY"
    until(lambda: wanted(lab, "pe2") == 2 and wanted(lab, "pe3") == 1, "the edge of the provider has heard who listens")
    # The first packets find no entry, and on the LAN of two routers one of them must give way.
    lab("exec", "h1", "--", "python3", "-c", SEND)
    assert flows(lab, "pe1") and flows(lab, "ce1"), "there are entries"
    # 10.1.1.10 has two ways to the switch's LAN, of which one carries.
    carrying = [name for name in ("ce3", "ce4") if flows(lab, name).get("10.1.1.10")]
    assert len(carrying) == 1
    for listener in listeners:
        report, _ = listener.communicate(timeout=TIMEOUT)
        numbers = [int(line) for line in report.split()]
        assert set(numbers) == set(range(COUNT))
        late = [number for number in numbers if number >= 10]
        assert sorted(late) == sorted(set(late)), "no packet came twice once the routers had settled"
    finish(wire, signal.SIGINT)
    assert protocols_of(lab) == {50}


def protocols_of(lab: Labctl) -> set[int]:
    """Protocols of the capture's packets to the hosts' group."""
    from scapy.layers.inet import IP
    from scapy.utils import PcapNgReader

    with PcapNgReader(str(lab.folder / "wire.pcapng")) as reader:
        return {frame[IP].proto for frame in reader if IP in frame and frame[IP].dst == "239.7.7.7"}
