"""Routers that only hear each other's messages: in any network, each member gets each packet once, for as long as it
wants it."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from ipaddress import IPv4Address

from hypothesis import given, settings
from hypothesis import strategies as st

from labctl.node.multicast.igmp import Membership, Query
from labctl.node.multicast.pim import Assert, Hello
from labctl.node.multicast.table import (
    HOLDTIME,
    MAX_GROUPS,
    MAX_LEVEL,
    MAX_NEIGHBOURS,
    MEMBERSHIP,
    NOWHERE,
    OTHER_QUERIER,
    MulticastTable,
)

GROUP = IPv4Address("239.192.0.1")
SOURCE = IPv4Address("10.1.1.10")
FLOW = (SOURCE, GROUP)


@dataclass
class Router:
    name: str
    core: bool
    table: MulticastTable = field(init=False)
    # Its address on each link.
    addresses: dict[str, IPv4Address] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.table = MulticastTable(core=self.core)

    def attach(self, link: str, number: int) -> None:
        self.addresses[link] = IPv4Address((172 << 24) + number)
        self.table.add(link, self.addresses[link])


@dataclass
class Network:
    """Routers on links, and hosts that want the group on some of the links."""

    routers: list[Router]
    members: set[str]

    @property
    def links(self) -> dict[str, list[Router]]:
        found: dict[str, list[Router]] = {}
        for router in self.routers:
            for link in router.addresses:
                found.setdefault(link, []).append(router)
        return found

    def settle(self, now: float) -> None:
        """Hellos, reports of hosts and of routers, until nothing changes."""
        for _ in range(4 * (len(self.routers) + 2)):
            for link, routers in self.links.items():
                self.on(link, routers, now)

    def on(self, link: str, routers: list[Router], now: float) -> None:
        for one in routers:
            for other in routers:
                if one is not other:
                    hello = Hello(HOLDTIME, 1, one.table.level)
                    other.table.heard_hello(link, one.addresses[link], hello, now)
                    if (link, GROUP) in one.table.joins():
                        other.table.heard_memberships(link, one.addresses[link], [Membership(GROUP)], now)
            if link in self.members:
                one.table.heard_memberships(link, IPv4Address("10.9.9.9"), [Membership(GROUP)], now)

    def distances(self, source: str) -> dict[str, int]:
        """Links a packet from each link crosses until the source's: what unicast routing knows.

        A provider does not route through its customers (labctl.topology.routing).
        """
        # With each link: whether the way has been with the provider, which it may only leave once.
        first = (source, self.is_provided(source))
        found = {first: 0}
        waiting: deque[tuple[tuple[str, bool], Router | None]] = deque([(first, None)])
        links = self.links
        while waiting:
            place, by = waiting.popleft()
            for router in links[place[0]]:
                if router is by:
                    continue
                for other in router.addresses:
                    provided = self.is_provided(other)
                    if not router.core and place[1] and provided:
                        continue
                    step = (other, place[1] or provided)
                    if step not in found:
                        found[step] = found[place] + 1
                        waiting.append((step, router))
        return {link: min(found[step] for step in found if step[0] == link) for link, _ in found}

    def is_provided(self, link: str) -> bool:
        return any(router.core for router in self.links[link])

    def towards(self, router: Router, distances: dict[str, int]) -> str:
        """The link of a router that leads to the source (RPF)."""
        return min(router.addresses, key=lambda link: (distances[link], link))

    def send(self, source: str, now: float) -> dict[str, int]:
        """One packet: how often it came by on each link. Routers that see it where they send it assert themselves."""
        distances, links = self.distances(source), self.links
        seen = {source: 1}
        waiting: deque[tuple[str, Router | None]] = deque([(source, None)])
        asserting: list[tuple[str, Router]] = []
        while waiting:
            link, sender = waiting.popleft()
            for router in links[link]:
                if router is sender:
                    continue
                incoming = self.towards(router, distances)
                outgoing = router.table.outgoing(FLOW, incoming)
                if link != incoming:
                    if link in outgoing:
                        asserting.append((link, router))
                    continue
                for other in outgoing:
                    seen[other] = seen.get(other, 0) + 1
                    assert seen[other] < 100, "a loop"
                    waiting.append((other, router))
        for link, router in asserting:
            self.claim(link, router, distances, now)
        return seen

    def claim(self, link: str, router: Router, distances: dict[str, int], now: float) -> None:
        def own(one: Router) -> tuple[int, int]:
            distance = distances[self.towards(one, distances)]
            return (0 if distance == 0 else 1), distance

        claim = Assert(SOURCE, GROUP, *own(router))
        for other in self.links[link]:
            if other is not router and link in other.table.outgoing(FLOW, self.towards(other, distances)):
                _, objects = other.table.heard_assert(link, router.addresses[link], claim, own(other), now)
                if objects:
                    answer = Assert(SOURCE, GROUP, *own(other))
                    router.table.heard_assert(link, other.addresses[link], answer, own(router), now)


@st.composite
def networks(draw: st.DrawFn) -> tuple[Network, str]:
    """A connected core, customers' routers on one or two of its routers, more of them behind, LANs on one or two."""
    numbers = iter(range(1, 1000))
    core = [Router(f"p{n}", core=True) for n in range(draw(st.integers(1, 4)))]

    def join(link: str, *routers: Router) -> None:
        for router in routers:
            router.attach(link, next(numbers))

    for place, router in enumerate(core[1:], 1):
        join(f"core{place}", core[draw(st.integers(0, place - 1))], router)
    for extra in range(draw(st.integers(0, 2)) if len(core) > 2 else 0):
        one, other = draw(st.lists(st.sampled_from(core), min_size=2, max_size=2, unique_by=id))
        join(f"ring{extra}", one, other)
    customers = [Router(f"ce{n}", core=False) for n in range(draw(st.integers(1, 4)))]
    above: list[Router] = list(core)
    for router in customers:
        # A router behind others has one of them above it: it is no way between two.
        homes = draw(st.lists(st.sampled_from(above), min_size=1, max_size=2, unique_by=id))
        homes = homes if all(one.core for one in homes) else homes[:1]
        for number, one in enumerate(homes):
            join(f"{router.name}-{number}", one, router)
        if draw(st.booleans()):
            above.append(router)
    lans = []
    for number in range(draw(st.integers(1, 4))):
        lan = f"lan{number}"
        join(lan, *draw(st.lists(st.sampled_from(customers), min_size=1, max_size=2, unique_by=id)))
        lans.append(lan)
    join("ks", draw(st.sampled_from(core)))
    members = set(draw(st.lists(st.sampled_from(lans), min_size=1, unique=True)))
    return Network(core + customers, members), draw(st.sampled_from(["ks", *lans]))


