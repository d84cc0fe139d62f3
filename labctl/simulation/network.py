"""The virtual network: every datagram is lost, late, doubled or delivered, as chance and partitions decide."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from ipaddress import IPv4Address

from labctl.simulation.scenario import NetworkConditions


@dataclass(slots=True)
class NetworkCounts:
    """Datagrams by what became of them; a multicast copy counts as one."""

    sent: int = 0
    delivered: int = 0
    lost: int = 0
    cut: int = 0
    duplicated: int = 0


@dataclass(slots=True)
class Network:
    """Who reaches whom. A partition is a set of addresses that reach each other and nobody else."""

    conditions: NetworkConditions
    chance: random.Random
    counts: NetworkCounts = field(default_factory=NetworkCounts)
    partitions: list[frozenset[IPv4Address]] = field(default_factory=list)
    # Members of multicast groups.
    joined: dict[IPv4Address, set[IPv4Address]] = field(default_factory=dict)

    def reaches(self, one: IPv4Address, other: IPv4Address) -> bool:
        """True if no partition stands between two parties."""
        return not self.partitions or all((one in inside) == (other in inside) for inside in self.partitions)

    def join(self, group: IPv4Address | None, member: IPv4Address) -> None:
        """The member is in that multicast group and in no other."""
        for members in self.joined.values():
            members.discard(member)
        if group is not None:
            self.joined.setdefault(group, set()).add(member)

    def receivers(self, group: IPv4Address) -> list[IPv4Address]:
        """The members of a multicast group, in a fixed order."""
        return sorted(self.joined.get(group, ()))

    def arrivals(self, source: IPv4Address, receiver: IPv4Address) -> tuple[float, ...]:
        """How long each copy of a datagram takes; none if it is lost."""
        counts, conditions, chance = self.counts, self.conditions, self.chance
        counts.sent += 1
        if not self.reaches(source, receiver):
            counts.cut += 1
            return ()
        if conditions.loss and chance.random() < conditions.loss:
            counts.lost += 1
            return ()
        first = self._delay()
        if conditions.duplication and chance.random() < conditions.duplication:
            counts.duplicated += 1
            return first, self._delay()
        return (first,)

    def _delay(self) -> float:
        conditions, chance = self.conditions, self.chance
        delay = conditions.delay + chance.random() * conditions.jitter
        if conditions.reordering and chance.random() < conditions.reordering:
            delay += chance.random() * 10 * conditions.delay
        return delay
