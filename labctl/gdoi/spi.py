"""SPIs of TEKs: the first bits are the group's, so that a member can tell whose key it lacks.

reference/cisco-getvpn.md 2.8 says that an SPI has "encoded group bits"; how many and which is our choice. Every key
server of a group derives the same from the group's identity, without telling each other.
"""

from __future__ import annotations

from labctl import crypto
from labctl.configuration import GroupIdentity, Hash
from labctl.gdoi import encoding
from labctl.gdoi.payloads.sa_tek import SMALLEST_SPI
from labctl.isakmp.main_mode import RandomSource

SPI_BITS = 32
GROUP_BITS = 8


def group_bits(identity: GroupIdentity) -> int:
    """The first GROUP_BITS of every SPI of the group."""
    return crypto.digest(Hash.SHA256, b"labctl SPI", encoding.group_identity(identity).pack())[0]


def new_spi(identity: GroupIdentity, used: set[int], random: RandomSource) -> int:
    """A random SPI of the group that is not in `used`."""
    first = group_bits(identity) << SPI_BITS - GROUP_BITS
    while (spi := first | int.from_bytes(random(3), "big")) < SMALLEST_SPI or spi in used:
        pass
    return spi


def may_be_of(identity: GroupIdentity, spi: int) -> bool:
    """Could this be an SPI of the group?"""
    return spi >> SPI_BITS - GROUP_BITS == group_bits(identity)
