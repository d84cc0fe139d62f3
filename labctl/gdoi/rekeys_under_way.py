"""The rekeys of a group that are on their way: who still waits for them, who has answered, who has missed too many.

Reference 4.7-4.8; acknowledgements: RFC 8263.
"""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Address

from labctl.configuration import RekeyPolicy
from labctl.gdoi import ack
from labctl.gdoi.members import Member, Members
from labctl.gdoi.policy import KeyEncryptionKey
from labctl.gdoi.rekeying import Rekey
from labctl.gdoi.timing import Timing


class RekeysUnderWay:
    """Rekeys of one group, to the `members` that the group has at each moment (its own dictionary)."""

    def __init__(self, members: Members, timing: Timing) -> None:
        self.rekeys: list[Rekey] = []
        self.begun = 0
        # Who was forgotten, for as long as the group has not taken note.
        self.forgotten: set[IPv4Address] = set()
        self._members = members
        self._timing = timing

    def next_deadline(self) -> float | None:
        """When `transmit` has something to do."""
        deadlines = [deadline for rekey in self.rekeys if (deadline := rekey.next_deadline()) is not None]
        return min(deadlines, default=None)

    def launch(
        self, under: KeyEncryptionKey, datagram: Callable[[bool], bytes], policy: RekeyPolicy, now: float
    ) -> Rekey:
        """Begin a rekey to all members. `datagram` gives its octets: with our private code points, or without."""
        everybody = self._members.all_private
        if under.address is not None:
            return self.launch_to_each(under, lambda _: datagram(everybody), policy, now)
        members = dict(self._members)

        def datagram_for(receiver: IPv4Address) -> bytes:
            known = self._members.get(receiver) or members.get(receiver)
            return datagram(known is not None and known.private)

        return self.launch_to_each(under, datagram_for, policy, now)

    def launch_to_each(
        self, under: KeyEncryptionKey, datagram_for: Callable[[IPv4Address], bytes], policy: RekeyPolicy, now: float
    ) -> Rekey:
        """Begin a rekey to all members, not the same for all: `datagram_for` a member, or for the multicast group."""
        receivers = self._members if under.address is None else (under.address,)
        started = Rekey(under, datagram_for, receivers, policy, self._timing, now)
        # A later rekey under the same KEK says all that the one before said, whose time to be missed never came.
        self.rekeys = [item for item in self.rekeys if item.kek.spi != under.spi]
        self.rekeys.append(started)
        self.begun += 1
        started.number = self.begun
        return started

    def _close(self, rekey: Rekey) -> tuple[Member, ...]:
        """A rekey is over: whoever did not answer has missed it. Returns members that have missed too many."""
        self.rekeys.remove(rekey)
        lost = []
        if rekey.acknowledgement is not None:
            for address in rekey.waiting:
                member = self._members.get(address)
                if member is not None and member.answers:
                    member.missed += 1
                    if member.missed >= self._timing.missed_rekeys:
                        lost.append(member)
        for member in lost:
            self.forget(member)
        return tuple(lost)

    def forget(self, member: Member) -> None:
        """A member is one no more: nobody waits for it."""
        del self._members[member.address]
        self.forgotten.add(member.address)
        for rekey in self.rekeys:
            rekey.discard(member.address)

    def joined(self, address: IPv4Address, rekeys_seen: int | None, now: float) -> None:
        """A member has registered, and was given what was there after `rekeys_seen` rekeys (None: all)."""
        for rekey in list(self.rekeys):
            if rekeys_seen is None or rekey.number <= rekeys_seen:
                rekey.discard(address)
            elif rekey.kek.address is None:
                rekey.add(address, now)

    def transmit(self, now: float) -> tuple[list[tuple[IPv4Address, bytes]], tuple[Member, ...]]:
        """Copies of rekeys that have to leave now, and members that have missed too many."""
        out: list[tuple[IPv4Address, bytes]] = []
        lost: list[Member] = []
        for rekey in list(self.rekeys):
            out += rekey.due(now)
            if rekey.finished and rekey in self.rekeys:
                lost += self._close(rekey)
        return out, tuple(lost)

    def asked_under(self, spi: bytes) -> bool:
        """Does a rekey under the KEK with this SPI wait for acknowledgements?"""
        return any(rekey.kek.spi == spi and rekey.acknowledgement is not None for rekey in self.rekeys)

    def acknowledge(self, data: bytes, spi: bytes, source: IPv4Address, now: float) -> Member | None:
        """Take an acknowledgement. None for duplicates. Raises PeerError for what none of our rekeys asked for."""
        rekey = next((item for item in self.rekeys if item.kek.spi == spi), None)
        if rekey is None or rekey.acknowledgement is None:
            raise ack.Unsolicited("no rekey waits for this acknowledgement")
        if source in self._members and source not in rekey.waiting:
            return None  # before any cryptography (RFC 8263 5)
        told = ack.open_ack(data, rekey.acknowledgement, rekey.kek.key)
        address = IPv4Address(told.identity.data)
        if told.sequence != rekey.kek.sequence:
            return None
        rekey.discard(address)
        if rekey.finished and rekey in self.rekeys:
            self._close(rekey)
        member = self._members.get(address)
        if member is not None:
            member.acknowledged += 1
            member.acknowledged_at = now
            member.missed = 0
        return member
