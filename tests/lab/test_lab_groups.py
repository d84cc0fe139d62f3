"""Several groups on one key server and one router, several `sa ipsec` entries in a group: what the wire shows."""

from __future__ import annotations

import re
import signal
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from lab_command import Labctl, finish
from lab_group import until

pytestmark = pytest.mark.lab

TWO_GROUPS = Path(__file__).resolve().parents[2] / "topologies" / "two-groups.yml"

# Two crypto map entries on one interface, one a group.
ONE_INTERFACE = """\
name: one-interface
nodes: {pe1: pe, ks1: ks, ce1: ce, ce2: ce, a1: host, a2: host, b1: host, b2: host}
links:
  - ks1 -- pe1
  - ce1 -- pe1
  - ce2 -- pe1
  - {ends: [a1, ce1], subnet: 10.10.1.0/24}
  - {ends: [a2, ce2], subnet: 10.10.2.0/24}
  - {ends: [b1, ce1], subnet: 10.20.1.0/24}
  - {ends: [b2, ce2], subnet: 10.20.2.0/24}
groups:
  A:
    identity: 10
    key-servers: [ks1]
    members: [ce1, ce2]
    policy: [permit ip 10.10.0.0/16 10.10.0.0/16]
    rekey: {transport: unicast}
  B:
    identity: 20
    key-servers: [ks1]
    members: [ce1, {node: ce2, local-policy: [deny udp any any eq 9999]}]
    policy: [permit ip 10.20.0.0/16 10.20.0.0/16]
    transform: esp-aes 256 esp-sha256-hmac
    rekey: {transport: unicast}
"""
# Send one frame, given in hex, out of an interface.
INJECT = """
import socket, sys
sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
sock.bind((sys.argv[1], 0))
sock.send(bytes.fromhex(sys.argv[2]))
"""
ASK = """
import socket, sys
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.sendto(b"over udp", (sys.argv[1], 5004))
"""


@pytest.fixture
def lab(machine: Labctl) -> Iterator[Labctl]:
    yield machine
    machine("down", "--all")


def start(machine: Labctl, text: str) -> None:
    (machine.folder / "topology.yml").write_text(text)
    machine.up()


def groups(lab: Labctl, node: str) -> dict[str, Any]:
    return {group["name"]: group for group in lab.json("gdoi", "show", node)}


def spis(group: dict[str, Any]) -> dict[str, set[int]]:
    """The SPIs of a group's keys by transform."""
    found: dict[str, set[int]] = {}
    for tek in group["teks"]:
        found.setdefault(tek["transform"], set()).add(int(tek["spi"], 16))
    return found


def captured(lab: Labctl, words: Sequence[str], *what: str, enough: Callable[[list[Any]], bool]) -> list[Any]:
    """Frames of a capture that listens before a verb begins, and until those that have come are enough."""
    file = lab.folder / "captured.pcapng"
    file.unlink(missing_ok=True)
    capture = lab.start("capture", *words, "-w", str(file))
    until(lambda: file.exists() and file.stat().st_size > 0, "the capture listens")
    lab(*what, status=None)
    until(lambda: enough(frames_of(file)), f"{' '.join(what)} is captured")
    finish(capture, signal.SIGINT)
    return frames_of(file)


def frames_of(file: Path) -> list[Any]:
    """What a capture has so far. The end may be half a frame, which is none."""
    from scapy.utils import PcapNgReader

    frames = []
    with PcapNgReader(str(file)) as reader, suppress(EOFError, struct.error):
        for frame in reader:
            frames.append(frame)
    return frames


def seen(lab: Labctl, point: str, source: str, *what: str, least: int = 8) -> list[Any]:
    """ESP packets of a source at a point of the lab while a verb runs, once so many have come."""
    from scapy.layers.inet import IP
    from scapy.layers.ipsec import ESP

    def sent(frames: list[Any]) -> list[Any]:
        return [frame for frame in frames if ESP in frame and frame[IP].src == source]

    return sent(captured(lab, [point], *what, enough=lambda frames: len(sent(frames)) >= least))


def spis_of(frames: list[Any]) -> set[int]:
    from scapy.layers.ipsec import ESP

    return {frame[ESP].spi for frame in frames}


def ping(node: str, address: str, interval: str = "0.2") -> tuple[str, ...]:
    return ("exec", node, "--", "ping", "-c", "10", "-i", interval, "-W", "2", address)


def test_each_entry_and_each_group_has_its_own_keys_on_the_wire(lab: Labctl) -> None:
    start(lab, TWO_GROUPS.read_text())
    member = groups(lab, "ce1")
    engineering, finance = spis(member["ENGINEERING"]), spis(member["FINANCE"])
    assert engineering.keys() == {"esp-aes 128 esp-sha-hmac", "esp-gcm 256"}
    assert member["ENGINEERING"]["interface"] == "eth0" and member["FINANCE"]["interface"] == "eth1"
    assert spis(groups(lab, "ks1")["FINANCE"]) == finance == spis(groups(lab, "ce3")["FINANCE"])
    # ICMP by the second entry, UDP by the first, the other department by the other interface and the other group.
    frames = seen(lab, "p1:eth1", "10.10.1.10", *ping("e1", "10.10.2.10"))
    assert spis_of(frames) == engineering["esp-gcm 256"]
    udp = seen(lab, "p1:eth1", "10.10.1.10", "exec", "e1", "--", "python3", "-c", ASK, "10.10.2.10", least=1)
    assert spis_of(udp) == engineering["esp-aes 128 esp-sha-hmac"]
    other = seen(lab, "p2:eth0", "10.20.1.10", *ping("f1", "10.20.3.10"))
    assert spis_of(other) == finance["esp-aes 256 esp-sha256-hmac"]
    assert "0% packet loss" in lab(*ping("f1", "10.20.3.10")).stdout


