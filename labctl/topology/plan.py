"""The plan: the full, ordered description of what `up` will create, computed without touching anything.

Pure data. `topology/planner.py` makes it; `lab/`, `runtime/`, `fabric/` and `checks/` read it.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, replace

from labctl.configuration import Impairment, NodeConfiguration, NodeKind, to_json
from labctl.topology.checks import CheckSpec
from labctl.topology.pki import PkiPlan


@dataclass(frozen=True, slots=True)
class LinkEnd:
    """One end of a link: an interface of a node, or a port of a switch."""

    node: str
    interface: str

    def __str__(self) -> str:
        return f"{self.node}:{self.interface}"


@dataclass(frozen=True, slots=True)
class PlannedLink:
    """A wire. `name` is `a:eth0--b:eth1`, stable for the same file."""

    name: str
    ends: tuple[LinkEnd, LinkEnd]
    mtu: int = 1500
    impairments: tuple[Impairment, ...] = ()

    @property
    def is_lan(self) -> bool:
        """Kept by the planner's naming: switch ports are `portN`."""
        return any(end.interface.startswith("port") for end in self.ends)


@dataclass(frozen=True, slots=True)
class PlannedNode:
    """A node with an agent."""

    name: str
    kind: NodeKind
    configuration: NodeConfiguration

    @property
    def digest(self) -> str:
        """SHA-256 of the configuration: `up` compares it to say what a changed topology would replace.

        Without the names of other nodes: a node that comes or goes must not replace all the others.
        """
        text = json.dumps(to_json(replace(self.configuration, hosts={}, hosts6={})), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class PlannedGroup:
    """A GETVPN group, by name, with its key servers and members in order; `refused` are to get no keys."""

    name: str
    identity: str
    key_servers: tuple[str, ...]
    members: tuple[str, ...]
    refused: tuple[str, ...] = ()
    ipv6: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """A whole lab. `runtime` is `auto`, `namespaces` or `docker`; `switches` are bridges of the fabric.

    `pki` is what must be made before the plan is whole: `plan()` takes it back as Credentials.
    """

    lab: str
    runtime: str
    nodes: tuple[PlannedNode, ...]
    switches: tuple[str, ...]
    links: tuple[PlannedLink, ...]
    groups: tuple[PlannedGroup, ...]
    checks: tuple[CheckSpec, ...]
    clock_scale: float = 1.0
    pki: PkiPlan = field(default_factory=PkiPlan)

    def node(self, name: str) -> PlannedNode:
        """The node called `name`. Raises KeyError."""
        for node in self.nodes:
            if node.name == name:
                return node
        raise KeyError(name)
