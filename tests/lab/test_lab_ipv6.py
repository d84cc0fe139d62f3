"""IPv6 in a real lab, as its page walks through it: what the provider sees, what goes in clear, what does not fit."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lab_command import Labctl, finish
from lab_group import until
from lab_pages import Page

pytestmark = pytest.mark.lab

IPV6 = Path(__file__).resolve().parents[2] / "topologies" / "ipv6.yml"
H1, H3 = "2001:db8:1:1::10", "2001:db8:1:3::10"
# A TCP segment to a port that the policy denies; nobody has to answer it.
BGP = """
import socket
sock = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
sock.settimeout(0.2)
try:
    sock.connect(("2001:db8:1:3::10", 179))
except OSError:
    pass
"""


@pytest.fixture
def lab(machine: Labctl) -> Iterator[Labctl]:
    (machine.folder / "topology.yml").write_text(IPV6.read_text())
    machine.up()
    yield machine
    machine("down", "--all")


def groups(lab: Labctl) -> dict[str, Any]:
    return {group["name"]: group for group in lab.json("gdoi", "show", "ce1")}


def test_the_page_of_ipv6_is_true(lab: Labctl) -> None:
    from scapy.layers.inet6 import IPv6
    from scapy.utils import PcapNgReader

    page = Page(lab, "ipv6")
    shown, served, _ = page.run("One router, two groups")
    for said in (shown, served):
        assert re.search(r"crypto path +ipv6\n", said.out) and re.search(r"key management path +ipv4\n", said.out)
    assert "permit ipv6 2001:db8:1::/48" in shown.out and "172.16.2.2" in served.out

    file = lab.folder / "wire.pcapng"
    wire = lab.start("capture", "pe1--p1", "-w", str(file))
    until(lambda: file.exists() and file.stat().st_size > 0, "the capture runs")
    pings = page.run("What the provider sees")
    assert all("0% packet loss" in said.out for said in pings[:2])
    assert "permit ipv6 2001:db8:1::/48 2001:db8:1::/48" in pings[2].out
    lab("exec", "h1", "--", "python3", "-c", BGP)
    keys = page.run("Keys")
    assert "0% packet loss" in keys[2].out
    until(lambda: len(groups(lab)["IPV6_GROUP"]["teks"]) == 2, "the rekey came to the group, over IPv4")
    assert len(groups(lab)["IPV4_GROUP"]["teks"]) == 1
    finish(wire, signal.SIGINT)
    with PcapNgReader(str(file)) as reader:
        frames: list[Any] = [frame[IPv6] for frame in reader if IPv6 in frame]
    ours = [packet for packet in frames if (packet.src, packet.dst) == (H1, H3)]
    marked = [packet for packet in ours if packet.tc == 0xB8]
    assert len(marked) == 2
    # h1's hop limit of 64, less two routers.
    assert {(packet.nh, packet.fl, packet.hlim) for packet in marked} == {(50, 0x12345, 62)}
    assert {packet.nh for packet in ours} == {6, 50}
    assert all(packet.dport == 179 for packet in ours if packet.nh == 6)

    neighbours = page.run("What goes in clear")
    assert "0% packet loss" in neighbours[1].out and "2001:db8:2:2::1 dev eth0 lladdr" in neighbours[2].out
    big, route = page.run("Too big")
    assert "1 received" in big.out and "mtu 1406" in route.out
