"""What is simulated: a group, its parties, the network between them and what goes wrong. Times in seconds."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from ipaddress import IPv4Address

from labctl.configuration import GroupIdentity, IsakmpPolicy, KeyServerGroup

HOUR = 3600.0
DAY = 86400.0

# Key servers have the first addresses of one network, members those of another.
FIRST_KEY_SERVER = IPv4Address("172.16.0.1")
FIRST_MEMBER = IPv4Address("172.20.0.1")
MOST_MEMBERS = 1 << 18


@dataclass(frozen=True, slots=True)
class NetworkConditions:
    """What happens to every datagram. Shares are from 0 to 1; `delay` is one way, `jitter` adds up to that much.

    A reordered datagram is late by up to ten times `delay` more, so that others overtake it.
    """

    delay: float = 0.02
    jitter: float = 0.005
    loss: float = 0.0
    duplication: float = 0.0
    reordering: float = 0.0


@dataclass(frozen=True, slots=True)
class Rate:
    """Something that happens by chance: so often a day (over all parties of a kind), and how long it lasts."""

    per_day: float = 0.0
    shortest: float = 0.0
    longest: float = 0.0


@dataclass(frozen=True, slots=True)
class Faults:
    """What goes wrong by chance. A partition cuts a share of the parties off from the others.

    `orders` are of the kind that an operator gives: rekeys, clears, evictions. `replays` are old rekeys that somebody
    recorded and sends again.
    """

    partitions: Rate = Rate()
    member_restarts: Rate = Rate()
    key_server_restarts: Rate = Rate()
    orders: Rate = Rate()
    replays: Rate = Rate()


class OrderKind(Enum):
    """What a scenario can have somebody do at a time. The party named is a member (m1...) or a key server (ks1...)."""

    REKEY = "rekey"
    REPLACE_NOW = "replace-now"
    CLEAR_MEMBERS = "clear-members"
    CLEAR_MEMBERS_NOW = "clear-members-now"
    EVICT = "evict"
    ALLOW = "allow"
    CLEAR = "clear"
    REREGISTER = "reregister"
    CUT = "cut"
    RESTART = "restart"


@dataclass(frozen=True, slots=True)
class Order:
    """At a time, for `duration` where it takes time (a cut, the down time of a restart)."""

    at: float
    kind: OrderKind
    party: str
    duration: float = 0.0


@dataclass(frozen=True, slots=True)
class Scenario:
    """A design under test. `group` is the key servers' configuration, its address replaced by each one's own."""

    name: str
    group: KeyServerGroup
    isakmp_policies: tuple[IsakmpPolicy, ...] = (IsakmpPolicy(),)
    members: int = 3
    key_servers: int = 1
    duration: float = 30 * DAY
    # Members come up one after the other within this time.
    arrival: float = 60.0
    network: NetworkConditions = NetworkConditions()
    faults: Faults = Faults()
    orders: tuple[Order, ...] = field(default_factory=tuple)

    @property
    def identity(self) -> GroupIdentity:
        """The group's."""
        return self.group.identity

    def member_address(self, number: int) -> IPv4Address:
        """Of member `number`, from 0."""
        return FIRST_MEMBER + number

    def key_server_address(self, number: int) -> IPv4Address:
        """Of key server `number`, from 0."""
        return FIRST_KEY_SERVER + number
