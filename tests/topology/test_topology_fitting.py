"""How packets fit their way, from the topology to what a running node takes."""

from __future__ import annotations

from dataclasses import replace

from labctl.configuration import (
    DfBit,
    Fragmentation,
    MssAdjustment,
    NodeConfiguration,
    TunnelSettings,
    changes_live,
    from_json,
    to_json,
)
from labctl.lab.changes import compare
from labctl.topology import read
from labctl.topology.plan import Plan
from labctl.topology.planner import plan

LAB = """\
name: lab
nodes:
  ks1: ks
  pe1: {kind: pe, adjust-mss: {size: 1300, interfaces: [eth1]}}
  ce1: {kind: ce, crypto: {fragmentation: after, df-bit: clear, path-mtu-discovery: true}, adjust-mss: 1360}
  ce2: ce
  h1: host
  h2: host
links: [ks1 -- pe1, ce1 -- pe1, ce2 -- pe1, h1 -- ce1, h2 -- ce2]
groups:
  LAB:
    identity: 1
    key-servers: [ks1]
    members: [ce1, ce2]
    policy: [permit ip 10.1.0.0/16 10.1.0.0/16]
"""


def planned(text: str) -> Plan:
    return plan(read(text, "lab.yml"))


def test_a_member_has_what_the_topology_says_and_others_what_ios_does() -> None:
    made = planned(LAB)
    configured = made.node("ce1").configuration
    assert configured.tunnel == TunnelSettings(Fragmentation.AFTER, DfBit.CLEAR, learn_path_mtu=True)
    # On the ce's LAN, where nothing is said; elsewhere only where it is.
    assert configured.adjust_mss == (MssAdjustment("eth1", 1360),)
    assert made.node("pe1").configuration.adjust_mss == (MssAdjustment("eth1", 1300),)
    assert made.node("ce2").configuration.tunnel == TunnelSettings(Fragmentation.BEFORE, DfBit.COPY)
    assert from_json(NodeConfiguration, to_json(configured)) == configured


def test_a_running_node_takes_another_way_to_fit() -> None:
    before, after = planned(LAB), planned(LAB.replace("df-bit: clear", "df-bit: set").replace("1360", "1200"))
    assert changes_live(before.node("ce1").configuration, after.node("ce1").configuration)
    changes = compare(before, after, "namespaces")
    assert changes.reconfigured == ("ce1",) and not changes.replaced
    other = replace(after.node("ce1").configuration, clock_scale=2.0)
    assert not changes_live(before.node("ce1").configuration, other)
