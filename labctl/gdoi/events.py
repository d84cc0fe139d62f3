"""What a key server or a group member tells its agent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address

from labctl.configuration import Hash, SaDirection
from labctl.gdoi.policy import GroupKeys
from labctl.gdoi.pseudotime import Pseudotime
from labctl.isakmp.sa import Phase1Sa


@dataclass(frozen=True, slots=True)
class LogMessage:
    """A message of the syslog catalogue (reference/cisco-getvpn.md section 4)."""

    facility: str
    severity: int
    mnemonic: str
    text: str


@dataclass(frozen=True, slots=True)
class PolicyInstalled:
    """The keys and rules that count from now on; `sending` gives the SPI of each rule, None = nothing to send under.

    `clocks` are those of time stamps, by epoch.
    """

    group: str
    keys: GroupKeys
    sending: tuple[int | None, ...]
    direction: SaDirection = SaDirection.BOTH
    clocks: Mapping[int, Pseudotime] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StateChanged:
    """A member's state or reason, or a key server's members, have changed."""

    group: str


@dataclass(frozen=True, slots=True)
class Phase1KeyLog:
    """For a key log on request: the cipher key of a phase-1 SA, and where the IVs of its exchanges come from: its hash
    and the last block of phase 1 (RFC 2409 appendix B)."""

    cookies: bytes
    cipher_key: bytes = field(repr=False)
    hash: Hash
    last_block: bytes = field(repr=False)
    peer: IPv4Address

    @classmethod
    def of(cls, sa: Phase1Sa) -> Phase1KeyLog:
        """What there is to log of an SA."""
        return cls(sa.cookies, sa.keys.cipher_key, sa.keys.hash, sa.last_block, sa.peer.address)


@dataclass(frozen=True, slots=True)
class RekeyKeyLog:
    """For a key log on request: a KEK, which encrypts rekeys in CBC under its one IV (RFC 6407 5.6.2)."""

    spi: bytes
    iv: bytes = field(repr=False)
    key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class RekeyAddress:
    """Rekeys come to this multicast group from now on: join it on the crypto interface. None: leave the last one."""

    group: str
    address: IPv4Address | None
    source: IPv4Address | None = None


@dataclass(frozen=True, slots=True)
class KeysLost:
    """A member has no TEK any more. `policy` is True where the rules stay (their packets are dropped), False where
    they are gone as well, as before the first registration."""

    group: str
    policy: bool


Event = LogMessage | PolicyInstalled | StateChanged | Phase1KeyLog | RekeyKeyLog | RekeyAddress | KeysLost
