"""What a device is as a whole: `hostname`, `ip domain name`, `ip multicast-routing`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from labctl.configuration import NodeConfiguration
from labctl.ios.grammar.arguments import Word
from labctl.ios.grammar.command import Command
from labctl.ios.grammar.language import GLOBAL, Tree
from labctl.ios.meaning import Notes, Part
from labctl.ios.running import Section

_IP = {"ip": "Global IP configuration subcommands"}

HOSTNAME = Command(
    "hostname {name}",
    {"name": Word("This system's network name", form="[A-Za-z][A-Za-z0-9_.-]{0,62}")},
    helps={"hostname": "Set system's network name"},
)
DOMAIN_NAME = Command(
    "ip domain name {name}",
    {"name": Word("Default domain name")},
    helps={**_IP, "domain": "IP DNS Resolver", "name": "Define the default domain name"},
)
MULTICAST = Command("ip multicast-routing", helps={**_IP, "multicast-routing": "Enable IP multicast forwarding"})

TREE = Tree({GLOBAL: (HOSTNAME, DOMAIN_NAME, MULTICAST)})


def write(node: NodeConfiguration) -> Iterator[str]:
    """Its lines."""
    yield f"hostname {node.name}"
    if node.multicast_routing:
        yield "ip multicast-routing"


def read(root: Section, node: NodeConfiguration, _: Notes) -> NodeConfiguration:
    """What it says; a node's name is the lab's to give, whatever it calls itself."""
    return replace(node, multicast_routing=root.one(MULTICAST) is not None)


PART = Part(TREE, write, read)
