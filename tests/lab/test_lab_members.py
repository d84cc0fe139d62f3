"""Whom an order to a key server means by a member's name: an address in each of the groups that both are in."""

from __future__ import annotations

from ipaddress import IPv4Address
from pathlib import Path

import pytest

from labctl.lab.directory import LabDirectory
from labctl.lab.errors import BadRequest
from labctl.lab.gdoi import members_meant
from labctl.lab.standing import keep_plan
from labctl.topology import load
from labctl.topology.planner import plan

TWO_GROUPS = Path(__file__).resolve().parents[2] / "topologies" / "two-groups.yml"
AT_ETH0, AT_ETH1 = IPv4Address("172.16.2.2"), IPv4Address("172.16.3.2")


@pytest.fixture
def planned(directory: LabDirectory) -> LabDirectory:
    directory.create()
    keep_plan(directory, plan(load(TWO_GROUPS), secret=bytes(32)))
    return directory


def test_a_name_is_an_address_in_each_group(planned: LabDirectory) -> None:
    assert members_meant(planned, "ks1", None, "ce1") == [("ENGINEERING", AT_ETH0), ("FINANCE", AT_ETH1)]
    assert members_meant(planned, "ks1", "FINANCE", "ce1") == [("FINANCE", AT_ETH1)]
    assert members_meant(planned, "ks1", None, "ce3") == [("FINANCE", IPv4Address("172.16.5.2"))]


def test_an_address_is_meant_where_it_is_said(planned: LabDirectory) -> None:
    assert members_meant(planned, "ks1", None, "192.0.2.1") == [(None, IPv4Address("192.0.2.1"))]
    assert members_meant(planned, "ks1", "FINANCE", str(AT_ETH0)) == [("FINANCE", AT_ETH0)]


@pytest.mark.parametrize(
    ("group", "word", "said"),
    [
        ("ENGINEERING", "ce3", "'ce3' is no member of group ENGINEERING. it is in FINANCE"),
        (None, "ce4", "has no group member 'ce4'. did you mean"),
    ],
)
def test_who_is_not_there_is_said_with_a_hint(planned: LabDirectory, group: str | None, word: str, said: str) -> None:
    with pytest.raises(BadRequest) as caught:
        members_meant(planned, "ks1", group, word)
    assert said in f"{caught.value.what}. {caught.value.hint}"


def test_a_node_that_serves_no_such_group_says_so_itself(planned: LabDirectory) -> None:
    assert members_meant(planned, "ce2", None, "ce1") == [(None, AT_ETH0)]
