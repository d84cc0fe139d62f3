"""Translation and marking in real labs: before encryption they work, in the path they are dropped and counted."""

from __future__ import annotations

import re
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab_command import Labctl, finish
from lab_group import until
from lab_pages import Page

pytestmark = pytest.mark.lab

TOPOLOGIES = Path(__file__).resolve().parents[2] / "topologies"

# A static translation, an overload behind a pool and one behind the interface's own address, in one group.
TRANSLATING = """\
name: translating
nodes:
  pe1: pe
  p1: p
  pe2: pe
  ks1: ks
  ce1: {kind: ce, nat: {inside-source: [static 10.1.1.10 10.200.1.10]}}
  ce2: {kind: ce, nat: {inside-source: [list 10.1.2.0/24 pool 10.200.2.1 overload]}}
  ce3: {kind: ce, nat: {inside-source: [list 10.1.3.0/24 interface eth0 overload]}}
  h1: host
  h2: host
  h3: host
links:
  - pe1 -- p1
  - pe2 -- p1
  - ks1 -- pe2
  - ce1 -- pe1
  - ce2 -- pe2
  - ce3 172.16.77.2/30 -- pe2
  - {ends: [h1, ce1], subnet: 10.1.1.0/24}
  - {ends: [h2, ce2], subnet: 10.1.2.0/24}
  - {ends: [h3, ce3], subnet: 10.1.3.0/24}
groups:
  LAB:
    identity: 1
    key-servers: [ks1]
    members: [ce1, ce2, ce3]
    policy:
      - permit ip 10.200.0.0/16 10.200.0.0/16
      - permit ip host 172.16.77.2 10.200.0.0/16
      - permit ip 10.200.0.0/16 host 172.16.77.2
    rekey: {transport: unicast}
"""

# Says whom it hears, and answers the same.
SERVE = """
import socket
server = socket.create_server(("", 7777))
print("serves", flush=True)
while True:
    peer, (address, port) = server.accept()
    peer.sendall(peer.recv(100) + b" from " + address.encode())
    peer.close()
"""
ASK = """
import socket, sys
with socket.create_connection((sys.argv[1], 7777), 10) as peer:
    peer.sendall(b"hello")
    print(peer.makefile().read())
"""
SEND = """
import socket, sys
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, int(sys.argv[3]) << 2)
for _ in range(5):
    sock.sendto(b"marked", (sys.argv[1], int(sys.argv[2])))
"""


class Headers:
    """A capture that runs while a test does something: IPv4 headers, as scapy reads them."""

    def __init__(self, lab: Labctl, point: str, *options: str) -> None:
        self._path = lab.folder / f"{point.replace(':', '-')}-{time.monotonic_ns()}.pcapng"
        self._capture = lab.start("capture", point, "-w", str(self._path), *options)
        until(lambda: self._path.exists() and self._path.stat().st_size > 0, "the capture runs")

    def seen(self) -> Counter[tuple[str, str, int, int]]:
        """End it: source, destination, protocol and DSCP of what passed, control traffic left out."""
        from scapy.layers.inet import IP, UDP
        from scapy.utils import PcapNgReader

        finish(self._capture, signal.SIGINT)
        found: Counter[tuple[str, str, int, int]] = Counter()
        with PcapNgReader(str(self._path)) as reader:
            for frame in reader:
                if IP in frame and not (UDP in frame and frame[UDP].dport == 848):
                    header = frame[IP]
                    found[header.src, header.dst, header.proto, header.tos >> 2] += 1
        return found


def brought_up(machine: Labctl, text: str) -> Iterator[Labctl]:
    (machine.folder / "topology.yml").write_text(text)
    machine.up()
    yield machine
    machine("down", "--all")


@pytest.fixture
def translating(machine: Labctl) -> Iterator[Labctl]:
    yield from brought_up(machine, TRANSLATING)


@pytest.fixture
def marking(machine: Labctl) -> Iterator[Labctl]:
    yield from brought_up(machine, (TOPOLOGIES / "qos.yml").read_text())


def drops(lab: Labctl, node: str) -> dict[str, int]:
    """Reason -> packets that the node's crypto map dropped."""
    return dict(lab.json("counters", node)["crypto"]["eth0"]["drops"])


def decrypted(lab: Labctl, node: str) -> int:
    """Packets that the node's crypto map decrypted."""
    return sum(item["decrypted"] for item in lab.json("counters", node)["crypto"]["eth0"]["associations"].values())


def test_what_is_translated_is_encrypted_as_it_is_outside(translating: Labctl) -> None:
    lab = translating
    server = lab.start("exec", "h1", "--", "python3", "-c", SERVE)
    assert server.stdout is not None and server.stdout.readline() == "serves\n"
    for source, outside in (("h2", "10.200.2.1"), ("h3", "172.16.77.2")):
        wire, inside = Headers(lab, "pe1--p1"), Headers(lab, "ce1:eth0", "--side", "inside")
        assert lab("exec", source, "--", "python3", "-c", ASK, "10.200.1.10").stdout == f"hello from {outside}\n"
        lab("exec", source, "--", "ping", "-q", "-c", "3", "-i", "0.1", "h1")
        assert {key[:3] for key in wire.seen()} == {(outside, "10.200.1.10", 50), ("10.200.1.10", outside, 50)}
        # Between the kernel and the crypto map: in clear, and translated.
        assert {key[:3] for key in inside.seen()} == {
            (*pair, protocol) for pair in ((outside, "10.200.1.10"), ("10.200.1.10", outside)) for protocol in (1, 6)
        }
    finish(server, signal.SIGINT)
    for name in ("ce1", "ce2", "ce3"):
        crypto = lab.json("counters", name)["crypto"]["eth0"]
        assert sum(entry["hits"] for entry in crypto["entries"]) > 5 and crypto["drops"] == {}


