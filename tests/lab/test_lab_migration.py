"""From clear to encrypted as docs/receive-only-migration.md has it, and by orders: no packet is lost on the way."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from lab_command import Labctl
from lab_group import Pings, Wire, group_of, logged, until, until_logged
from lab_pages import ROOT, Page

pytestmark = pytest.mark.lab

PAIRS = (("h1", "10.1.2.10"), ("h2", "10.1.3.10"), ("h3", "10.1.1.10"))
EVERYBODY = ("ce1", "ce2", "ce3")
H1, H2 = "10.1.1.10", "10.1.2.10"


@pytest.fixture
def lab(machine: Labctl) -> Iterator[Labctl]:
    yield machine
    machine("down", "--all")


def seen(lab: Labctl) -> dict[str, set[str]]:
    """How h1 and h2 send at the moment, on the provider's side of ce2, while they ping each other."""
    wire = Wire(lab, "pe2:eth0")
    lab("exec", "h1", "--", "ping", "-q", "-c", "20", "-i", "0.02", H2)
    packets = wire.packets()
    return {host: {kind for source, kind in packets if source == host} for host in (H1, H2)}


def directions(lab: Labctl) -> list[str]:
    return [group_of(lab, name)["direction"] for name in EVERYBODY]


def test_the_page_leads_from_clear_to_encrypted_without_a_lost_packet(lab: Labctl) -> None:
    page = Page(lab, "receive-only-migration")
    page.run("Start", before="capture")
    until_logged(lab, "ce1", "GM_SA_INGRESS")
    assert directions(lab) == ["inbound only"] * 3
    pings = Pings(lab, PAIRS)
    page.run("Start", since="capture")
    assert seen(lab) == {H1: {"clear"}, H2: {"clear"}}
    first, *others = page.commands("One site after the other")
    assert "ce1" in first and "ce2" in others[2]
    said = page.run("One site after the other")
    assert any("node ce3 (as it runs)" in item.out for item in said) and directions(lab) == ["inbound optional"] * 3
    assert seen(lab) == {H1: {"esp"}, H2: {"esp"}}
    page.run("The whole group")
    assert logged(lab, "ks1")[-3:] == ["POLICY_CHANGE", "KS_CONV_SAS_DUPLEX", "KS_SEND_MCAST_REKEY"]
    until(lambda: not any(group_of(lab, name)["rekeys_received"] == 0 for name in EVERYBODY), "the rekey arrives")
    said = page.run("Nobody passive any more")
    assert "no-plain-text: any" in said[-1].out and directions(lab) == ["both"] * 3
    assert logged(lab, "ce1")[-1] == "GM_CONV_SA_DUPLEX"
    assert pings.lost() == {pair: [] for pair in PAIRS}
    assert [group_of(lab, name)["registrations"] for name in EVERYBODY] == [1, 1, 1]


def test_a_member_is_turned_by_an_order_and_the_key_server_by_another(lab: Labctl) -> None:
    text = (ROOT / "topologies" / "receive-only-migration.yml").read_text()
    (lab.folder / "topology.yml").write_text(text.replace("scale: 60", "scale: 1"))
    lab.up()
    pings = Pings(lab, PAIRS)
    lab("gdoi", "direction", "ce1", "inbound-optional")
    assert seen(lab) == {H1: {"esp"}, H2: {"clear"}}
    lab("gdoi", "direction", "ce1", "inbound-only")
    assert seen(lab) == {H1: {"clear"}, H2: {"clear"}}
    for name in EVERYBODY:
        lab("gdoi", "direction", name, "inbound-optional")
    assert seen(lab) == {H1: {"esp"}, H2: {"esp"}}
    assert pings.lost() == {pair: [] for pair in PAIRS}
    lab("gdoi", "receive-only", "ks1", "off")
    assert group_of(lab, "ce1")["direction"] == "inbound optional", "members hear with the next rekey"
    lab("gdoi", "rekey", "ks1")
    until(lambda: directions(lab) == ["both"] * 3, "the rekey ends what was ordered")
    assert seen(lab) == {H1: {"esp"}, H2: {"esp"}}
    # One that goes back by itself sends what nobody takes any more.
    lab("gdoi", "direction", "ce1", "inbound-only")
    lab("exec", "h1", "--", "ping", "-q", "-c", "3", "-i", "0.1", "-W", "1", H2, status=1)
    until_logged(lab, "ce2", "RECVD_PKT_NOT_IPSEC")
    lab("gdoi", "receive-only", "ks1", "on")
    lab("gdoi", "rekey", "ks1")
    until(lambda: directions(lab) == ["inbound only"] * 3, "back to clear")
    assert logged(lab, "ks1")[-2:] == ["KS_CONV_SAS_INGRESS", "KS_SEND_MCAST_REKEY"]
    assert seen(lab) == {H1: {"clear"}, H2: {"clear"}}
