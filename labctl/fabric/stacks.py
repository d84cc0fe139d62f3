"""Carries wires out: the only place where the fabric changes a kernel. All of it blocks; one thread calls it.

Wires outlive nodes: an end whose node is not there is parked in the fabric's own namespace, as a cable left in the
neighbour's port, so that replacing a node takes no interface, address, route or packet socket from its neighbours.
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass, field

from labctl.configuration import NodeConfiguration, Route
from labctl.fabric.wires import End, Wire, derived_mac, split
from labctl.kernel import addresses, links
from labctl.kernel.interface_state import InterfaceState, read_state, restore_state
from labctl.kernel.links import LinkState, VethEnd
from labctl.kernel.namespaces import in_network_namespace, open_network_namespace
from labctl.kernel.netlink import Request, RouteSocket
from labctl.kernel.offloads import Offloads
from labctl.kernel.sysctls import fabric_sysctls, node_sysctls, write_sysctls

WIRE_FLAGS = links.IFF_NOARP | links.IFF_PROMISC


@dataclass(slots=True)
class Stack:
    """One network stack that we hold the strings of. Its sockets were opened in its namespace and stay there."""

    name: str
    namespace: int
    route: RouteSocket
    ioctl: socket.socket
    configuration: NodeConfiguration | None = None

    @classmethod
    def here(cls, name: str, namespace: int, configuration: NodeConfiguration | None = None) -> Stack:
        """The stack of the namespace that the calling thread is in."""
        return cls(name, namespace, RouteSocket(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM), configuration)

    def close(self) -> None:
        """Let go of the namespace."""
        self.route.close()
        self.ioctl.close()
        os.close(self.namespace)


@dataclass(slots=True)
class _Laid:
    """A wire that exists: per end, the stack that has it at the moment (None: parked) and its name there."""

    wire: Wire
    places: list[str | None]
    names: list[str] = field(default_factory=list)
    # Of an impaired wire: the far ends of its two pairs, in the fabric.
    tapped: tuple[str, str] | None = None


class Stacks:
    """The fabric's own stack and those of its nodes."""

    def __init__(self, proc: str = "/proc") -> None:
        self._proc = proc
        self._offloads = Offloads()
        self._fabric = Stack.here("fabric", open_network_namespace())
        write_sysctls(fabric_sysctls(), proc)
        self._fabric.route.apply([links.set_up("lo")])
        self._nodes: dict[str, Stack] = {}
        self._laid: dict[str, _Laid] = {}
        self._bridges: dict[str, LinkState] = {}  # by switch
        self._bridges_made = 0
        self._parked = 0
        self._ports = 0
        self._taps = 0

    def add_node(self, name: str, namespace: int, configuration: NodeConfiguration) -> None:
        """Take a new node's namespace (ours from now on): settings, loopback, the inner halves of split interfaces."""
        with in_network_namespace(namespace):
            write_sysctls(node_sysctls(configuration), self._proc)
            stack = Stack.here(name, namespace, configuration)
        self._nodes[name] = stack
        requests = [links.set_up("lo")]
        crypto = [interface for interface in configuration.interfaces if interface.crypto_map]
        requests += [
            links.veth(_veth(kernel_side, namespace), _veth(agent_side, namespace))
            for kernel_side, agent_side in (split(name, interface) for interface in crypto)
        ]
        stack.route.apply(requests)
        for interface in crypto:
            kernel_side, agent_side = split(name, interface)
            found = links.list_links(stack.route)
            self._bring_up(stack, agent_side, found, to_agent=True)
            self._bring_up(stack, kernel_side, found, to_agent=True)

    def lay(self, wire: Wire) -> None:
        """Make a wire, or plug its parked ends into nodes that have come. Its ends work when this returns."""
        laid = self._laid.get(wire.name)
        if laid is None:
            self._make(wire)
            return
        laid.wire = wire
        for number, end in enumerate(wire.ends):
            if laid.places[number] is None and end.owner in self._nodes:
                self._plug(laid, number, end)

    def add_routes(self, name: str) -> None:
        """The static routes of a node, as far as their next hops are on its links."""
        stack = self._nodes[name]
        assert stack.configuration is not None
        found = links.list_links(stack.route)
        requests = []
        for route in stack.configuration.routes:
            interface = _interface_towards(route, stack.configuration)
            if interface in found:
                requests.append(addresses.route(route.prefix, route.next_hop, found[interface].index))
        stack.route.apply(requests)

    def remove_node(self, name: str) -> None:
        """Park the ends of the node's wires and let go of its namespace. Fine if there is no such node."""
        stack = self._nodes.pop(name, None)
        if stack is None:
            return
        for laid in self._laid.values():
            for number, place in enumerate(laid.places):
                if place == name:
                    self._park(stack, laid, number)
        stack.close()

    def cut(self, wire_name: str) -> None:
        """Remove a wire, and a switch with its last wire. Fine if there is none."""
        laid = self._laid.pop(wire_name, None)
        if laid is None:
            return
        for number in (0, 1) if laid.tapped else (0,):
            self._stack(laid.places[number]).route.apply([links.delete(laid.names[number])])
        plugged = {end.owner for other in self._laid.values() for end in other.wire.ends if end.is_switch}
        for switch in [switch for switch in self._bridges if switch not in plugged]:
            self._fabric.route.apply([links.delete(self._bridges.pop(switch).name)])

    def tap(self, wire_name: str) -> tuple[str, str]:
        """Open a wire, so that its frames can be carried by the fabric: the far ends of its two halves, in order.

        One end stays the link it was; the other is made anew, with the addresses and routes that it had (which one:
        _replaceable). Fine if the wire is open. Raises KeyError for a wire that is not laid.
        """
        laid = self._laid[wire_name]
        if laid.tapped is None:
            number = _replaceable(laid.wire)
            end, place = laid.wire.ends[number], laid.places[number]
            state = self._state(laid, number)
            old = laid.names[number]
            if place is not None:
                self._park(self._nodes[place], laid, number)
                old = laid.names[number]
            elif end.is_switch:
                self._fabric.route.apply([links.unplug(old)])
            self._offloads.turn_off(self._fabric.ioctl, old)
            self._taps += 1
            far = f"tap{self._taps}"
            name = end.name if place is not None else self._name_in_fabric(end)
            fabric = self._fabric.namespace
            one = VethEnd(name, end.mac, self._stack(place).namespace, end.mtu)
            other = VethEnd(far, derived_mac(wire_name, "tap"), fabric, end.mtu)
            self._fabric.route.apply([links.veth(one, other)])
            self._offloads.turn_off(self._fabric.ioctl, far)
            self._fabric.route.apply([links.set_up(name, flags=WIRE_FLAGS) for name in (old, far)])
            laid.places[number], laid.names[number] = place, name
            self._settle(laid, number, end)
            self._restore(laid, number, state)
            laid.tapped = (old, far) if number == 1 else (far, old)
        return laid.tapped

    def untap(self, wire_name: str) -> None:
        """Close a wire again: one bare pair. Fine if it is one, or is not laid."""
        laid = self._laid.get(wire_name)
        if laid is None or laid.tapped is None:
            return
        number = _replaceable(laid.wire)
        end, place = laid.wire.ends[number], laid.places[number]
        state = self._state(laid, number)
        self._stack(place).route.apply([links.delete(laid.names[number])])
        laid.names[number] = laid.tapped[1 - number]
        laid.places[number] = laid.tapped = None
        if place is not None:
            self._plug(laid, number, end)
        else:
            self._fabric.route.apply([links.set_down(laid.names[number])])
            self._settle(laid, number, end)
        self._restore(laid, number, state)

    def _state(self, laid: _Laid, number: int) -> InterfaceState | None:
        """What a node has on an end; None for what is no interface of a node."""
        place = laid.places[number]
        return None if place is None else read_state(self._nodes[place].route, laid.names[number])

    def _restore(self, laid: _Laid, number: int, state: InterfaceState | None) -> None:
        place = laid.places[number]
        if state is not None and place is not None:
            restore_state(self._nodes[place].route, laid.names[number], state)

    def laid(self) -> dict[str, Wire]:
        """The wires that exist, by name."""
        return {name: laid.wire for name, laid in list(self._laid.items())}

    def close(self) -> None:
        """Let go of everything; the kernel removes what nobody holds."""
        for stack in [*self._nodes.values(), self._fabric]:
            stack.close()

    def _stack(self, place: str | None) -> Stack:
        return self._fabric if place is None else self._nodes[place]

    def _make(self, wire: Wire) -> None:
        laid = _Laid(wire, [end.owner if end.owner in self._nodes else None for end in wire.ends])
        laid.names = [
            self._name_in_fabric(end) if place is None else end.name
            for end, place in zip(wire.ends, laid.places, strict=True)
        ]
        one, other = (
            VethEnd(name, end.mac, self._stack(place).namespace, end.mtu)
            for name, end, place in zip(laid.names, wire.ends, laid.places, strict=True)
        )
        self._fabric.route.apply([links.veth(one, other)])
        self._laid[wire.name] = laid
        for number, end in enumerate(wire.ends):
            self._settle(laid, number, end)

    def _settle(self, laid: _Laid, number: int, end: End) -> None:
        """Bring up an end where it is now: in its node, as a port of its bridge, or as the far end of a stub."""
        place, name = laid.places[number], laid.names[number]
        stack = self._stack(place)
        if place is not None:
            self._bring_up(stack, end, links.list_links(stack.route))
            return
        self._offloads.turn_off(stack.ioctl, name)
        if end.is_switch:
            assert end.owner is not None
            port = links.set_up(name, bridge_index=self._bridge(end.owner))
            stack.route.apply([links.alias(name, f"{end.owner}:{end.name}"), port])
        elif end.owner is None:
            stack.route.apply([links.set_up(name)])
        # An end whose node is not there stays down: its neighbour sees a cable without a partner.

    def _bring_up(self, stack: Stack, end: End, found: dict[str, LinkState], *, to_agent: bool = False) -> None:
        self._offloads.turn_off(stack.ioctl, end.name, to_agent=to_agent)
        interface = end.interface
        if interface is None:
            # Frames here are the agent's. Should the kernel look at one all the same, the strict filter drops it.
            rp_filter = 1 if end.is_wire_side else None
            stack.route.apply([links.set_up(end.name, flags=WIRE_FLAGS, rp_filter=rp_filter)])
            return
        if any(address.version == 6 for address in interface.addresses):
            with in_network_namespace(stack.namespace):
                write_sysctls({f"ipv6/conf/{end.name}/disable_ipv6": "0"}, self._proc)
        requests: list[Request] = [links.set_up(end.name)]
        index = found[end.name].index
        requests += [addresses.address(index, end.name, address) for address in interface.addresses]
        stack.route.apply(requests)

    def _bridge(self, switch: str) -> int:
        if switch not in self._bridges:
            self._bridges_made += 1
            name = f"br{self._bridges_made}"
            route = self._fabric.route
            route.apply([links.bridge(name, switch), links.alias(name, switch), links.set_up(name)])
            self._bridges[switch] = links.list_links(route)[name]
        return self._bridges[switch].index

    def _name_in_fabric(self, end: End) -> str:
        # Names in the fabric's namespace are numbers: a switch's name may be longer than an interface's can be.
        if end.is_switch:
            self._ports += 1
            return f"port{self._ports}"
        self._parked += 1
        return f"parked{self._parked}"

    def _plug(self, laid: _Laid, number: int, end: End) -> None:
        assert end.owner is not None
        target = self._nodes[end.owner]
        parked = links.list_links(self._fabric.route)[laid.names[number]]
        self._fabric.route.apply([links.move(parked.index, laid.names[number], target.namespace, end.name, end.mac)])
        laid.places[number], laid.names[number] = end.owner, end.name
        self._settle(laid, number, end)

    def _park(self, stack: Stack, laid: _Laid, number: int) -> None:
        end = laid.wire.ends[number]
        name = self._name_in_fabric(end)
        here = links.list_links(stack.route)[laid.names[number]]
        stack.route.apply([links.move(here.index, laid.names[number], self._fabric.namespace, name, end.mac)])
        laid.places[number], laid.names[number] = None, name


def _replaceable(wire: Wire) -> int:
    """The end to make anew when a wire is opened or closed: no agent and no bridge of ours must lose what it holds.

    A switch's port is nothing to anybody; the wire side of a crypto interface has its agent's packet sockets.
    """
    return min((1, 0), key=lambda number: (not wire.ends[number].is_switch, wire.ends[number].is_wire_side))


def _veth(end: End, namespace: int) -> VethEnd:
    return VethEnd(end.name, end.mac, namespace, end.mtu)


def _interface_towards(route: Route, configuration: NodeConfiguration) -> str:
    """The interface whose own network has the route's next hop; an empty name if none has."""
    return next(
        (
            interface.name
            for interface in configuration.interfaces
            if any(route.next_hop in address.network for address in interface.addresses)
        ),
        "",
    )
