"""Which kernel links stand for which planned links: decided before anything is touched."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Interface

from labctl.configuration import Interface, NodeConfiguration, NodeKind
from labctl.fabric.wires import Wiring, derived_mac, split
from labctl.topology.plan import LinkEnd, Plan, PlannedLink, PlannedNode


def node(name: str, *interfaces: Interface) -> PlannedNode:
    return PlannedNode(name, NodeKind.CE, NodeConfiguration(name, NodeKind.CE, interfaces))


def interface(name: str, number: int, *, crypto_map: bool = False, mtu: int = 1500) -> Interface:
    return Interface(name, f"02:00:00:00:00:{number:02x}", (IPv4Interface(f"10.0.{number}.1/24"),), mtu, crypto_map)


CE1 = node("ce1", interface("eth0", 1, crypto_map=True, mtu=1400), interface("eth1", 2))
PE1 = node("pe1", interface("eth0", 3))
PLAN = Plan(
    "lab",
    "namespaces",
    (CE1, PE1),
    ("sw1",),
    (
        PlannedLink("ce1:eth0--pe1:eth0", (LinkEnd("ce1", "eth0"), LinkEnd("pe1", "eth0"))),
        PlannedLink("ce1:eth1--sw1:port1", (LinkEnd("ce1", "eth1"), LinkEnd("sw1", "port1"))),
    ),
    (),
    (),
)


def test_a_crypto_interface_meets_the_wire_with_an_end_of_its_own() -> None:
    end, other = Wiring(PLAN).wires["ce1:eth0--pe1:eth0"].ends
    assert (end.name, end.mtu, end.interface, end.is_wire_side) == ("eth0.wire", 1500, None, True)
    assert end.mac != CE1.configuration.interfaces[0].mac
    assert (other.name, other.mac, other.is_wire_side) == ("eth0", "02:00:00:00:00:03", False)
    kernel_side, agent_side = split("ce1", CE1.configuration.interfaces[0])
    assert (kernel_side.name, kernel_side.mac, kernel_side.mtu) == ("eth0", "02:00:00:00:00:01", 1400)
    assert (agent_side.name, agent_side.interface) == ("eth0.in", None)
    assert len({end.mac, kernel_side.mac, agent_side.mac}) == 3


def test_a_switch_port_belongs_to_the_fabric() -> None:
    wire = Wiring(PLAN).wires["ce1:eth1--sw1:port1"]
    assert wire.nodes == {"ce1"}
    assert wire.ends[1].is_switch
    assert not wire.ends[1].is_wire_side


def test_an_interface_without_a_link_is_a_stub() -> None:
    plan = replace(PLAN, links=PLAN.links[1:])
    stub = Wiring(plan).wires["pe1:eth0"]
    assert stub.ends[0].interface == PE1.configuration.interfaces[0]
    assert stub.ends[1].owner is None
    assert [wire.name for wire in Wiring(plan).of_node("pe1")] == ["pe1:eth0"]


def test_the_same_plan_gives_the_same_macs_and_they_are_local_unicast() -> None:
    assert Wiring(PLAN).wires == Wiring(PLAN).wires
    macs = {derived_mac("node", f"eth{number}") for number in range(1000)}
    assert len(macs) == 1000
    assert all(int(mac[:2], 16) & 3 == 2 for mac in macs)


def test_new_addresses_on_an_old_wire_do_not_make_it_another_wire() -> None:
    changed = replace(PE1.configuration.interfaces[0], addresses=(IPv4Interface("10.9.9.1/24"),))
    plan = replace(PLAN, nodes=(CE1, node("pe1", changed)))
    name = "ce1:eth0--pe1:eth0"
    assert Wiring(plan).wires[name] == Wiring(PLAN).wires[name]
    thinner = replace(PLAN, links=(replace(PLAN.links[0], mtu=1300), PLAN.links[1]))
    assert Wiring(thinner).wires[name] != Wiring(PLAN).wires[name]
