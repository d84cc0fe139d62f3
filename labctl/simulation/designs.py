"""A design and a network for each seed: what the invariants must survive is not one group on one bad day.

Drawn are transport, lifetimes, delays, transforms, the number of members and of key servers, the network and how often
each fault comes. Lives of keys are between four hours and four days, so that a month holds two hundred rekeys at most.
"""

from __future__ import annotations

import random
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

from labctl.configuration import (
    AccessListEntry,
    Acknowledgement,
    Action,
    Cipher,
    DhGroup,
    GroupIdentity,
    Integrity,
    IsakmpPolicy,
    KeyServerGroup,
    RekeyPolicy,
    RekeyTransport,
    SaIpsec,
    TransformSet,
)
from labctl.simulation.scenario import (
    DAY,
    FIRST_KEY_SERVER,
    HOUR,
    PLAIN,
    Faults,
    MemberTraits,
    NetworkConditions,
    Rate,
    Scenario,
)

GROUP = "SIMULATED"
_SITES = IPv4Network("10.0.0.0/8")
_VOICE = IPv4Network("172.30.0.0/16")
_REKEYS = IPv4Address("239.192.0.1")
_TRANSFORMS = (
    TransformSet(Cipher.AES_GCM, 256),
    TransformSet(Cipher.AES_CBC, 256, Integrity.SHA256),
)
# Phase 1 of a simulated party: the fastest group, because no result depends on it.
ISAKMP = (IsakmpPolicy(group=DhGroup.ECP256),)

# Cuts as long as a key's life come in a few designs: a member that reaches nobody does nothing but ask, every minute.
_LONGEST_CUTS = (HOUR, HOUR, HOUR, 4 * HOUR, 4 * HOUR, DAY)

# The share of designs with a key tree.
_TREES = 0.4

_SHORTEST_TEK, _LONGEST_TEK = 4 * HOUR, 4 * DAY

# Members of one group may be configured one way or another.
_TRAITS = (
    (PLAIN,),
    (MemberTraits(fail_close=True),),
    (MemberTraits(fail_close=True, fail_close_revert=True), MemberTraits(recovery_check=300)),
    (MemberTraits(recovery_check=60), MemberTraits(fail_close=True, recovery_check=600), MemberTraits(passive=True)),
)


def design(seed: int, *, duration: float = 30 * DAY) -> Scenario:
    """The design of a seed."""
    chance = random.Random(f"design {seed}")
    tek = int(_between(chance, _SHORTEST_TEK, _LONGEST_TEK))
    planned = group(chance, tek)
    # By a chance of its own: the rest of a seed's design is what it was before there were key trees.
    tree = random.Random(f"tree {seed}").random() < _TREES
    return Scenario(
        name=f"chaos {seed}",
        group=replace(planned, rekey=replace(planned.rekey, key_tree=tree)),
        isakmp_policies=ISAKMP,
        members=chance.randint(2, 4),
        key_servers=chance.choice((1, 1, 1, 2)),
        groups=chance.choice((1, 1, 1, 2)),
        traits=chance.choice(_TRAITS),
        duration=duration,
        network=_network(chance),
        faults=Faults(
            partitions=Rate(_rate(chance, 0.3), 1.0, chance.choice(_LONGEST_CUTS)),
            member_restarts=Rate(_rate(chance, 0.3), 1.0, DAY),
            key_server_restarts=Rate(_rate(chance, 0.1), 1.0, DAY / 6),
            orders=Rate(_rate(chance, 0.5), 60.0, HOUR),
            replays=Rate(_rate(chance, 1.0)),
        ),
    )


def group(chance: random.Random, tek: int) -> KeyServerGroup:
    """A group that a key server would take."""
    transport = chance.choice((RekeyTransport.UNICAST, RekeyTransport.MULTICAST))
    sends = chance.random() < 0.9
    interval, count = chance.choice((10, 10, 20, 60)), chance.randint(1, 3)
    activation = chance.choice((0, 0, 30))
    copies = interval * count
    deactivation = max(activation + copies, 2 * copies) + chance.choice((10, 300)) if chance.random() < 0.2 else 0
    first = SaIpsec((AccessListEntry(Action.PERMIT, 0, _SITES, _SITES),), chance.choice(_TRANSFORMS), tek)
    kek = max(tek, int(_between(chance, 3 * HOUR, 10 * DAY)))
    acknowledgement = chance.choice(tuple(Acknowledgement))
    # A second `sa ipsec` entry is renewed at other times than the first.
    second = SaIpsec(
        (AccessListEntry(Action.PERMIT, 0, _VOICE, _VOICE),),
        chance.choice(_TRANSFORMS),
        int(tek * _between(chance, 0.4, 1.0)),
        number=2,
    )
    return KeyServerGroup(
        name=GROUP,
        identity=GroupIdentity(number=1),
        address=FIRST_KEY_SERVER,
        sas=(first, second) if chance.random() < 0.3 else (first,),
        rekey=RekeyPolicy(
            lifetime=kek,
            transport=transport if sends else RekeyTransport.MULTICAST,
            address=_REKEYS if sends and transport is RekeyTransport.MULTICAST else None,
            retransmit_interval=interval,
            retransmit_count=count,
            acknowledgement=acknowledgement,
        ),
        activation_delay=activation,
        deactivation_delay=deactivation,
    )


def _network(chance: random.Random) -> NetworkConditions:
    return NetworkConditions(
        delay=_between(chance, 0.001, 0.3),
        jitter=chance.choice((0.0, 0.005, 0.1)),
        loss=chance.choice((0.0, 0.001, 0.02, 0.1)),
        duplication=chance.choice((0.0, 0.0, 0.05)),
        reordering=chance.choice((0.0, 0.0, 0.05)),
    )


def _between(chance: random.Random, low: float, high: float) -> float:
    """Log-uniform."""
    return float(low * (high / low) ** chance.random())


def _rate(chance: random.Random, usual: float) -> float:
    """Never, as usual, or often."""
    return usual * chance.choice((0.0, 1.0, 3.0))
