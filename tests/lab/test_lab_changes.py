"""What a changed topology would do is said exactly: no node more, no node less."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

from lab_plans import chain, make_link, make_node

from labctl.configuration import (
    Cipher,
    GroupIdentity,
    GroupMembership,
    Integrity,
    KeyServerGroup,
    NodeKind,
    RekeyPolicy,
    RekeyTransport,
    Route,
    SaIpsec,
    TransformSet,
)
from labctl.lab.changes import compare
from labctl.topology.checks import CheckKind, CheckSpec
from labctl.topology.plan import Plan, PlannedNode


def with_node(plan: Plan, node: PlannedNode) -> Plan:
    """The plan with a node of that name in place of its own."""
    return replace(plan, nodes=tuple(node if item.name == node.name else item for item in plan.nodes))


def test_the_same_topology_changes_nothing() -> None:
    changes = compare(chain(), chain(), "namespaces")
    assert changes.nothing
    assert changes.lines() == []


def test_a_node_with_another_configuration_is_replaced_alone() -> None:
    route = Route(IPv4Network("10.9.0.0/16"), IPv4Address("10.0.1.1"))
    old = chain().node("a")
    new = with_node(chain(), replace(old, configuration=replace(old.configuration, routes=(route,))))
    changes = compare(chain(), new, "namespaces")
    assert (changes.replaced, changes.added, changes.removed, changes.needs_whole_lab) == (("a",), (), (), "")
    assert changes.lines() == ["~ node a (replaced)"]


def test_a_policy_of_a_key_server_is_changed_while_it_runs_and_its_identity_is_not() -> None:
    member = GroupMembership("G", GroupIdentity(1), (IPv4Address("10.0.2.2"),), "eth0", IPv4Address("10.0.1.2"))
    counter, block = TransformSet(Cipher.AES_GCM, 256), TransformSet(Cipher.AES_CBC, 256, Integrity.SHA256)
    sa = SaIpsec((), counter)
    group = KeyServerGroup("G", GroupIdentity(1), IPv4Address("10.0.2.2"), (sa,))
    bare = replace(group, sas=(replace(sa, transform=block),))

    def plan(group: KeyServerGroup = group, member: GroupMembership = member) -> Plan:
        made = chain()
        for name, change in (("a", {"memberships": (member,)}), ("c", {"key_server_groups": (group,)})):
            node = made.node(name)
            made = with_node(made, replace(node, configuration=replace(node.configuration, **change)))
        return made

    for live in (
        plan(replace(group, receive_only=True, sas=(replace(sa, tek_lifetime=7200),))),
        plan(replace(group, sas=(sa, SaIpsec((), block, number=2)))),
        plan(bare),
        plan(replace(group, rekey=RekeyPolicy(transport=RekeyTransport.UNICAST))),
    ):
        changes = compare(plan(), live, "namespaces")
        assert (changes.reconfigured, changes.replaced, changes.nothing) == (("c",), (), False)
        assert changes.lines() == ["~ node c (as it runs)"]
    changes = compare(plan(), plan(member=replace(member, passive=True, recovery_check=60)), "namespaces")
    assert (changes.reconfigured, changes.replaced) == (("a",), ())
    for anew in (
        plan(replace(group, sender_id_bits=16)),
        plan(replace(group, identity=GroupIdentity(2))),
        plan(replace(group, rekey=RekeyPolicy(key_label="OTHER"))),
        plan(member=replace(member, fail_close=())),
        plan(member=replace(member, key_servers=())),
    ):
        changes = compare(plan(), anew, "namespaces")
        assert len(changes.replaced) == 1 and changes.reconfigured == ()
    # Members of a group without counter modes have no sender IDs: a registration alone brings them.
    assert compare(plan(bare), plan(group), "namespaces").replaced == ("c",)


def test_a_new_node_and_its_link_come_and_the_neighbour_is_rewired() -> None:
    new = chain()
    new = replace(
        new,
        nodes=(*new.nodes, make_node("d", NodeKind.HOST, "10.0.3.2/24")),
        links=(*new.links, make_link("c:eth1", "d:eth0")),
    )
    changes = compare(chain(), new, "namespaces")
    assert changes.added == ("d",)
    assert changes.replaced == ("c",)
    assert changes.links_added == ("c:eth1--d:eth0",)


def test_a_node_that_is_gone_takes_its_link_along() -> None:
    new = replace(chain(), nodes=chain().nodes[1:], links=chain().links[1:])
    changes = compare(chain(), new, "namespaces")
    assert changes.removed == ("a",)
    assert changes.replaced == ("b",)
    assert changes.links_removed == ("a:eth0--b:eth0",)


def test_a_link_with_another_mtu_is_replaced_with_both_its_nodes() -> None:
    new = replace(chain(), links=(make_link("a:eth0", "b:eth0", mtu=1400), *chain().links[1:]))
    changes = compare(chain(), new, "namespaces")
    assert changes.replaced == ("a", "b")
    assert changes.links_removed == changes.links_added == ("a:eth0--b:eth0",)


def test_another_runtime_or_clock_needs_the_whole_lab() -> None:
    assert "docker" in compare(chain(), replace(chain(), runtime="docker"), "namespaces").needs_whole_lab
    assert compare(chain(), replace(chain(), runtime="docker"), "docker").nothing
    assert "clock" in compare(chain(), replace(chain(), clock_scale=60.0), "namespaces").needs_whole_lab


def test_a_link_between_switches_needs_the_whole_lab() -> None:
    new = replace(chain(), switches=("lan", "wan"), links=(*chain().links, make_link("lan:port2", "wan:port0")))
    assert "switches" in compare(chain(), new, "namespaces").needs_whole_lab


def test_other_checks_touch_nothing_that_runs() -> None:
    check = CheckSpec("any-to-any", CheckKind.REACHABLE, ("a",), ("c",))
    changes = compare(chain(), replace(chain(), checks=(check,)), "namespaces")
    assert changes.nothing
    assert changes.checks_changed
