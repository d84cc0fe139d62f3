"""The parties of a run: the real key server or member inside, which a crash throws away, and what is known of it."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address

from labctl.configuration import GroupMembership, KeyServerGroup, PreSharedKey
from labctl.crypto import RsaPrivateKey
from labctl.gdoi import GroupMember, KeyServer
from labctl.gdoi.push import Opener
from labctl.isakmp.endpoint import Limits
from labctl.simulation.crossing import Crossing
from labctl.simulation.scenario import PLAIN, MemberTraits, Scenario

# One secret for all: authentication is not what is simulated.
SECRET = b"simulated"

# What a run needs of memory; the real agents keep more.
EVENTS = 1000


@dataclass(slots=True, eq=False)
class Party:
    """A key server or a member: `engine` is None while it is down. `life` counts its starts."""

    name: str
    address: IPv4Address
    engine: KeyServer | GroupMember | None = None
    life: int = 0
    wake: float | None = None
    # When the network or a fault last got in its way.
    disturbed: float = 0.0

    def crash(self) -> None:
        """Everything it knew is gone."""
        self.engine = None
        self.wake = None


@dataclass(slots=True, eq=False)
class Server(Party):
    """A key server; `number` from 0."""

    number: int = 0

    @property
    def key_server(self) -> KeyServer | None:
        """What runs, while it runs."""
        assert self.engine is None or isinstance(self.engine, KeyServer)
        return self.engine

    def start(
        self, scenario: Scenario, groups: Sequence[KeyServerGroup], key: RsaPrivateKey, chance: random.Random
    ) -> None:
        """Boot, with the same signing key as before."""
        self.life += 1
        self.engine = KeyServer(
            [self.own(group) for group in groups],
            scenario.isakmp_policies,
            [PreSharedKey(scenario.member_address(item), SECRET) for item in range(scenario.members)],
            random=octets(chance),
            signing_key=key,
            limits=Limits(events=EVENTS),
        )

    def own(self, group: KeyServerGroup) -> KeyServerGroup:
        """The configuration of a group as this key server has it."""
        return replace(group, address=self.address, key_server_id=self.number)

    def revoke(self, group: str, addresses: Sequence[IPv4Address]) -> None:
        """Let these members in no more, before any of them has come."""
        if self.key_server is not None:
            self.key_server.group(group).revoked.update(addresses)


@dataclass(slots=True, eq=False)
class Member(Party):
    """A group member; `number` from 0. `served_by` is the key server, its life, and the group, of the keys it has."""

    number: int = 0
    group: str = ""
    traits: MemberTraits = PLAIN
    crossing: Crossing = field(default_factory=Crossing)
    served_by: tuple[str, int, str] | None = None
    evicted: bool = False
    evicted_at: float = 0.0
    # Keys of a key server when it evicted this member: it may hold no others.
    known: frozenset[int] | None = None
    # Something of the present keeps it from a key server; from every one.
    cut: bool = False
    alone: bool = False
    # Until when it is not judged by what it holds.
    healed: float = 0.0
    # An operator told it to forget its policy, until it is registered again.
    cleared: bool = False
    # SPIs of the keys that it holds and sends under, and the sender IDs that each was installed with.
    held: frozenset[int] = frozenset()
    sending: frozenset[int] = frozenset()
    sender_ids: dict[int, tuple[int, ...]] = field(default_factory=dict)
    # The KEK that it has; when it last heard a rekey that somebody had recorded; keys that such a rekey brought under a
    # KEK that was new as well.
    kek: bytes | None = None
    heard_replay: float = -1.0
    undated: set[int] = field(default_factory=set)
    # When its keys end, as it knows.
    ends: dict[int, float] = field(default_factory=dict)
    successes: int = 0
    rekeys: int = 0
    # Until when an order, or somebody's replay, is reason enough to register again.
    called_back: float = 0.0
    # Rekeys it has taken in this life: KEK and sequence number.
    taken: set[tuple[bytes, int]] = field(default_factory=set)
    # Since when it runs without keys, and up to when that time has been added up.
    unregistered_since: float | None = None
    accounted: float = 0.0

    @property
    def member(self) -> GroupMember | None:
        """What runs, while it runs."""
        assert self.engine is None or isinstance(self.engine, GroupMember)
        return self.engine

    def start(self, scenario: Scenario, now: float, chance: random.Random, opener: Opener | None) -> None:
        """Boot and register. `opener` may share with others the work of opening rekeys."""
        self.life += 1
        servers = tuple(scenario.key_server_address(item) for item in range(scenario.key_servers))
        group = scenario.numbered_group(scenario.group_of(self.number))
        membership = GroupMembership(
            group.name,
            group.identity,
            servers,
            "eth0",
            self.address,
            fail_close=() if self.traits.fail_close else None,
            fail_close_revert=self.traits.fail_close_revert,
            passive=self.traits.passive,
            recovery_check=self.traits.recovery_check,
            ipv6=group.ipv6,
        )
        keys = [PreSharedKey(server, SECRET) for server in servers]
        engine = GroupMember(membership, scenario.isakmp_policies, keys, random=octets(chance), opener=opener)
        self.engine = engine
        self.served_by = None
        self.held = self.sending = frozenset()
        self.successes = self.rekeys = 0
        self.taken = set()
        self.sender_ids = {}
        self.ends = {}
        self.kek = None
        self.undated = set()
        self.crossing = Crossing(membership)
        self.unregistered_since = self.accounted = now
        engine.start(now)


def octets(chance: random.Random) -> Callable[[int], bytes]:
    """The random source of a party."""
    return chance.randbytes
