"""The plan of a lab that is up, as its directory keeps it; read without asking the lab."""

from __future__ import annotations

import difflib
import json
from collections.abc import Collection
from ipaddress import IPv4Address
from typing import TYPE_CHECKING, Any

from labctl.lab.directory import LabDirectory, write_private
from labctl.lab.errors import BadRequest, NoSuchLab

if TYPE_CHECKING:
    from labctl.topology.plan import Plan


def standing_plan(directory: LabDirectory) -> Plan:
    """The plan that stands. Raises NoSuchLab where a killed `up` left none."""
    from labctl.configuration import ConfigurationError, from_json
    from labctl.topology.plan import Plan

    try:
        return from_json(Plan, json.loads(directory.plan.read_text()))
    except FileNotFoundError:
        raise NoSuchLab(
            f"lab {directory.name} has no plan: its 'up' did not come to an end", "'labctl down' removes what is left"
        ) from None
    except (ValueError, ConfigurationError) as error:
        raise NoSuchLab(
            f"{directory.plan} is of another version of labctl: {error}", "'labctl down', then 'labctl up'"
        ) from None


def keep_plan(directory: LabDirectory, plan: Plan) -> None:
    """Write the plan that stands from now on."""
    from labctl.configuration import to_json

    write_private(directory.plan, json.dumps(to_json(plan)) + "\n")


def require_node(directory: LabDirectory, name: str) -> None:
    """Raises BadRequest, with what may have been meant, if the lab that stands has no such node."""
    known = list(node_kinds(directory))
    if known and name not in known:
        raise BadRequest(f"lab {directory.name} has no node {name!r}", which(name, known, "nodes"))


def which(word: str, known: Collection[str], what: str) -> str:
    """The hint for a name that is none of those known: the one that is close, or all, as `its nodes are a, b`."""
    close = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {close[0]!r}?" if close else f"its {what} are {', '.join(known)}"


def node_kinds(directory: LabDirectory | None) -> dict[str, str]:
    """Node name -> kind, for shell completion: no lab, no names."""
    return {node["name"]: node["kind"] for node in _raw(directory).get("nodes", [])}


def member_addresses(directory: LabDirectory | None) -> dict[str, dict[str, IPv4Address]]:
    """Group member -> its groups, each with the address that it registers from."""
    return {
        node["name"]: {
            item["name"]: IPv4Address(item["local_address"]) for item in node["configuration"]["memberships"]
        }
        for node in _raw(directory).get("nodes", [])
        if node["configuration"].get("memberships")
    }


def served_groups(directory: LabDirectory | None, key_server: str) -> list[str]:
    """The groups that a node serves as key server."""
    return [
        item["name"]
        for node in _raw(directory).get("nodes", [])
        if node["name"] == key_server
        for item in node["configuration"].get("key_server_groups", [])
    ]


def link_names(directory: LabDirectory | None) -> list[str]:
    """Every link by its full name."""
    return [link["name"] for link in _raw(directory).get("links", [])]


def capture_points(directory: LabDirectory | None) -> list[str]:
    """Everything `capture` takes: links, then `node:interface`."""
    plan = _raw(directory)
    points = link_names(directory)
    for node in plan.get("nodes", []):
        points += [f"{node['name']}:{interface['name']}" for interface in node["configuration"]["interfaces"]]
    return points


def _raw(directory: LabDirectory | None) -> dict[str, Any]:
    """plan.json as it is: completion must be quick, and quiet about a plan it cannot read."""
    if directory is None:
        return {}
    try:
        found = json.loads(directory.plan.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
