"""What is simulated: a group, its parties, the network between them and what goes wrong. Times in seconds."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import Enum
from ipaddress import IPv4Address

from labctl.configuration import GroupIdentity, IsakmpPolicy, KeyServerGroup

HOUR = 3600.0
DAY = 86400.0

# Key servers have the first addresses of one network, members those of another.
FIRST_KEY_SERVER = IPv4Address("172.16.0.1")
FIRST_MEMBER = IPv4Address("172.20.0.1")
MOST_MEMBERS = 1 << 18

# Identities of the second group and those after it.
OTHER_IDENTITIES = 1_000_000


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
    """What a scenario can have somebody do at a time. The party named is a member (m1...) or a key server (ks1...).

    The policy is changed (RECEIVE_ONLY, BOTH_WAYS, TEK_LIFETIME) on every key server: it counts from the next rekey on.
    """

    REKEY = "rekey"
    REPLACE_NOW = "replace-now"
    CLEAR_MEMBERS = "clear-members"
    CLEAR_MEMBERS_NOW = "clear-members-now"
    EVICT = "evict"
    ALLOW = "allow"
    CLEAR = "clear"
    REREGISTER = "reregister"
    RECEIVE_ONLY = "receive-only"
    BOTH_WAYS = "both-ways"
    TEK_LIFETIME = "tek-lifetime"
    CUT = "cut"
    RESTART = "restart"


@dataclass(frozen=True, slots=True)
class Order:
    """At a time, for `duration` where it takes time (a cut, the down time of a restart, the life of new TEKs)."""

    at: float
    kind: OrderKind
    party: str
    duration: float = 0.0


@dataclass(frozen=True, slots=True)
class MemberTraits:
    """How a member is configured (reference/cisco-getvpn.md 2.7, 2.8). `recovery_check` in seconds."""

    fail_close: bool = False
    fail_close_revert: bool = False
    passive: bool = False
    recovery_check: int | None = None


PLAIN = MemberTraits()


@dataclass(frozen=True, slots=True)
class Scenario:
    """A design under test. `group` is the key servers' configuration, its address replaced by each one's own.

    With several `groups`, all alike but for identity and multicast address, members are in one after the other. They
    have the `traits` in turn.
    """

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
    groups: int = 1
    traits: tuple[MemberTraits, ...] = (PLAIN,)

    def numbered_group(self, number: int) -> KeyServerGroup:
        """Group `number`, from 0, as its key servers have it."""
        if not number:
            return self.group
        address = self.group.rekey.address
        return replace(
            self.group,
            name=f"{self.group.name}-{number + 1}",
            identity=GroupIdentity(number=OTHER_IDENTITIES + number),
            rekey=replace(self.group.rekey, address=None if address is None else address + number),
        )

    def group_of(self, member: int) -> int:
        """The number of the group that a member is in."""
        return member % self.groups

    def traits_of(self, member: int) -> MemberTraits:
        """How member `member`, from 0, is configured."""
        return self.traits[member % len(self.traits)]

    def member_address(self, number: int) -> IPv4Address:
        """Of member `number`, from 0."""
        return FIRST_MEMBER + number

    def key_server_address(self, number: int) -> IPv4Address:
        """Of key server `number`, from 0."""
        return FIRST_KEY_SERVER + number