@settings(max_examples=200, deadline=None)
@given(networks())
def test_every_member_gets_every_packet_once_whatever_the_network_is(given_: tuple[Network, str]) -> None:
    network, source = given_
    network.settle(0.0)
    for _ in range(len(network.links) + 1):
        network.send(source, 1.0)
    seen = network.send(source, 2.0)
    for link in network.members:
        assert seen.get(link) == 1, (link, seen)
    idle = {link for link in network.links if link.startswith("lan")} - network.members - {source}
    for link in idle & set(seen):
        assert seen[link] == 1 and len(network.links[link]) > 1, f"{link} has no member"


@settings(max_examples=100, deadline=None)
@given(networks())
def test_when_the_hosts_are_silent_the_memberships_end_everywhere(given_: tuple[Network, str]) -> None:
    network, _ = given_
    network.settle(0.0)
    network.members = set()
    now = 0.0
    for _ in range(2 * (MAX_LEVEL + 2)):
        now += MEMBERSHIP / 2
        for router in network.routers:
            router.table.expire(now)
        network.settle(now)
    assert all(router.table.joins() == set() for router in network.routers)
    assert all(router.table.members_of(GROUP) == set() for router in network.routers)


def table(*links: str, core: bool = False) -> MulticastTable:
    made = MulticastTable(core=core)
    for number, link in enumerate(links, 1):
        made.add(link, IPv4Address(f"10.0.{number}.1"))
    return made


