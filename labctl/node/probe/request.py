"""What a probe is asked to do, with its limits, and the payload that its echoes carry."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from labctl.node.arguments import Arguments

# RFC 862; a node answers there only while somebody asked it to (`respond`).
ECHO_PORT = 7

# Limits of one probe: a request can neither flood a lab nor run for ever.
MAX_COUNT = 10_000
MAX_INTERVAL = 60.0
MAX_TIMEOUT = 60.0
MAX_SECONDS = 3600.0

# The longest payload of an IPv4 datagram behind an 8-octet ICMP or UDP header.
MAX_SIZE = 65_507
DEFAULT_SIZE = 56

# Token of the probe and number of the echo, in front of the marker.
TOKEN_OCTETS, NUMBER_OCTETS = 8, 4
HEAD_OCTETS = TOKEN_OCTETS + NUMBER_OCTETS


class Protocol(Enum):
    """What carries the echoes."""

    ICMP = "icmp"
    UDP = "udp"
    TCP = "tcp"


@dataclass(frozen=True, slots=True)
class ProbeRequest:
    """One probe. Times in seconds, `size` in octets of payload; `source` None leaves the choice to the kernel."""

    destination: IPv4Address | IPv6Address
    protocol: Protocol = Protocol.ICMP
    port: int = ECHO_PORT
    count: int = 3
    interval: float = 0.2
    timeout: float = 1.0
    size: int = DEFAULT_SIZE
    dscp: int = 0
    df: bool = False
    ttl: int | None = None
    source: IPv4Address | IPv6Address | None = None
    marker: bytes = b""

    @property
    def ipv6(self) -> bool:
        """True where its packets are IPv6."""
        return self.destination.version == 6

    def payload(self, token: bytes, number: int) -> bytes:
        """Token, number, then the marker as often as it fits, or a counting pattern."""
        filler = self.marker or bytes(range(256))
        room = self.size - HEAD_OCTETS
        return token + number.to_bytes(NUMBER_OCTETS, "big") + (filler * (room // len(filler) + 1))[:room]


def parse(values: Mapping[str, Any]) -> ProbeRequest:
    """The arguments of a `probe`. Raises DoorError."""
    args = Arguments("probe", values).known(
        *("destination", "protocol", "port", "count", "interval", "timeout", "size"),
        *("dscp", "df", "ttl", "source", "marker_b64"),
    )
    destination = args.any_address("destination")
    if destination is None:
        raise args.error("destination", "missing")
    try:
        protocol = Protocol(args.text("protocol", "icmp"))
    except ValueError:
        raise args.error("protocol", "it is icmp, udp or tcp") from None
    marker = args.octets("marker_b64")
    least = HEAD_OCTETS + len(marker)
    if least > MAX_SIZE:
        raise args.error("marker_b64", f"{len(marker)} octets do not fit a packet")
    size = args.integer("size", max(DEFAULT_SIZE, least), 0, MAX_SIZE)
    if size < least:
        raise args.error("size", f"{size} octets have no room for the {least} of a probe's head and marker")
    request = ProbeRequest(
        destination=destination,
        protocol=protocol,
        port=args.integer("port", ECHO_PORT, 1, 65535),
        count=args.integer("count", 3, 1, MAX_COUNT),
        interval=args.seconds("interval", 0.2, 0.0, MAX_INTERVAL),
        timeout=args.seconds("timeout", 1.0, 0.001, MAX_TIMEOUT),
        size=size,
        dscp=args.integer("dscp", 0, 0, 63),
        df=args.flag("df"),
        ttl=args.integer("ttl", 0, 0, 255) or None,
        source=_source(args, destination.version),
        marker=marker,
    )
    if request.count * request.interval > MAX_SECONDS:
        raise args.error("count", f"{request.count} echoes every {request.interval:g} s take over {MAX_SECONDS:g} s")
    return request


def _source(args: Arguments, version: int) -> IPv4Address | IPv6Address | None:
    source = args.any_address("source")
    if source is not None and source.version != version:
        raise args.error("source", f"{source} is not of the destination's version of IP")
    return source
