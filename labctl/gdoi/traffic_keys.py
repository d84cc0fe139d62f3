"""The TEKs of a group on its key server: made for a policy, replaced before they end, shortened (RFC 6407 5.4, 5.6.2).

Each `sa ipsec` entry has keys of its own, with a lifetime of their own. Lifetimes: reference/cisco-getvpn.md 2.2-2.5.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

from labctl.configuration import AccessListEntry, Action, GroupIdentity, SaIpsec
from labctl.gdoi import encoding, numbers
from labctl.gdoi.access_lists import permits_of
from labctl.gdoi.payloads import KeyPacket, SaTek
from labctl.gdoi.policy import TrafficEncryptionKey
from labctl.gdoi.pseudotime import Pseudotime
from labctl.gdoi.spi import new_spi
from labctl.gdoi.timing import Timing
from labctl.isakmp.header import Doi
from labctl.isakmp.main_mode import RandomSource
from labctl.isakmp.payloads import Delete


@dataclass(frozen=True, slots=True)
class Generation:
    """The TEKs made at one time for one `sa ipsec` entry: one for its whole list or, with counter modes, one for each
    permit; SPIs by entry."""

    sa: SaIpsec
    teks: dict[int, TrafficEncryptionKey] = field(repr=False)
    entries: dict[AccessListEntry, int]

    @property
    def expires(self) -> float:
        """The end of its life."""
        return next(iter(self.teks.values())).expires

    def ending(self, expires: float) -> Generation:
        """The same, ended earlier; never later."""
        teks = {spi: tek.ending(expires) for spi, tek in self.teks.items()}
        return Generation(self.sa, teks, self.entries)


class TrafficKeys:
    """Generations of TEKs, oldest first. Several live side by side: members take what is sent under any of them.

    `sas` are what `access_lists.honoured` leaves of a configuration.
    """

    def __init__(self, identity: GroupIdentity, random: RandomSource, timing: Timing) -> None:
        self.generations: list[Generation] = []
        self._identity = identity
        self._random = random
        self._timing = timing

    # Time.

    @property
    def expires(self) -> float:
        """When the youngest key ends; 0 where there is none."""
        return max((generation.expires for generation in self.generations), default=0.0)

    def ends(self) -> list[float]:
        """When keys end."""
        return [generation.expires for generation in self.generations]

    def drop(self, now: float) -> None:
        """Forget what has ended."""
        self.generations = [generation for generation in self.generations if generation.expires > now]

    def newest(self, number: int) -> Generation | None:
        """The youngest keys of an `sa ipsec` entry."""
        return next((item for item in reversed(self.generations) if item.sa.number == number), None)

    def due(self, sa: SaIpsec, budget: float) -> float:
        """When its next generation is to be made. `budget`: what sending it may take (seconds)."""
        newest = self.newest(sa.number)
        if newest is None:
            return float("-inf") if permits_of((sa,)) else float("inf")
        return newest.expires - self._timing.tek_lead(newest.sa.tek_lifetime, budget)

    def shorten(self, now: float) -> None:
        """What a triggered rekey leaves of the lives (reference/cisco-getvpn.md 2.5)."""
        self.generations = [
            generation.ending(now + self._timing.shortened(generation.expires - now, generation.sa.tek_lifetime))
            for generation in self.generations
        ]

    # Keys.

    def make(self, sas: Sequence[SaIpsec], due: Collection[int], now: float, ends: float | None = None) -> None:
        """New keys for the entries that are due, new or changed. What they replace, and what has no entry any more,
        ends at `ends` or, without, in its own time."""
        wanted = [sa for sa in sas if permits_of((sa,)) and (sa.number in due or self._outdated(sa))]
        if ends is not None:
            kept = {sa.number for sa in sas} - {sa.number for sa in wanted}
            self.generations = [
                generation if generation.sa.number in kept else generation.ending(ends)
                for generation in self.generations
            ]
        for sa in wanted:
            self._make(sa, now)

    def _outdated(self, sa: SaIpsec) -> bool:
        newest = self.newest(sa.number)
        return newest is None or newest.sa != sa

    def _make(self, sa: SaIpsec, now: float) -> None:
        used = {spi for generation in self.generations for spi in generation.teks}
        first, *others = permits_of((sa,))
        entries = {first: self._new_tek(sa, used, now)}
        for entry in others:
            if sa.transform.uses_counter_mode:
                used.update(tek.spi for tek in entries.values())
                entries[entry] = self._new_tek(sa, used, now)
            else:
                entries[entry] = entries[first]
        teks = {tek.spi: tek for tek in entries.values()}
        self.generations.append(Generation(sa, teks, {entry: tek.spi for entry, tek in entries.items()}))

    def _new_tek(self, sa: SaIpsec, used: set[int], now: float) -> TrafficEncryptionKey:
        return TrafficEncryptionKey(
            new_spi(self._identity, used, self._random),
            sa.transform,
            self._random(numbers.encryption_key_octets(sa.transform)),
            self._random(numbers.INTEGRITY_OCTETS[sa.transform.integrity]),
            sa.tek_lifetime,
            now + sa.tek_lifetime,
            sa.replay,
        )

    # What members are told.

    def policy(
        self,
        sas: Sequence[SaIpsec],
        now: float,
        *,
        private: bool,
        receive_only: bool = False,
        clock: Pseudotime | None = None,
    ) -> tuple[SaTek, ...]:
        """SATs. `private`: the peer knows our code points, so deny entries and anti-replay can be told too."""
        told: list[SaTek] = []
        for index, entry in enumerate(entry for sa in sas for entry in sa.policy):
            if entry.action is Action.DENY:
                if private:
                    told.append(encoding.sa_bypass(entry, index))
                continue
            order = index if private else None
            told += [
                encoding.sa_tek(
                    entry,
                    generation.teks[generation.entries[entry]],
                    now,
                    order,
                    receive_only=receive_only,
                    clock=clock,
                )
                for generation in self.generations
                if entry in generation.entries
            ]
        return tuple(told)

    def packets(self, sas: Sequence[SaIpsec]) -> tuple[KeyPacket, ...]:
        """The keys of what `policy` says at the same moment."""
        told = {entry for sa in sas for entry in sa.policy if entry.action is Action.PERMIT}
        packets: list[KeyPacket] = []
        for generation in self.generations:
            spis = {spi for entry, spi in generation.entries.items() if entry in told}
            packets += [encoding.tek_packet(tek) for spi, tek in generation.teks.items() if spi in spis]
        return tuple(packets)


def delete_teks(generations: Iterable[Generation]) -> Delete:
    """The Delete payload that takes these keys from members at once (RFC 6407 5.8; reference 4.5)."""
    spis = tuple(spi.to_bytes(4, "big") for generation in generations for spi in generation.teks)
    return Delete(int(Doi.GDOI), numbers.SaProtocol.ESP, 4, spis)
