"""The wires of a lab, decided: which kernel link stands for which planned link, under which name, MAC and MTU. Pure.

A group member's crypto interface is split (docs/internals.md, ESP and the data plane): its wire ends at `eth0.wire`,
while the kernel's `eth0` is joined to `eth0.in`; the agent carries frames between the two. MACs that the plan does
not know (wire ends, switch ports) derive from names, so that the same file gives the same frames.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field

from labctl.configuration import Interface
from labctl.topology.plan import LinkEnd, Plan, PlannedLink

WIRE_SIDE, INNER_SIDE = ".wire", ".in"


@dataclass(frozen=True, slots=True)
class End:
    """One end of a wire. `owner` is a node, a switch, or None for an end that no node has: it stays in the fabric.

    `interface` is what the node's kernel sees; it is None for a switch port, and for the wire side of a split one. It
    is no part of the wire itself: two ends are equal whatever addresses the nodes put on them.
    """

    owner: str | None
    is_switch: bool
    name: str
    mac: str
    mtu: int
    interface: Interface | None = field(compare=False)

    @property
    def is_wire_side(self) -> bool:
        """True for the bare end of a split interface, from which the kernel must never take a frame."""
        return not self.is_switch and self.owner is not None and self.interface is None


@dataclass(frozen=True, slots=True)
class Wire:
    """Two ends of one veth pair. `name` is the planned link's, or `node:interface` for a wire that leads nowhere."""

    name: str
    ends: tuple[End, End]

    @property
    def nodes(self) -> set[str]:
        """The nodes at its ends; switches are the fabric's."""
        return {end.owner for end in self.ends if end.owner is not None and not end.is_switch}


def derived_mac(*names: str) -> str:
    """A locally administered unicast MAC for an end that the plan gives none. Apart from the plan's own `02:..`."""
    return "06:" + hashlib.sha256("\0".join(names).encode()).digest()[:5].hex(":")


def split(node: str, interface: Interface) -> tuple[End, End]:
    """The two ends of the pair inside a node whose interface has a crypto map: the kernel's and the agent's."""
    inner = interface.name + INNER_SIDE
    return (
        End(node, False, interface.name, interface.mac, interface.mtu, interface),
        End(node, False, inner, derived_mac(node, inner), interface.mtu, None),
    )


class Wiring:
    """The wires of one plan."""

    def __init__(self, plan: Plan) -> None:
        self._switches = set(plan.switches)
        self._interfaces = {
            (node.name, interface.name): interface for node in plan.nodes for interface in node.configuration.interfaces
        }
        self.wires = {wire.name: wire for wire in self._of(plan)}

    def of_node(self, node: str) -> list[Wire]:
        """The wires that end at a node."""
        return [wire for wire in self.wires.values() if node in wire.nodes]

    def _of(self, plan: Plan) -> Iterator[Wire]:
        wired: set[tuple[str, str]] = set()
        for link in plan.links:
            one, other = (self._end(link, end) for end in link.ends)
            wired |= {(end.node, end.interface) for end in link.ends}
            yield Wire(link.name, (one, other))
        for (node, name), interface in self._interfaces.items():
            if (node, name) not in wired:
                # An interface without a link is a stub: up, with its addresses, and nobody at the other end.
                nowhere = End(None, False, "", derived_mac(node, name, "nowhere"), interface.mtu, None)
                yield Wire(f"{node}:{name}", (self._node_end(node, interface, interface.mtu), nowhere))

    def _end(self, link: PlannedLink, end: LinkEnd) -> End:
        if end.node in self._switches:
            return End(end.node, True, end.interface, derived_mac(end.node, end.interface), link.mtu, None)
        return self._node_end(end.node, self._interfaces[end.node, end.interface], link.mtu)

    def _node_end(self, node: str, interface: Interface, mtu: int) -> End:
        if interface.crypto_map:
            name = interface.name + WIRE_SIDE
            return End(node, False, name, derived_mac(node, name), mtu, None)
        return End(node, False, interface.name, interface.mac, interface.mtu, interface)