def test_a_router_that_leaves_is_forgotten_at_once_and_a_silent_one_after_its_holdtime() -> None:
    one = table("up", "down")
    peer = IPv4Address("10.0.1.2")
    assert one.heard_hello("up", peer, Hello(35, 7, 0), 0.0) == (True, True)
    assert one.heard_hello("up", peer, Hello(35, 7, 0), 10.0) == (False, False)
    assert one.heard_hello("up", peer, Hello(35, 8, 0), 20.0) == (True, True), "it has started anew"
    assert (one.level, one.upstream()) == (1, {"up"})
    assert one.heard_hello("up", peer, Hello(0, 8, 0), 21.0) == (True, False)
    assert (one.level, one.upstream()) == (NOWHERE, set())
    one.heard_hello("up", peer, Hello(35, 8, 0), 30.0)
    assert one.next_expiry() == 65.0
    assert not one.expire(64.9) and one.expire(65.0)


def test_the_lowest_address_asks_and_the_core_asks_its_customers_whatever_theirs_is() -> None:
    one = table("lan")
    one.heard_query("lan", IPv4Address("10.0.1.9"), Query(None, 2.0), 0.0)
    assert one.asks("lan", 1.0)
    one.heard_query("lan", IPv4Address("10.0.0.9"), Query(None, 2.0), 0.0)
    assert not one.asks("lan", 1.0) and one.asks("lan", OTHER_QUERIER)
    core = table("edge", core=True)
    core.heard_query("edge", IPv4Address("10.0.0.9"), Query(None, 2.0), 0.0)
    assert core.asks("edge", 1.0)


def test_who_leaves_is_asked_once_more_and_stays_if_somebody_answers() -> None:
    one = table("lan")
    host = IPv4Address("10.0.1.10")
    one.heard_memberships("lan", host, [Membership(GROUP)], 0.0)
    changed, doubtful = one.heard_memberships("lan", host, [Membership(GROUP, leaves=True)], 10.0)
    assert (changed, doubtful) == (False, [GROUP])
    one.heard_memberships("lan", IPv4Address("10.0.1.11"), [Membership(GROUP)], 11.0)
    assert not one.expire(20.0)
    one.heard_memberships("lan", host, [Membership(GROUP, leaves=True)], 21.0)
    assert one.expire(30.0) and one.members_of(GROUP) == set()


def test_what_a_link_can_make_a_router_remember_is_limited() -> None:
    one = table("lan")
    for number in range(MAX_NEIGHBOURS + 10):
        one.heard_hello("lan", IPv4Address((11 << 24) + number), Hello(35, 1, 1), 0.0)
    assert len(one.links["lan"].neighbours) == MAX_NEIGHBOURS
    first = IPv4Address("239.0.0.0")
    one.heard_memberships("lan", SOURCE, [Membership(first + number) for number in range(MAX_GROUPS + 10)], 0.0)
    assert len(one.links["lan"].groups) == MAX_GROUPS


def test_two_routers_that_only_have_each_other_do_not_count_up_for_ever() -> None:
    one, other = Router("one", core=False), Router("other", core=False)
    for number, router in enumerate((one, other)):
        router.attach("link", number + 1)
    network = Network([one, other], set())
    core = Router("p", core=True)
    core.attach("link", 9)
    Network([one, other, core], set()).settle(0.0)
    assert (one.table.level, other.table.level) == (1, 1)
    for router in (one, other):
        router.table.heard_hello("link", core.addresses["link"], Hello(0, 1, 0), 1.0)
    network.settle(2.0)
    assert (one.table.level, other.table.level) == (NOWHERE, NOWHERE)
