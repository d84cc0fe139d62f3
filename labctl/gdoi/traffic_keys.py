"""The TEKs of a group on its key server: made for a policy, replaced before they end, shortened (RFC 6407 5.4, 5.6.2).

Lifetimes: reference/cisco-getvpn.md 2.2-2.5.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from labctl.configuration import AccessListEntry, Action, KeyServerGroup, TransformSet
from labctl.gdoi import encoding, numbers
from labctl.gdoi.payloads import KeyPacket, SaTek
from labctl.gdoi.policy import TrafficEncryptionKey
from labctl.gdoi.spi import new_spi
from labctl.gdoi.timing import Timing
from labctl.isakmp.header import Doi
from labctl.isakmp.main_mode import RandomSource
from labctl.isakmp.payloads import Delete


@dataclass(frozen=True, slots=True)
class Generation:
    """The TEKs made at one time: one for all entries, or one for each with counter modes; SPIs by entry."""

    teks: dict[int, TrafficEncryptionKey] = field(repr=False)
    entries: dict[AccessListEntry, int]

    @property
    def expires(self) -> float:
        """The end of its life."""
        return next(iter(self.teks.values())).expires

    @property
    def lifetime(self) -> float:
        """What it was made for (seconds)."""
        return next(iter(self.teks.values())).lifetime

    def ending(self, expires: float) -> Generation:
        """The same, ended earlier; never later."""
        teks = {spi: tek.ending(expires) for spi, tek in self.teks.items()}
        return Generation(teks, self.entries)


class TrafficKeys:
    """Generations of TEKs, oldest first. Several live side by side: members take what is sent under any of them."""

    def __init__(self, random: RandomSource, timing: Timing) -> None:
        self.generations: list[Generation] = []
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

    def due(self, configuration: KeyServerGroup, budget: float) -> float:
        """When the next generation is to be made. `budget`: what sending it may take (seconds)."""
        return self.generations[-1].expires - self._timing.tek_lead(configuration.tek_lifetime, budget)

    def shorten(self, now: float) -> None:
        """What a triggered rekey leaves of the lives (reference/cisco-getvpn.md 2.5)."""
        self.generations = [
            generation.ending(now + self._timing.shortened(generation.expires - now, generation.lifetime))
            for generation in self.generations
        ]

    def end_by(self, moment: float) -> None:
        """No key that is there now lives longer than this."""
        self.generations = [generation.ending(moment) for generation in self.generations]

    # Keys.

    def make(self, configuration: KeyServerGroup, now: float) -> None:
        """Make a generation for the policy."""
        permits = [entry for entry in configuration.policy if entry.action is Action.PERMIT]
        used = {spi for generation in self.generations for spi in generation.teks}
        first = self._new_tek(configuration, used, now)
        entries = dict.fromkeys(permits, first)
        if configuration.transform.uses_counter_mode:
            for entry in permits[1:]:
                used.update(tek.spi for tek in entries.values())
                entries[entry] = self._new_tek(configuration, used, now)
        teks = {tek.spi: tek for tek in entries.values()}
        self.generations.append(Generation(teks, {entry: tek.spi for entry, tek in entries.items()}))

    def _new_tek(self, configuration: KeyServerGroup, used: set[int], now: float) -> TrafficEncryptionKey:
        transform: TransformSet = configuration.transform
        return TrafficEncryptionKey(
            new_spi(configuration.identity, used, self._random),
            transform,
            self._random(numbers.encryption_key_octets(transform)),
            self._random(numbers.INTEGRITY_OCTETS[transform.integrity]),
            configuration.tek_lifetime,
            now + configuration.tek_lifetime,
        )

    # What members are told.

    def policy(self, configuration: KeyServerGroup, now: float, *, private: bool) -> tuple[SaTek, ...]:
        """SATs. `private`: the peer knows our code points, so deny entries can be told too."""
        told: list[SaTek] = []
        for index, entry in enumerate(configuration.policy):
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
                    receive_only=configuration.receive_only,
                )
                for generation in self.generations
                if entry in generation.entries
            ]
        return tuple(told)

    def packets(self, configuration: KeyServerGroup) -> tuple[KeyPacket, ...]:
        """The keys of what `policy` says at the same moment."""
        told = {entry for entry in configuration.policy if entry.action is Action.PERMIT}
        packets: list[KeyPacket] = []
        for generation in self.generations:
            spis = {spi for entry, spi in generation.entries.items() if entry in told}
            packets += [encoding.tek_packet(tek) for spi, tek in generation.teks.items() if spi in spis]
        return tuple(packets)


def delete_teks(generations: Iterable[Generation]) -> Delete:
    """The Delete payload that takes these keys from members at once (RFC 6407 5.8; reference 4.5)."""
    spis = tuple(spi.to_bytes(4, "big") for generation in generations for spi in generation.teks)
    return Delete(int(Doi.GDOI), numbers.SaProtocol.ESP, 4, spis)
