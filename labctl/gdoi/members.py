"""A registered member, as its key server knows it (reference 4.7-4.8; reference/cisco-getvpn.md 2.4)."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address

from labctl import crypto


@dataclass(slots=True)
class Member:
    """A registered member, by the address that phase 1 authenticated.

    `private`: it knows our code points. `missed` rekeys in a row have gone without its acknowledgement.
    """

    address: IPv4Address
    registered: float
    registrations: int = 0
    sender_ids: tuple[int, ...] = ()
    # Until when its keys live: without new ones by then it is a member no more.
    keys_until: float = 0.0
    private: bool = False
    acknowledged: int = 0
    acknowledged_at: float | None = None
    missed: int = 0
    # From the one that phase 1 proved it with to a CA; none with a pre-shared key.
    certificates: tuple[crypto.Certificate, ...] = ()

    @property
    def answers(self) -> bool:
        """True for members that are known to acknowledge: others are never counted as lost (RFC 8263 5)."""
        return self.private or self.acknowledged > 0
