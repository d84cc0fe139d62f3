"""Node configurations as IOS text, and back: the parts, in the order in which a configuration shows them."""

from __future__ import annotations

from dataclasses import dataclass

from labctl.configuration import NodeConfiguration
from labctl.ios.grammar.language import Language
from labctl.ios.running import Running
from labctl.ios.trees import access_lists, crypto_map, gdoi, interfaces, ipsec, isakmp, nat, pki, qos, routes, system

PARTS = (
    system.PART,
    pki.PART,
    qos.PART,
    isakmp.PART,
    ipsec.PART,
    gdoi.PART,
    crypto_map.PART,
    interfaces.PART,
    nat.PART,
    routes.PART,
    access_lists.PART,
)
LANGUAGE = Language(part.tree for part in PARTS)


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a text says: the node's configuration, and sentences about what has no effect."""

    configuration: NodeConfiguration
    notes: tuple[str, ...] = ()


def running(node: NodeConfiguration) -> Running:
    """A configuration as statements."""
    found = Running(LANGUAGE)
    found.load("\n".join(line for part in PARTS for line in part.write(node)))
    return found


def text_of(node: NodeConfiguration, *, defaults: bool = False) -> str:
    """A configuration as IOS text."""
    return "".join(f"{line}\n" for line in running(node).lines(defaults=defaults))


def meaning(said: Running, node: NodeConfiguration) -> Meaning:
    """What statements say of a node, whose wires, clock and name `node` has: IOS text has no words for those."""
    notes: list[str] = []
    # Interfaces come first: others ask for their addresses.
    for part in sorted(PARTS, key=lambda part: part is not interfaces.PART):
        node = part.read(said.root, node, notes)
    return Meaning(node, tuple(notes))


def parse(text: str, node: NodeConfiguration) -> Meaning:
    """What a text says of a node. Raises LoadError."""
    said = Running(LANGUAGE)
    said.load(text)
    return meaning(said, node)
