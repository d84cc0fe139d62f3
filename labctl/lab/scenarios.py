"""What `labctl simulate` is asked for: a topology's group, more members, another network, orders at a time."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Address
from pathlib import Path

from labctl.configuration import IsakmpPolicy, KeyServerGroup, RekeyTransport
from labctl.lab.errors import BadRequest
from labctl.lab.find import topology_file
from labctl.simulation.scenario import (
    DAY,
    MOST_MEMBERS,
    PLAIN,
    Faults,
    MemberTraits,
    NetworkConditions,
    Order,
    OrderKind,
    Rate,
    Scenario,
)
from labctl.topology import load
from labctl.topology.plan import Plan
from labctl.topology.planner import plan

# The scenario that is another design for each seed.
CHAOS = "chaos"

# What goes wrong by chance: nothing; what a wide area network and its people do; much more than that.
FAULTS = {
    "none": Faults(),
    "some": Faults(
        partitions=Rate(0.2, 1.0, 7200.0),
        member_restarts=Rate(0.2, 5.0, 600.0),
        key_server_restarts=Rate(0.02, 5.0, 600.0),
        orders=Rate(0.1, 60.0, 3600.0),
    ),
    "many": Faults(
        partitions=Rate(4.0, 1.0, DAY),
        member_restarts=Rate(4.0, 1.0, DAY / 2),
        key_server_restarts=Rate(0.5, 1.0, DAY / 4),
        orders=Rate(4.0, 60.0, 3600.0),
        replays=Rate(24.0),
    ),
}
_REKEYS = IPv4Address("239.192.0.1")
_UNITS = {"ms": 0.001, "s": 1.0, "": 1.0, "m": 60.0, "h": 3600.0, "d": DAY}
_AT_SERVER = (OrderKind.REKEY, OrderKind.REPLACE_NOW, OrderKind.CLEAR_MEMBERS, OrderKind.CLEAR_MEMBERS_NOW)
_POLICY = (OrderKind.RECEIVE_ONLY, OrderKind.BOTH_WAYS, OrderKind.TEK_LIFETIME)
_LONGER = (OrderKind.CUT, OrderKind.RESTART)
_TIMED = (*_LONGER, OrderKind.TEK_LIFETIME)


@dataclass(frozen=True, slots=True)
class Changes:
    """What is asked to be other than in the topology. None leaves it."""

    members: int | None = None
    key_servers: int | None = None
    tek: int | None = None
    kek: int | None = None
    transport: str | None = None
    group: str | None = None


def duration(text: str) -> float:
    """`20ms`, `90`, `30m`, `2h`, `1.5d`: seconds. Raises BadRequest."""
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d|)", text.strip())
    if found is None:
        raise BadRequest(f"{text!r} is no duration", "seconds, or a number with ms, s, m, h or d: 20ms, 30m, 2h")
    return float(found[1]) * _UNITS[found[2]]


def share(text: str) -> float:
    """`2%` or `0.02`. Raises BadRequest."""
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)(%?)", text.strip())
    value = float(found[1]) / (100 if found[2] else 1) if found is not None else -1.0
    if not 0 <= value <= 1:
        raise BadRequest(f"{text!r} is no share", "from 0% to 100%, or from 0 to 1")
    return value


def order(text: str, scenario: Scenario) -> Order:
    """`2h cut m2 30m`, `5h rekey ks1`. Raises BadRequest."""
    words = text.split()
    kinds = {kind.value: kind for kind in OrderKind}
    if len(words) not in (3, 4) or words[1] not in kinds:
        raise BadRequest(
            f"{text!r} is no order", f"TIME ACTION PARTY [DURATION]: '2h cut m2 30m'; actions: {', '.join(kinds)}"
        )
    kind, party = kinds[words[1]], words[2]
    servers = [f"ks{number + 1}" for number in range(scenario.key_servers)]
    members = [f"m{number + 1}" for number in range(scenario.members)]
    takers = servers if kind in _AT_SERVER + _POLICY else servers + members if kind in _LONGER else members
    if party not in takers:
        shown = ", ".join(takers[:8]) + (" ..." if len(takers) > 8 else "")
        raise BadRequest(f"{text!r}: {party!r} cannot {kind.value}", f"one of {shown}")
    if (len(words) == 4) != (kind in _TIMED):
        raise BadRequest(f"{text!r}: {kind.value} {'needs' if kind in _TIMED else 'has no'} duration")
    return Order(duration(words[0]), kind, party, duration(words[3]) if len(words) == 4 else 0.0)


def scenario_of(
    word: str,
    changes: Changes,
    *,
    seconds: float,
    network: NetworkConditions,
    faults: Faults,
    orders: Sequence[str] = (),
) -> Scenario:
    """The scenario of a topology (a file, or one that ships). Raises TopologyErrors, BadRequest."""
    planned = plan(load(topology_file(word, Path.cwd())))
    group, isakmp = _group(planned, changes.group)
    known = next(item for item in planned.groups if item.name == group.name)
    members = len(known.members) if changes.members is None else changes.members
    servers = len(known.key_servers) if changes.key_servers is None else changes.key_servers
    if not 1 <= members <= MOST_MEMBERS:
        raise BadRequest(f"{members} members cannot be simulated", f"from 1 to {MOST_MEMBERS}")
    scenario = Scenario(
        name=planned.lab,
        group=_changed(group, changes),
        isakmp_policies=isakmp,
        members=members,
        key_servers=servers,
        duration=seconds,
        network=network,
        faults=faults,
        traits=_traits(planned, group.name),
    )
    return replace(scenario, orders=tuple(order(text, scenario) for text in orders))


def _group(planned: Plan, name: str | None) -> tuple[KeyServerGroup, tuple[IsakmpPolicy, ...]]:
    names = [group.name for group in planned.groups]
    if not names:
        raise BadRequest(f"topology {planned.lab} has no group", "take one with key servers and members")
    if name is not None and name not in names:
        raise BadRequest(f"topology {planned.lab} has no group {name!r}", f"it has {', '.join(names)}")
    if name is None and len(names) > 1:
        raise BadRequest(f"topology {planned.lab} has groups {', '.join(names)}", "say which: --group NAME")
    wanted = planned.groups[0] if name is None else planned.groups[names.index(name)]
    node = planned.node(wanted.key_servers[0]).configuration
    group = next(group for group in node.key_server_groups if group.name == wanted.name)
    return replace(group, authorized=(), authorized_identities=None), node.isakmp_policies


def _traits(planned: Plan, group: str) -> tuple[MemberTraits, ...]:
    """How the members of a group are configured in the topology; more members than it has are like them in turn."""
    found = [
        MemberTraits(
            membership.fail_close is not None,
            membership.fail_close_revert,
            membership.passive,
            membership.recovery_check,
        )
        for node in planned.nodes
        for membership in node.configuration.memberships
        if membership.name == group
    ]
    return tuple(found) or (PLAIN,)


def _changed(group: KeyServerGroup, changes: Changes) -> KeyServerGroup:
    rekey = group.rekey
    sas = tuple(sa if changes.tek is None else replace(sa, tek_lifetime=changes.tek) for sa in group.sas)
    tek = max(sa.tek_lifetime for sa in sas)
    kek = changes.kek or max(rekey.lifetime, tek)
    if kek < tek:
        raise BadRequest(f"traffic keys live {tek} s, longer than the {kek} s of the key that renews them")
    rekey = replace(rekey, lifetime=kek)
    if changes.transport == "unicast":
        rekey = replace(rekey, transport=RekeyTransport.UNICAST, address=None)
    elif changes.transport is not None:
        address = (rekey.address or _REKEYS) if changes.transport == "multicast" else None
        rekey = replace(rekey, transport=RekeyTransport.MULTICAST, address=address)
    return replace(group, sas=sas, rekey=rekey)
