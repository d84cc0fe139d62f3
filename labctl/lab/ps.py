"""What labs there are and how their nodes do: the journal of each, and what its door answers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from labctl.configuration import Impairment, from_json
from labctl.impairment.words import describe
from labctl.lab.directory import LabDirectory
from labctl.lab.errors import NoSuchLab
from labctl.lab.find import state_of
from labctl.lab.session import opened
from labctl.lab.standing import standing_plan
from labctl.topology.plan import Plan, PlannedNode


@dataclass(frozen=True, slots=True)
class GroupStatus:
    """A node's part in a group, as its agent says it: `role` is ks or gm."""

    name: str
    role: str
    state: str
    key_server: str
    reason: str
    members: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """A node: `state` is down (not started), created, wired, booting, ready or failed; `reason` says why not ready."""

    name: str
    kind: str
    state: str
    reason: str
    pid: int | None
    addresses: tuple[str, ...]
    groups: tuple[GroupStatus, ...]


@dataclass(frozen=True, slots=True)
class LabStatus:
    """A lab: `state` is up, starting (an `up` is at work or was killed) or dead (state, but nobody answers)."""

    name: str
    runtime: str
    state: str
    topology: str
    hint: str
    phases: dict[str, float]
    nodes: tuple[NodeStatus, ...]
    links: tuple[str, ...]
    # Links that misbehave, with what they do: rules in order.
    impaired: tuple[tuple[str, tuple[str, ...]], ...] = ()


async def lab_status(directory: LabDirectory) -> LabStatus:
    """How one lab does. Never fails because the lab does badly: that is the answer."""
    state = state_of(directory)
    answer: dict[str, Any] | None = None
    hint = ""
    plan: Plan | None = None
    try:
        plan = standing_plan(directory)
        async with opened(directory) as connection:
            answer = await connection.call("status")
    except NoSuchLab as error:
        hint = f"{error.what}. {error.hint}"
    answered = answer["nodes"] if answer is not None else {}
    how = "dead" if answer is None else "up" if state.is_up else "starting"
    return LabStatus(
        name=directory.name,
        runtime=state.runtime or "",
        state=how,
        topology=str(state.topology or ""),
        hint=hint,
        phases=state.phases,
        nodes=tuple(node_statuses(plan, answered)) if plan is not None and answer is not None else (),
        links=tuple(link.name for link in plan.links) if plan is not None else (),
        impaired=tuple(_impaired(answer["links"])) if answer is not None else (),
    )


def _impaired(links: Iterable[dict[str, Any]]) -> Iterable[tuple[str, tuple[str, ...]]]:
    for link in links:
        rules = [from_json(Impairment, rule) for rule in link.get("impairments") or ()]
        if rules:
            yield str(link["name"]), tuple(describe(rule) for rule in rules)


def node_statuses(plan: Plan, answered: dict[str, dict[str, Any]]) -> Iterable[NodeStatus]:
    """Every node of the plan, with what the lab says about it. Pure."""
    for node in plan.nodes:
        facts = answered.get(node.name)
        if facts is None:
            yield NodeStatus(node.name, node.kind.value, "down", "not started", None, _addresses(node), ())
            continue
        yield NodeStatus(
            name=node.name,
            kind=node.kind.value,
            state=str(facts.get("state") or "unknown"),
            reason=str(facts.get("reason") or ""),
            pid=facts.get("pid"),
            addresses=_addresses(node),
            groups=tuple(_group(group) for group in facts.get("groups") or ()),
        )


def _addresses(node: PlannedNode) -> tuple[str, ...]:
    return tuple(str(address.ip) for item in node.configuration.interfaces for address in item.addresses)


def _group(facts: dict[str, Any]) -> GroupStatus:
    members = facts.get("members") or ()
    return GroupStatus(
        name=str(facts.get("name") or ""),
        role=str(facts.get("role") or ""),
        state=str(facts.get("state") or ""),
        key_server=str(facts.get("key_server") or ""),
        reason=str(facts.get("reason") or ""),
        members=tuple(str(member) for member in members),
    )
