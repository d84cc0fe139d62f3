"""A scenario under one seed, from its beginning to its end, and what came out."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cache

from labctl.crypto import RsaPrivateKey, generate_rsa_key
from labctl.simulation import faults
from labctl.simulation.invariants import Invariant, Violation
from labctl.simulation.network import NetworkCounts
from labctl.simulation.scenario import Scenario
from labctl.simulation.timeline import Line, Timeline
from labctl.simulation.world import RunCounts, World

LINES = 2000

# Signing is what a rekey costs most. The length of the key decides nothing here.
SIGNING_BITS = 1024


@dataclass(frozen=True, slots=True)
class Result:
    """What a run showed. `checks` says how often each invariant was looked at."""

    seed: int
    seconds: float
    members: int
    registered: int
    violations: tuple[Violation, ...]
    checks: Counter[Invariant]
    counts: RunCounts
    network: NetworkCounts
    messages: Counter[str]
    lines: tuple[Line, ...]
    left_out: int
    # Rekeys that key servers have begun, over all their lives.
    rekeys_sent: int


@cache
def signing_key() -> RsaPrivateKey:
    """One for all runs of a process."""
    return generate_rsa_key(SIGNING_BITS)


def simulate(
    scenario: Scenario, seed: int, *, lines: int = LINES, routine: bool = False, sharing: bool = True
) -> Result:
    """Run it. The same scenario and seed give the same result, whatever the machine.

    With `sharing`, what all members would do alike is done once (`simulation.sharing`).
    """
    world = World(scenario, seed, signing_key(), Timeline(lines, routine), sharing=sharing)
    faults.schedule(world, seed, scenario.duration)
    world.run(scenario.duration)
    messages = world.timeline.messages
    return Result(
        seed=seed,
        seconds=scenario.duration,
        members=len(world.members),
        registered=sum(bool(member.held) for member in world.members),
        violations=tuple(world.invariants.violations),
        checks=world.invariants.checks,
        counts=world.counts,
        network=world.network.counts,
        messages=messages,
        lines=tuple(world.timeline.lines),
        left_out=world.timeline.left_out,
        rekeys_sent=messages["KS_SEND_UNICAST_REKEY"] + messages["KS_SEND_MCAST_REKEY"],
    )
