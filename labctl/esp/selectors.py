"""Selectors: what a packet is (addresses, protocol, ports), and whether an access-list entry means it."""

from __future__ import annotations

from typing import NamedTuple

from labctl.configuration import AccessListEntry, Action
from labctl.esp import ip, ipv6


class Flow(NamedTuple):
    """Addresses and ports as numbers; ports are 0 where `has_ports` is false.

    `is_later` is a fragment that does not begin its packet, and so has nothing of the headers behind IP's.
    """

    version: int
    source: int
    destination: int
    protocol: int
    source_port: int
    destination_port: int
    has_ports: bool
    is_later: bool = False

    @property
    def hides_its_protocol(self) -> bool:
        """True for a later fragment that begins with an extension header: what comes behind, the first one says."""
        return self.is_later and self.version == 6 and self.protocol in ipv6.EXTENSIONS


class Matcher:
    """An entry with its numbers ready."""

    __slots__ = (
        "destination",
        "destination_mask",
        "destination_port",
        "permits",
        "protocol",
        "source",
        "source_mask",
        "source_port",
        "version",
    )

    def __init__(self, entry: AccessListEntry) -> None:
        self.version = entry.source.version
        self.source = int(entry.source.network_address)
        self.source_mask = int(entry.source.netmask)
        self.destination = int(entry.destination.network_address)
        self.destination_mask = int(entry.destination.netmask)
        self.permits = entry.action is Action.PERMIT
        self.protocol = entry.protocol
        self.source_port = entry.source_port
        self.destination_port = entry.destination_port

    def matches(self, flow: Flow) -> bool:
        """True if the entry means this flow."""
        if flow.version != self.version:
            return False
        if self.protocol and flow.protocol != self.protocol and not (self.permits and flow.hides_its_protocol):
            return False
        if flow.source & self.source_mask != self.source:
            return False
        if flow.destination & self.destination_mask != self.destination:
            return False
        if not (self.source_port or self.destination_port):
            return True
        if not flow.has_ports:
            # Access lists of routers: of an entry with ports, what is permitted is so with all its fragments, and what
            # is denied is denied by the first alone. So a later one is never sent in clear because of what it lacks.
            return flow.is_later and self.permits
        return self.source_port in (0, flow.source_port) and self.destination_port in (0, flow.destination_port)


def read_flow(packet: memoryview) -> Flow:
    """Addresses, protocol and ports of a packet that `ip.check_packet` accepted. Raises DropPacket: ipv6.read_chain."""
    if packet[0] >> 4 == 4:
        header = (packet[0] & 15) * 4
        protocol = packet[9]
        later = int.from_bytes(packet[6:8], "big") & ip.OFFSET
        source = int.from_bytes(packet[12:16], "big")
        destination = int.from_bytes(packet[16:20], "big")
        version = 4
    else:
        chain = ipv6.read_chain(packet)
        header, protocol, later, version = chain.start, chain.protocol, chain.offset, 6
        source = int.from_bytes(packet[8:24], "big")
        destination = int.from_bytes(packet[24:40], "big")
    has_ports = protocol in ip.PORT_PROTOCOLS and not later and len(packet) >= header + 4
    source_port = int.from_bytes(packet[header : header + 2], "big") if has_ports else 0
    destination_port = int.from_bytes(packet[header + 2 : header + 4], "big") if has_ports else 0
    return Flow(version, source, destination, protocol, source_port, destination_port, has_ports, bool(later))
