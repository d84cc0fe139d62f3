"""Packets that do not fit, in a real lab: the page's black hole, and every cure of it."""

from __future__ import annotations

import re
from typing import Any

import pytest
from lab_command import Labctl
from lab_pages import Page

pytestmark = pytest.mark.lab

TRANSFER, ALL = "makefile", "200000\n"


def fitted(lab: Labctl, node: str) -> dict[str, Any]:
    return dict(lab.json("counters", node)["crypto"]["eth0"]["tunnel"])


def test_the_page_on_the_black_hole_is_so(machine: Labctl) -> None:
    page = Page(machine, "mtu-blackhole")
    try:
        machine("up", "mtu-blackhole", "--runtime", machine.runtime)
        said = page.run("What is lost", status={"-s 1360": 1, TRANSFER: 124})
        small, large, stalled, without_df, counters = said[1:]
        assert "2 received" in small.out and "0 received" in large.out
        # Nobody says anything to the ping, and the connection stands.
        assert "Frag needed" not in large.out and "too long" not in large.err and not stalled.err
        assert "2 received" in without_df.out and "esp-reassembled" in counters.out

        said = page.run("Who is told", status={"-s 1472": 1})
        assert "Frag needed and DF set (mtu = 1446)" in said[0].out and "too-big" in said[1].out
        names, numbers = (line.split() for line in said[2].out.splitlines())
        # Of the router, who quotes ESP; the member's own came once.
        assert int(numbers[names.index("InType3")]) >= 2

        said = page.run("Cure: smaller segments", status={"-s 1360": 1})
        assert "ce1: configured as it runs" in said[1].err and "ce2: configured as it runs" in said[1].err
        assert said[2].out == ALL and "maxseg size set 1300" in said[3].out and "0 received" in said[4].out

        said = page.run("Cure: no DF outside")
        assert "2 received" in said[4].out and said[5].out == ALL
        assert fitted(machine, "ce1")["counts"]["split-before-encryption"] == 2
        assert fitted(machine, "ce1")["counts"]["esp-reassembled"] > 20

        said = page.run("Cure: fragmentation after encryption")
        assert "2 received" in said[2].out and all("split-after-encryption" in item.out for item in said[3:])

        said = page.run("Cure: the MTU of the interface", status={"-s 1360": 1})
        assert said[3].out == ALL and re.search("mtu ?= ?1346", said[4].out + said[4].err)
        assert " 1346" in said[5].out and "esp-reassembled" not in said[5].out

        said = page.run("Cure: a message that arrives", status={"-s 1360": 1})
        assert re.search("mtu ?= ?1346", said[3].out + said[3].err) and said[4].out == ALL
        assert re.search(r"PATH TO +MTU\n10\.1\.2\.10 +1400", said[5].out)
    finally:
        machine("down", "--all")
