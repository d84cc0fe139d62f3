"""What a seed does to a run: partitions, crashes, orders and replays at random moments, as often as the rates say."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial

from labctl.simulation.orders import carry_out, cut, restart
from labctl.simulation.scenario import DAY, Order, OrderKind, Rate
from labctl.simulation.world import World

_AT_SERVER = (OrderKind.REKEY, OrderKind.REPLACE_NOW, OrderKind.CLEAR_MEMBERS, OrderKind.CLEAR_MEMBERS_NOW)
_POLICY = (OrderKind.RECEIVE_ONLY, OrderKind.BOTH_WAYS, OrderKind.BOTH_WAYS, OrderKind.TEK_LIFETIME)
# Evictions that last: one in five where keys live for half a day at most. An evicted member asks again every minute.
_LASTING, _LONGEST_WATCHED = 0.2, DAY / 2
# What a policy that somebody changes makes of the life of keys.
_SHORTER, _LONGER = 0.6, 1.4
_AT_MEMBER = (OrderKind.CLEAR, OrderKind.REREGISTER, OrderKind.EVICT)


def schedule(world: World, seed: int, until: float) -> None:
    """Put every fault of the run into its queue."""
    faults, chance = world.scenario.faults, random.Random(f"faults {seed}")
    for rate, make in (
        (faults.partitions, _partition),
        (faults.member_restarts, _member_restart),
        (faults.key_server_restarts, _server_restart),
        (faults.orders, _order),
        (faults.replays, _replay),
    ):
        for moment in _moments(rate, chance, until):
            world.at(moment, make(world, rate, chance))


def _moments(rate: Rate, chance: random.Random, until: float) -> list[float]:
    """A Poisson process."""
    found: list[float] = []
    moment = 0.0
    while rate.per_day > 0:
        moment += chance.expovariate(rate.per_day / DAY)
        if moment > until:
            break
        found.append(moment)
    return found


def _duration(rate: Rate, chance: random.Random) -> float:
    """Short ones are as likely as long ones, whatever the range: the logarithm is even."""
    if rate.shortest <= 0:
        return chance.uniform(rate.shortest, rate.longest)
    return float(rate.shortest * (rate.longest / rate.shortest) ** chance.random())


def _partition(world: World, rate: Rate, chance: random.Random) -> Callable[[], None]:
    parties = list(world.by_name.values())
    share = chance.choice((1, 1, max(1, len(parties) // 3), max(1, len(parties) // 2)))
    inside = frozenset(party.address for party in chance.sample(parties, share))
    return partial(cut, world, inside, _duration(rate, chance))


def _member_restart(world: World, rate: Rate, chance: random.Random) -> Callable[[], None]:
    return partial(restart, world, chance.choice(world.members), _duration(rate, chance))


def _server_restart(world: World, rate: Rate, chance: random.Random) -> Callable[[], None]:
    return partial(restart, world, chance.choice(world.servers), _duration(rate, chance))


def _order(world: World, rate: Rate, chance: random.Random) -> Callable[[], None]:
    kind = chance.choice(_AT_SERVER + _AT_MEMBER + _POLICY)
    party = chance.choice(world.members if kind in _AT_MEMBER else world.servers).name
    back = _duration(rate, chance)
    group = world.scenario.group
    longest = max(sa.tek_lifetime for sa in group.sas)
    if longest < _LONGEST_WATCHED and chance.random() < _LASTING:
        # Until every key that it may still have has ended: nobody sends under one by then.
        back = 1.1 * world.invariants.healing_seconds
    life = min(chance.uniform(_SHORTER, _LONGER) * group.sas[0].tek_lifetime, group.rekey.lifetime)

    def give() -> None:
        carry_out(world, Order(world.now, kind, party, life if kind is OrderKind.TEK_LIFETIME else 0.0))
        if kind is OrderKind.EVICT:
            world.at(world.now + back, partial(carry_out, world, Order(world.now + back, OrderKind.ALLOW, party)))

    return give


def _replay(world: World, rate: Rate, chance: random.Random) -> Callable[[], None]:
    return world.replay
