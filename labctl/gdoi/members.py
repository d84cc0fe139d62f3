"""Registered members, as their key server knows them (reference 4.7-4.8; reference/cisco-getvpn.md 2.4).

A multicast rekey costs the same for ten members and for ten thousand: what it changes for all is noted once.
"""

from __future__ import annotations

from collections.abc import Iterable
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
    # Until when its keys live, if it was the last to be given any: see `Members.keys_until`.
    own_keys_until: float = 0.0
    # Rekeys to everybody that had been by then.
    rounds: int = 0
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


class Members(dict[IPv4Address, Member]):
    """The members of one group by address, and until when each has keys: without new ones it is a member no more."""

    def __init__(self) -> None:
        super().__init__()
        self._rounds = 0
        self._everybody_until = 0.0
        # No member's keys end before.
        self._soonest = float("inf")
        # Those that do not know our code points.
        self._strangers: set[IPv4Address] = set()

    @property
    def all_private(self) -> bool:
        """True where every member knows our code points."""
        return not self._strangers

    def registered(self, member: Member, *, private: bool) -> None:
        """A member has registered, and does or does not know our code points."""
        member.private = private
        if private:
            self._strangers.discard(member.address)
        else:
            self._strangers.add(member.address)

    def hold(self, member: Member, until: float) -> None:
        """A member has keys until then."""
        member.own_keys_until, member.rounds = until, self._rounds
        self._soonest = min(self._soonest, until)

    def all_hold(self, until: float) -> None:
        """Every member has, or is taken to have, keys until then."""
        self._rounds += 1
        self._everybody_until = self._soonest = until

    def keys_until(self, member: Member) -> float:
        """Until when a member has keys."""
        return member.own_keys_until if member.rounds == self._rounds else self._everybody_until

    def without_keys(self, now: float) -> list[Member]:
        """Members whose keys have ended."""
        if now < self._soonest:
            return []
        self._soonest = min(map(self.keys_until, self.values()), default=float("inf"))
        return [member for member in self.values() if self.keys_until(member) <= now]

    # Whoever leaves is a stranger no more.

    def __delitem__(self, address: IPv4Address) -> None:
        super().__delitem__(address)
        self._strangers.discard(address)

    def leave(self, addresses: Iterable[IPv4Address]) -> list[Member]:
        """Take these out, and return them."""
        gone = [(address, self[address]) for address in addresses]
        for address, _ in gone:
            del self[address]
        return [member for _, member in gone]

    def clear(self) -> None:
        """Take everybody out."""
        super().clear()
        self._strangers.clear()
        self._soonest = float("inf")
