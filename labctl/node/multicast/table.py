"""Who is on each interface of a multicast router, and what follows: where a flow goes, which groups to ask for.

Sources: IGMP querier and memberships, RFC 3376 6-7; forwarding of reports towards the provider, RFC 4605; neighbours
and the election of one forwarder on a link with several, RFC 7761 4.3, 4.6. `level` is how many routers stand between
one and the provider's core: 0 for the core itself, one more than the best neighbour's for everybody else.

Loops: a packet is taken only from the interface that leads to its source, so it travels a tree whatever the links
are; memberships are passed on towards a lower level, and beside us only what came from a higher one or a host, so that
no routers keep each other's alive.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from ipaddress import IPv4Address

from labctl.node.multicast.igmp import Membership, Query
from labctl.node.multicast.pim import Assert, Hello

# Seconds of the machine's clock, which hosts' kernels answer by. Robustness 2 (RFC 3376 8): one message may be lost.
ROBUSTNESS = 2
QUERY_INTERVAL = 30.0
QUERY_RESPONSE = 2.0
LAST_MEMBER_INTERVAL = 1.0
MEMBERSHIP = ROBUSTNESS * QUERY_INTERVAL + QUERY_RESPONSE
OTHER_QUERIER = ROBUSTNESS * QUERY_INTERVAL + QUERY_RESPONSE / 2
HELLO_INTERVAL = 10.0
HOLDTIME = 35
ASSERT_TIME = 180.0

# Beyond so many steps from the core there is none: counting to infinity ends here.
MAX_LEVEL = 8
NOWHERE = 255

# What a link's hosts can make a router remember.
MAX_NEIGHBOURS = 64
MAX_GROUPS = 512
MAX_ASSERTS = 1024

Flow = tuple[IPv4Address, IPv4Address]


@dataclass(slots=True)
class _Neighbour:
    level: int
    generation: int
    expires: float


@dataclass(slots=True)
class _Group:
    """Until when anybody on the link wants it; somebody whom we speak for above; and beside us."""

    expires: float = 0.0
    passed_up: float = 0.0
    passed_aside: float = 0.0

    def cut(self, moment: float) -> None:
        """Nobody has it later than `moment`."""
        self.expires, self.passed_up, self.passed_aside = (
            min(until, moment) for until in (self.expires, self.passed_up, self.passed_aside)
        )


@dataclass(slots=True)
class Link:
    """One interface with what was heard there."""

    name: str
    address: IPv4Address
    neighbours: dict[IPv4Address, _Neighbour] = field(default_factory=dict)
    groups: dict[IPv4Address, _Group] = field(default_factory=dict)
    # Until then another router asks the questions.
    other_querier: float = 0.0
    # Flows that another router forwards here, and until when.
    yielded: dict[Flow, tuple[IPv4Address, float]] = field(default_factory=dict)


class MulticastTable:
    """The links of one router. Methods return True where flows or memberships may go another way than before."""

    def __init__(self, *, core: bool) -> None:
        self.links: dict[str, Link] = {}
        self._core = core

    def add(self, name: str, address: IPv4Address) -> None:
        """An interface with multicast routing."""
        self.links[name] = Link(name, address)

    def remove(self, name: str) -> None:
        """The interface is gone, with all that was known of it."""
        self.links.pop(name, None)

    # What follows.

    @property
    def level(self) -> int:
        """Steps from the provider's core."""
        if self._core:
            return 0
        best = min((item.level for link in self.links.values() for item in link.neighbours.values()), default=NOWHERE)
        return best + 1 if best < MAX_LEVEL else NOWHERE

    def upstream(self) -> set[str]:
        """Links with a router nearer to the core."""
        level = self.level
        return {
            link.name for link in self.links.values() if any(item.level < level for item in link.neighbours.values())
        }

    def flooded(self) -> set[str]:
        """Links that get every flow: those with a router as near to the core as we are.

        Unicast takes the short way between two of them, which never ask each other for groups.
        """
        level = self.level
        return {
            link.name for link in self.links.values() if any(item.level == level for item in link.neighbours.values())
        }

    def members_of(self, group: IPv4Address) -> set[str]:
        """Links where somebody wants the group."""
        return {link.name for link in self.links.values() if group in link.groups}

    def outgoing(self, flow: Flow, incoming: str) -> set[str]:
        """Where a flow that comes in at the right link goes on."""
        wanted = self.members_of(flow[1]) | self.flooded() | self.upstream()
        return {name for name in wanted if name != incoming and flow not in self.links[name].yielded}

    def joins(self) -> set[tuple[str, IPv4Address]]:
        """Link and group of the memberships to have above and beside us on behalf of others."""
        above, beside = self.upstream(), self.flooded()
        found = set()
        for name in above | beside if self.level else ():
            for link in self.links.values():
                if link.name == name:
                    continue
                for group, state in link.groups.items():
                    if (name in above and state.passed_up) or (name in beside and state.passed_aside):
                        found.add((name, group))
        return found

    def asks(self, name: str, now: float) -> bool:
        """True while we are the querier of a link: the core asks its customers, everybody the hosts below."""
        return name not in self.upstream() and now >= self.links[name].other_querier

    # What happens.

    def heard_hello(self, name: str, source: IPv4Address, hello: Hello, now: float) -> tuple[bool, bool]:
        """A hello. Returns what changed, and whether its sender is new to us, or has forgotten us."""
        link = self.links[name]
        known = link.neighbours.get(source)
        if hello.holdtime == 0:
            return self._forget(link, [source] if known is not None else []), False
        if known is None and len(link.neighbours) >= MAX_NEIGHBOURS:
            return False, False
        link.neighbours[source] = _Neighbour(min(hello.level, NOWHERE), hello.generation, now + hello.holdtime)
        new = known is None or known.generation != hello.generation
        return new or known is None or known.level != hello.level, new

    def heard_query(self, name: str, source: IPv4Address, query: Query, now: float) -> None:
        """A query of another router: the one with the lowest address asks, of routers that are as near to the core."""
        link = self.links[name]
        if query.group is not None and query.group in link.groups and not query.suppress:
            self._leaving(link, query.group, now + ROBUSTNESS * query.response)
        rival = link.neighbours.get(source)
        if self._core and (rival is None or rival.level != 0):
            return
        if IPv4Address(0) < source < link.address:
            link.other_querier = now + OTHER_QUERIER

    def heard_memberships(
        self, name: str, source: IPv4Address, memberships: Iterable[Membership], now: float
    ) -> tuple[bool, list[IPv4Address]]:
        """Reports of a host or router. Returns what changed, and the groups to ask for once more before they go."""
        link = self.links[name]
        changed, doubtful = False, []
        router = link.neighbours.get(source)
        # What a router above wants it asks for by itself. Another beside us may have its way through us.
        up = router is None or router.level >= self.level
        aside = router is None or router.level > self.level
        for item in memberships:
            known = link.groups.get(item.group)
            if item.leaves:
                if known is not None and self.asks(name, now):
                    self._leaving(link, item.group, now + ROBUSTNESS * LAST_MEMBER_INTERVAL + LAST_MEMBER_INTERVAL)
                    doubtful.append(item.group)
                continue
            if known is None:
                if len(link.groups) >= MAX_GROUPS:
                    continue
                known = link.groups[item.group] = _Group()
                changed = True
            known.expires = now + MEMBERSHIP
            if up:
                changed |= not known.passed_up
                known.passed_up = now + MEMBERSHIP
            if aside:
                changed |= not known.passed_aside
                known.passed_aside = now + MEMBERSHIP
        return changed, doubtful

    def heard_assert(
        self, name: str, source: IPv4Address, claim: Assert, own: tuple[int, int], now: float
    ) -> tuple[bool, bool]:
        """Another forwards a flow on a link. Returns what changed, and whether to object. `own`: preference, metric."""
        link, flow = self.links[name], (claim.source, claim.group)
        theirs = (claim.preference, claim.metric, -int(source))
        if theirs > (*own, -int(link.address)):
            return link.yielded.pop(flow, None) is not None, True
        known = link.yielded.get(flow)
        if known is None and len(link.yielded) >= MAX_ASSERTS:
            return False, False
        link.yielded[flow] = (source, now + ASSERT_TIME)
        return known is None, False

    def expire(self, now: float) -> bool:
        """Forget what was not heard again in its time."""
        changed = False
        for link in self.links.values():
            changed |= self._forget(link, [who for who, item in link.neighbours.items() if now >= item.expires])
            for group, state in list(link.groups.items()):
                if now >= state.expires:
                    del link.groups[group]
                    changed = True
                    continue
                if state.passed_up and now >= state.passed_up:
                    state.passed_up = 0.0
                    changed = True
                if state.passed_aside and now >= state.passed_aside:
                    state.passed_aside = 0.0
                    changed = True
            for flow in [flow for flow, (_, until) in link.yielded.items() if now >= until]:
                del link.yielded[flow]
                changed = True
        return changed

    def next_expiry(self) -> float | None:
        """When `expire` has something to do."""
        moments = [item.expires for link in self.links.values() for item in link.neighbours.values()]
        for link in self.links.values():
            for state in link.groups.values():
                moments.append(
                    min(state.expires, state.passed_up or state.expires, state.passed_aside or state.expires)
                )
            moments += [until for _, until in link.yielded.values()]
        return min(moments, default=None)

    def _leaving(self, link: Link, group: IPv4Address, moment: float) -> None:
        link.groups[group].cut(moment)

    def _forget(self, link: Link, neighbours: list[IPv4Address]) -> bool:
        for source in neighbours:
            del link.neighbours[source]
            # What it forwarded is ours to forward again.
            for flow in [flow for flow, (winner, _) in link.yielded.items() if winner == source]:
                del link.yielded[flow]
        return bool(neighbours)
