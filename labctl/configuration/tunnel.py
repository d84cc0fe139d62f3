"""How packets that grow by encryption fit the way: `crypto ipsec fragmentation`, `crypto ipsec df-bit`, adjust-mss."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Fragmentation(Enum):
    """`crypto ipsec fragmentation`: split a packet that would not fit before it is encrypted (look-ahead), or after."""

    BEFORE = "before"
    AFTER = "after"


class DfBit(Enum):
    """`crypto ipsec df-bit`: the DF bit of the outer header. CLEAR splits packets that have it inside as well."""

    COPY = "copy"
    CLEAR = "clear"
    SET = "set"


@dataclass(frozen=True, slots=True)
class TunnelSettings:
    """What holds for every crypto map of a node.

    `learn_path_mtu`: believe routers of the provider that an ESP packet was too big for them. IOS does not: with the
    addresses kept they write to the hosts (reference/gdoi-protocol.md 6.4).
    """

    fragmentation: Fragmentation = Fragmentation.BEFORE
    df_bit: DfBit = DfBit.COPY
    learn_path_mtu: bool = False


@dataclass(frozen=True, slots=True)
class MssAdjustment:
    """`ip tcp adjust-mss SIZE` on an interface: no SYN passes it that offers more. Octets of TCP data."""

    interface: str
    size: int