def test_what_a_lab_with_translation_says_of_itself_is_so(translating: Labctl) -> None:
    report = translating.json("test")
    assert report["passed"] == len(report["checks"]) and report["failed"] == report["inconclusive"] == 0
    assert {check["name"] for check in report["checks"]} >= {"encrypted: h2 -> h1", "encrypted: h3 -> h1"}


def test_nobody_reaches_from_outside_who_shares_an_address(translating: Labctl) -> None:
    lab = translating
    wire = Headers(lab, "h2--ce2")
    lab("exec", "h1", "--", "ping", "-q", "-c", "2", "-W", "1", "10.200.2.1", status=1)
    assert not any(destination == "10.1.2.10" for _, destination, _, _ in wire.seen())
    # By the inside address the echo arrives, and no answer leaves as it must not.
    wire = Headers(lab, "pe2--p1")
    lab("exec", "h1", "--", "ping", "-q", "-c", "2", "-W", "1", "10.1.2.10", status=1)
    assert not any(source == "10.1.2.10" for source, _, _, _ in wire.seen())


def test_the_page_on_translation_before_encryption_is_so(machine: Labctl) -> None:
    page = Page(machine, "nat")
    try:
        said = page.run("Before encryption: nat-before")
        assert "h1 (10.200.1.10)" in said[2].out and "3 received" in said[2].out
        assert "snat to 10.200.2.1" in next(item.out for item in said if "nft" in item.command)
        hits = re.search(r"permit ip 10\.200\.0\.0/16 10\.200\.0\.0/16 +(\d+)", said[-1].out)
        assert hits is not None and int(hits[1]) >= 6
        said = page.run("Who can begin: nat-before", status={"ping": 1})
        plan = next(item.out for item in said if "plan" in item.command)
        assert "reachable: h2, h3" in plan and "encrypted" not in plan
    finally:
        machine("down", "--all")


def test_the_page_on_translation_in_the_path_is_so(machine: Labctl) -> None:
    page = Page(machine, "nat")
    commands = page.commands("In the path: nat-in-path")
    started = commands.index("labctl exec h1 -- ping -c 5 -i 0.2 -W 1 h2")
    (machine.folder / "nat-in-path.yml").write_text((TOPOLOGIES / "nat-in-path.yml").read_text())
    try:
        machine("up", "nat-in-path.yml", "--runtime", machine.runtime)
        report = machine.json("test")
        assert report["passed"] == len(report["checks"]) == 2
        before = {name: drops(machine, name) for name in ("ce1", "ce2")}
        seen = []
        for command in commands[started:]:
            words = command.split()[1:]
            if words[0] == "exec":
                assert "0 received" in machine(*words, status=1).stdout
                seen.append({name: _since(before[name], drops(machine, name)) for name in ("ce1", "ce2")})
        assert seen == [
            {"ce1": {}, "ce2": {"address-mismatch": 5}},
            {"ce1": {}, "ce2": {"address-mismatch": 10}},
            {"ce1": {"not-an-ipsec-packet": 4}, "ce2": {"address-mismatch": 10}},
        ]
        assert "somebody translated them" in machine("counters", "ce2").stdout
    finally:
        machine("down", "--all")


def test_the_page_on_marking_is_so(machine: Labctl) -> None:
    page = Page(machine, "qos")
    try:
        machine.up(str(TOPOLOGIES / "qos.yml"))
        wire = Headers(machine, "pe1--p1")
        said = page.run("What the provider sees")
        seen = wire.seen()
        assert seen["10.1.1.10", "10.1.2.10", 50, 46] == 5 and "2 received" in said[2].out
        assert "ip dscp set ef" in said[3].out
        said = page.run("What a rule too many does", status={"labctl test": 3})
        assert "ESP 10.1.1.10 -> 10.1.2.10 has DSCP 0, not 46" in " ".join(said[2].out.split())
    finally:
        machine("down", "--all")


def _since(before: dict[str, int], now: dict[str, int]) -> dict[str, int]:
    return {reason: count - before.get(reason, 0) for reason, count in now.items() if count != before.get(reason, 0)}


@pytest.mark.parametrize(
    ("port", "sent", "outside"),
    [(5060, 0, 24), (4000, 0, 46), (9999, 46, 0)],
    ids=["signalling", "voice", "what only claims to be urgent"],
)
def test_the_provider_sees_the_mark_and_nothing_else(marking: Labctl, port: int, sent: int, outside: int) -> None:
    wire = Headers(marking, "pe1--p1")
    marking("exec", "h1", "--", "python3", "-c", SEND, "10.1.2.10", str(port), str(sent))
    until(lambda: decrypted(marking, "ce2") == 5, "they arrive")
    seen = wire.seen()
    assert seen["10.1.1.10", "10.1.2.10", 50, outside] == 5
    assert {key[3] for key in seen if key[0] == "10.1.1.10"} == {outside}