def test_what_one_group_sends_the_other_cannot_read_not_even_on_the_same_router(lab: Labctl) -> None:
    start(lab, TWO_GROUPS.read_text())
    frame = seen(lab, "p1:eth1", "10.10.2.10", *ping("e2", "10.10.1.10"))[0]
    (spi,) = spis_of([frame])
    # The provider delivers it to the wrong customer, and to the right one at the wrong interface.
    for node, pe, interface in (("ce3", "pe4", "eth0"), ("ce1", "pe2", "eth1")):
        assert inside(lab, f"{node}:{interface}", pe, "eth1", frame, partial(has_dropped, lab, node)) == 0
        dropped = unknown_keys(lab, node)
        assert len(dropped) == 1 and f"{spi:#010x}" in dropped[0].lower() and "10.10.2.10" in dropped[0]
    # At the right interface its key is known, and so is its number: it has been there before.
    assert inside(lab, "ce1:eth0", "pe1", "eth2", frame, lambda _: replayed(lab, "ce1", "eth0") == 1) == 0


def replayed(lab: Labctl, node: str, interface: str) -> int:
    """Packets that a node dropped because they had come before."""
    drops = lab.json("counters", node)["crypto"][interface]["drops"]
    return int(drops.get("replay-check-failed", 0))


def unknown_keys(lab: Labctl, node: str) -> list[str]:
    """What a node logged of packets under keys that it does not have."""
    return re.findall(r"RECVD_PKT_INV_SPI: .*", lab("logs", node).stdout)


def has_dropped(lab: Labctl, node: str, kept: list[Any]) -> bool:
    """Whatever a capture has kept: has the node dropped a packet for its key?"""
    return bool(unknown_keys(lab, node))


def inside(lab: Labctl, point: str, pe: str, port: str, frame: Any, enough: Callable[[list[Any]], bool]) -> int:
    """Packets of e2 to e1 that the kernel of a router gets when a frame is sent to it out of a provider's port."""
    from scapy.layers.inet import ICMP, IP

    def got(frames: list[Any]) -> list[Any]:
        return [item for item in frames if ICMP in item and item[IP].src == "10.10.2.10"]

    inject = ("exec", pe, "--", "python3", "-c", INJECT, port, bytes(frame).hex())
    return len(got(captured(lab, [point, "--side", "inside"], *inject, enough=lambda frames: enough(got(frames)))))


def test_a_rekey_and_an_eviction_are_of_one_group_alone(lab: Labctl) -> None:
    start(lab, TWO_GROUPS.read_text())
    before = groups(lab, "ce1")
    assert lab("gdoi", "rekey", "ks1", "--group", "FINANCE").stdout.split()[-1] == "FINANCE"
    until_received(lab, "ce1", "FINANCE")
    after = groups(lab, "ce1")
    assert spis(after["ENGINEERING"]) == spis(before["ENGINEERING"])
    assert after["ENGINEERING"]["rekeys_received"] == 0 and len(after["FINANCE"]["teks"]) == 2
    # The router's name stands for its address in that group.
    lab("gdoi", "evict", "ks1", "ce1", "--group", "FINANCE", "--now")
    until(lambda: groups(lab, "ce1")["FINANCE"]["state"] == "registering", "ce1 is refused")
    assert groups(lab, "ks1")["FINANCE"]["members"] in (["172.16.5.2"], [])
    assert groups(lab, "ce1")["ENGINEERING"]["state"] == "registered"
    assert "0% packet loss" in lab(*ping("e1", "10.10.2.10")).stdout
    refused = re.compile(r"KS_GM_REVOKED: .*FINANCE .*172\.16\.3\.2")
    until(lambda: refused.search(lab("logs", "ks1").stdout) is not None, "ce1 asks again, and ks1 logs that it refuses")


def test_two_groups_share_an_interface_each_with_its_crypto_map_entry(lab: Labctl) -> None:
    start(lab, ONE_INTERFACE)
    member = groups(lab, "ce1")
    assert [member[name]["interface"] for name in ("A", "B")] == ["eth0", "eth0"]
    assert spis_of(seen(lab, "pe1:eth1", "10.10.1.10", *ping("a1", "10.10.2.10"))) == spis(member["A"])["esp-gcm 256"]
    of_b = seen(lab, "pe1:eth1", "10.20.1.10", *ping("b1", "10.20.2.10"))
    assert spis_of(of_b) == spis(member["B"])["esp-aes 256 esp-sha256-hmac"]
    for name in ("A", "B"):
        lab("gdoi", "rekey", "ks1", "--group", name)
        until_received(lab, "ce1", name)
    received = {name: group["rekeys_received"] for name, group in groups(lab, "ce1").items()}
    assert received == {"A": 1, "B": 1}, "one port, and each membership takes the rekeys of its own group"
    report = lab.json("test")
    assert report["failed"] == report["inconclusive"] == 0


def until_received(lab: Labctl, node: str, group: str) -> None:
    until(lambda: groups(lab, node)[group]["rekeys_received"] > 0, "the rekey arrives")
