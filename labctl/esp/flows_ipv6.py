"""What is known of IPv6 flows that passed before, as labctl.esp.flows knows it of IPv4. Pure.

Known are packets whose header no extension header follows, and which are not ICMPv6, of which each may be a neighbour's
or about one of our own. `ends` are the 36 octets behind the hop limit: both addresses and both ports, or addresses and
SPI.
"""

from __future__ import annotations

from labctl.esp import ip
from labctl.esp.flows import Flows
from labctl.esp.ipv6 import EXTENSIONS
from labctl.esp.policy import CryptoPolicy

ADDRESSES = 32

# Whose packets each need a decision of their own.
UNKNOWABLE = EXTENSIONS | {ip.PROTOCOL_ICMPV6}


class KnownIpv6Flows(Flows):
    """The flows of one policy."""

    version, addresses = 6, ADDRESSES

    def __init__(self, policy: CryptoPolicy) -> None:
        super().__init__(policy, UNKNOWABLE, UNKNOWABLE | {ip.PROTOCOL_ESP})
