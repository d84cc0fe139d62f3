"""Plans for tests: hosts h1 and hN with a row of routers between them, and what belongs around a running lab."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from dataclasses import dataclass, field
from ipaddress import IPv4Interface, IPv4Network
from pathlib import Path
from typing import Any

from labctl.configuration import Interface, NodeConfiguration, NodeKind, Route
from labctl.door import Connection
from labctl.topology.plan import LinkEnd, Plan, PlannedLink, PlannedNode


@dataclass
class Paths:
    """Where a test's lab keeps its files: what labctl.runtime.LabPaths asks for."""

    name: str
    path: Path
    journal: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.logs.mkdir(parents=True, exist_ok=True)

    @property
    def door(self) -> Path:
        return self.path / "door.sock"

    @property
    def logs(self) -> Path:
        return self.path / "logs"


def chain(count: int, lab: str = "chain", names: Iterable[str] | None = None) -> Plan:
    """`count` nodes in a row; link i is 10.0.i.0/30. The ends are hosts, what is between them routes."""
    labels = list(names or (f"n{number}" for number in range(count)))
    nodes, links = [], []
    for number, name in enumerate(labels):
        interfaces, routes = [], []
        if number > 0:
            interfaces.append(_interface("eth0", number, number - 1, 2))
        if number < count - 1:
            interfaces.append(_interface("eth1", number, number, 1))
            links.append(
                PlannedLink(
                    f"{name}:eth1--{labels[number + 1]}:eth0",
                    (LinkEnd(name, "eth1"), LinkEnd(labels[number + 1], "eth0")),
                )
            )
        for link in range(count - 1):
            prefix = IPv4Network(f"10.{link // 250}.{link % 250}.0/30")
            if link < number - 1:
                routes.append(Route(prefix, next_hop(number - 1, 1)))
            elif link > number:
                routes.append(Route(prefix, next_hop(number, 2)))
        kind = NodeKind.HOST if number in (0, count - 1) else NodeKind.P
        hosts = {label: str(_address(max(index - 1, 0), 2 if index else 1).ip) for index, label in enumerate(labels)}
        configuration = NodeConfiguration(name, kind, tuple(interfaces), tuple(routes), hosts=hosts)
        nodes.append(PlannedNode(name, kind, configuration))
    return Plan(lab, "namespaces", tuple(nodes), (), tuple(links), (), ())


def _address(link: int, host: int) -> IPv4Interface:
    return IPv4Interface(f"10.{link // 250}.{link % 250}.{host}/30")


def next_hop(link: int, host: int) -> Any:
    return _address(link, host).ip


def _interface(name: str, node: int, link: int, host: int) -> Interface:
    return Interface(name, f"02:00:00:{node:02x}:00:{host:02x}", (_address(link, host),))


async def execute(door: Connection, node: str, *argv: str) -> tuple[int, str]:
    """Run a command in a node: its exit status and what it printed."""
    call = await door.open("node", name=node, op="exec", args={"argv": list(argv)})
    printed = b""
    async for item in call:
        printed += base64.b64decode(item["stdout_b64"])
    return (await call.result())["exit"], printed.decode()
