"""Which addresses a packet bears where: what routers of a lab translate, on a packet's way through it.

IPv6 addresses are never translated.
"""

from __future__ import annotations

from ipaddress import IPv4Address

from labctl.configuration import NodeKind
from labctl.configuration.policy import Address
from labctl.topology.model import End
from labctl.topology.routing import Routing


class Translated:
    """Asks the translations of a lab, which its routing knows."""

    def __init__(self, routing: Routing) -> None:
        self._routing = routing
        self._translations = routing.translations
        self._own = {
            name: {end.interface: end.address.ip for _, end in routing.connected(name) if end.address is not None}
            for name in self._translations
        }

    def known_as(self, node: str, other: str, address: Address) -> Address:
        """The address by which `node` reaches `other`, at `address`: from outside of its ce, the inside global one."""
        for name, nat in self._translations.items():
            if self._routing.kind(name) is not NodeKind.CE or name == other:
                continue
            static = next((item for item in nat.statics if item.inside_local == address), None)
            if static is None:
                continue
            entered = [hop.entering for hop in self._routing.path(node, address) or ()]
            if any(end.node == name and end.interface in nat.outside for end in entered):
                return static.inside_global
        return address

    def outward(self, leaving: End, source: Address) -> Address:
        """The source of a packet that leaves there; of a pool, its first address."""
        nat = self._translations.get(leaving.node)
        if nat is None or leaving.interface not in nat.outside or not isinstance(source, IPv4Address):
            return source
        return (*nat.globals_of(source, self._own[leaving.node]), source)[0]

    def inward(self, entering: End, destination: Address, began: Address | None) -> Address:
        """The destination of a packet that comes in there; `began` is whom it answers, if it is an answer."""
        nat = self._translations.get(entering.node)
        if nat is None or entering.interface not in nat.outside or not isinstance(destination, IPv4Address):
            return destination
        if isinstance(began, IPv4Address) and destination in nat.globals_of(began, self._own[entering.node]):
            return began
        return nat.local_of(destination) or destination
