"""UDP datagrams as the sans-IO parties see them."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address

# UDP port of GDOI (RFC 6407 2).
GDOI_PORT = 848


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An address and a UDP port."""

    address: IPv4Address
    port: int = GDOI_PORT

    @property
    def packed(self) -> bytes:
        """Six octets: address and port in network order."""
        return self.address.packed + self.port.to_bytes(2, "big")

    def __str__(self) -> str:
        return f"{self.address}:{self.port}"


@dataclass(frozen=True, slots=True)
class Datagram:
    """One UDP payload with where it comes from and where it goes."""

    data: bytes
    source: Endpoint
    destination: Endpoint
