"""Fail-close as docs/fail-close.md has it: what must not be seen in clear is not, from a node's first packet on."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest
from lab_command import Labctl, finish
from lab_group import Wire, group_of, logged, until, until_logged
from lab_pages import ROOT, Page

pytestmark = pytest.mark.lab

H1, H2, H3 = "10.1.1.10", "10.1.2.10", "10.1.3.10"
MEMBERS = ("ce1", "ce2", "ce3")
# The provider's side of each member.
WIRES = ("pe1:eth2", "pe2:eth1", "pe3:eth1")


@pytest.fixture
def lab(machine: Labctl) -> Iterator[Labctl]:
    yield machine
    machine("down", "--all")


def test_the_page_shows_what_leaves_a_member_without_keys(lab: Labctl) -> None:
    page = Page(lab, "fail-close")
    silent = {"exec h1": 1, "exec h2": 1, "exec h3": 1, "-W 1 172.16.2.1": 1, ", 22)": 1, ", 179)": 1}
    said = page.run("Without keys", status={"labctl up": 6, **silent})
    logs = next(item.out for item in said if item.command == "labctl logs ce3")
    assert "GM_FAIL_CLOSE" in logs and f"a packet from {H2} to {H3}" in logs
    errors = {port: next(item.err for item in said if f", {port})" in item.command) for port in (22, 179)}
    assert "TimeoutError" in errors[22] and "ConnectionRefusedError" in errors[179]
    page.run("The key server comes")
    wires = [Wire(lab, point) for point in WIRES]
    page.run("Cut the key server off")
    until(lambda: all(group_of(lab, name)["teks"] == [] for name in MEMBERS), "their keys end")
    for name in MEMBERS:
        until_logged(lab, name, "GM_REKEY_NOT_RECD", "GM_RE_REGISTER", "IKMP_MODE_FAILURE")
    page.run("When the keys have ended", status={"exec h2": 1, "-W 1 172.16.2.1": 1})
    assert [wire.kinds()["clear"] for wire in wires] == [0, 0, 0], "without keys what the policy permits is dropped"
    wires = [Wire(lab, point) for point in WIRES]
    page.run("A member forgets", status={"exec h2": 1, "-W 1 172.16.4.1": 1})
    # h2's two requests leave ce2 and reach ce3, which lets none in and has nothing to answer.
    shown = [{source for source, kind in wire.packets() if kind == "clear"} for wire in wires]
    assert shown == [set(), {H2}, {H2}] and "GM_CLEAR_REGISTER" in logged(lab, "ce2")
    page.run("Back")
    assert [group_of(lab, name)["state"] for name in MEMBERS] == ["registered"] * 3


def test_a_member_that_fails_close_shows_nothing_from_its_first_moment_on(lab: Labctl) -> None:
    text = (ROOT / "topologies" / "fail-close.yml").read_text()
    (lab.folder / "topology.yml").write_text(text)
    # The provider and the hosts are there and talk before any member is.
    lab.up("p1", "pe1", "pe2", "pe3", "h1", "h2", "h3")
    wires = [Wire(lab, point) for point in WIRES]
    pings = [
        lab.start("exec", host, "--", "ping", "-q", "-n", "-i", "0.02", target)
        for host, target in (("h1", H2), ("h2", H3), ("h3", H1))
    ]
    lab.up("ce1", "ce2", "ce3", "--timeout", "3", status=6)
    lab.up("ks1")
    lab.up()
    lab("exec", "h1", "--", "ping", "-q", "-c", "3", "-i", "0.2", H2)
    for ping in pings:
        assert " 0 received" not in finish(ping, signal.SIGINT)[1]
    shown = [wire.packets() for wire in wires]
    assert all(packets[H1, "clear"] == packets[H3, "clear"] == 0 for packets in shown)
    assert all(packets[host, "esp"] > 0 for packets, host in zip(shown, (H1, H2, H3), strict=True))
    assert shown[1][H2, "clear"] > 0, "ce2 fails open: the capture would have shown the others' as well"
    assert {"ce1": "GM_FAIL_CLOSE" in logged(lab, "ce1"), "ce2": "GM_FAIL_CLOSE" in logged(lab, "ce2")} == {
        "ce1": True,
        "ce2": False,
    }
