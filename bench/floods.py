"""What a flood of half-open exchanges takes from a key server's members, in memory.

In each second of virtual time so many first messages come, well formed, each under the address of some member and a
cookie of its own. Members register meanwhile, their messages a round trip apart. Only the key server's own time counts.
"""

from __future__ import annotations

import heapq
import itertools
import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv4Address

from bench.groups import SERVER, Clock, addresses, key_server, member, resident
from labctl.configuration import DhGroup, IsakmpPolicy, RekeyPolicy
from labctl.gdoi import GroupMember, KeyServer
from labctl.isakmp import proposals, vendor
from labctl.isakmp.datagram import Datagram, Endpoint
from labctl.isakmp.header import HEADER_OCTETS, ExchangeType, Header
from labctl.isakmp.payloads import SecurityAssociation, VendorId, pack_chain

RATES = (0, 250, 1000, 4000)
MEMBERS = 100
# Members begin so far apart, and their messages take so long one way (seconds).
APART, DELAY = 0.02, 0.05
# Nothing is awaited any longer than this (seconds of virtual time, and of the machine's for one rate).
LONGEST, LONGEST_REAL = 60.0, 60.0

POLICIES = (IsakmpPolicy(group=DhGroup.ECP256),)


@dataclass(slots=True)
class Run:
    """What came of one rate."""

    registered: int
    forged: int
    seconds: float
    quiet_seconds: float
    megabytes: float
    restored: int


def floods(_: object) -> None:
    """Registrations that members get while so many half-open exchanges a second arrive, beside the quiet case."""
    quiet = 0.0
    for rate in RATES:
        run = under(rate)
        each = run.quiet_seconds / max(1, run.registered)
        quiet = quiet or each
        # What is left of each second once the flood has taken its share goes to registrations.
        cost = 0.0 if not run.forged else run.seconds / run.forged
        possible = max(0.0, 1.0 - rate * cost) / each
        print(
            f"  {rate:5} /s {run.registered:4} of {MEMBERS} members register, {possible:6.0f} /s possible, "
            f"{each / quiet:4.1f} x the quiet case's time each; {cost * 1e6:4.0f} us a forged message, "
            f"{run.restored:3} made anew from their cookie, {run.megabytes:4.1f} MB"
        )


def under(rate: int) -> Run:
    """Let every member register while `rate` first messages a second come."""
    before = resident()
    server = key_server(POLICIES, RekeyPolicy(), MEMBERS)
    members = {address: member(address, POLICIES) for address in addresses(MEMBERS)}
    world = _World(server, members)
    chance = random.Random(1)
    forge = partial(_forged, chance, [Endpoint(address) for address in members])
    for place, address in enumerate(members):
        world.at(place * APART, partial(world.start, address))
    if rate:
        world.at(0.0, partial(world.flood, forge, 1.0 / rate))
    world.run()
    counts = server.isakmp.counts
    return Run(
        sum(member.registered for member in members.values()),
        world.forged,
        world.of_flood.seconds,
        world.of_members.seconds,
        resident() - before,
        counts.half_open_restored,
    )


class _World:
    """A key server, its members and a flood on one virtual clock."""

    def __init__(self, server: KeyServer, members: dict[IPv4Address, GroupMember]) -> None:
        self.server = server
        self.members = members
        self.of_members, self.of_flood = Clock(), Clock()
        self.forged = 0
        self._now = 0.0
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()

    def at(self, moment: float, call: Callable[[], None]) -> None:
        """Do something at a time."""
        heapq.heappush(self._queue, (moment, next(self._order), call))

    def run(self) -> None:
        """Until all members are registered, or the time is over."""
        begin = time.monotonic()
        while self._queue and not all(member.registered for member in self.members.values()):
            self._now, _, call = heapq.heappop(self._queue)
            if self._now > LONGEST or time.monotonic() > begin + LONGEST_REAL:
                return
            call()

    def start(self, address: IPv4Address) -> None:
        """A member begins."""
        self.members[address].start(self._now)
        self._send(address)

    def flood(self, forge: Callable[[], Datagram], pause: float) -> None:
        """The next forged message, and so on."""
        self.forged += 1
        self._serve(forge(), self.of_flood)
        self.at(self._now + pause, partial(self.flood, forge, pause))

    def _send(self, address: IPv4Address) -> None:
        member = self.members[address]
        for datagram in member.datagrams_to_send():
            self.at(self._now + DELAY, partial(self._serve, datagram, self.of_members))
        deadline = member.next_deadline()
        if deadline is not None and not member.registered:
            self.at(max(deadline, self._now), partial(self._wake, address, deadline))

    def _wake(self, address: IPv4Address, deadline: float) -> None:
        if self.members[address].next_deadline() == deadline:
            self.members[address].handle_timer(self._now)
            self._send(address)

    def _serve(self, datagram: Datagram, clock: Clock) -> None:
        answers: list[Datagram] = []

        def serve() -> None:
            self.server.handle_timer(self._now)
            self.server.receive_datagram(datagram, self._now)
            answers.extend(self.server.datagrams_to_send())
            while self.server.next_event() is not None:
                pass

        clock(serve)
        for answer in answers:
            self.at(self._now + DELAY, partial(self._deliver, answer))

    def _deliver(self, datagram: Datagram) -> None:
        address = datagram.destination.address
        if address in self.members:
            self.members[address].receive_datagram(datagram, self._now)
            self._send(address)


def _forged(chance: random.Random, sources: list[Endpoint]) -> Datagram:
    body = pack_chain([proposals.offer(POLICIES), *(VendorId(data) for data in vendor.OURS)])
    header = Header(os.urandom(8), bytes(8), SecurityAssociation.TYPE, ExchangeType.MAIN_MODE)
    data = header.with_length(HEADER_OCTETS + len(body)).pack() + body
    return Datagram(data, chance.choice(sources), Endpoint(SERVER))
