"""One run: a virtual clock, a network, and parties that are called when something is there for them."""

from __future__ import annotations

import heapq
import itertools
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from labctl.configuration import KeyServerGroup
from labctl.crypto import RsaPrivateKey
from labctl.gdoi.events import KeysLost, LogMessage, PolicyInstalled, RekeyAddress, StateChanged
from labctl.isakmp.datagram import Datagram
from labctl.isakmp.header import ExchangeType
from labctl.simulation.invariants import Invariants
from labctl.simulation.network import Network
from labctl.simulation.parties import Member, Party, Server
from labctl.simulation.scenario import Order, Scenario
from labctl.simulation.sharing import RekeyOpener
from labctl.simulation.timeline import Timeline

# Looks a key's life at everything, between those that changes cause.
LOOKS_PER_LIFE = 8
SHORTEST_LOOK = 30.0

# Rekeys that somebody who listens has recorded.
RECORDED = 64

# Offset of the exchange type in an ISAKMP header (RFC 2408 3.1).
_EXCHANGE = 18


@dataclass(slots=True)
class RunCounts:
    """What a run adds up to. Seconds are over all members."""

    registrations: int = 0
    rekeys_taken: int = 0
    keys_lost: int = 0
    restarts: int = 0
    seconds_without_keys: float = 0.0
    # Members that registered more than once in one life, and how often any did.
    again: set[str] = field(default_factory=set)
    events: int = 0


class World:
    """The parties of a scenario under one seed. `say` gets every line that is kept, as it comes."""

    def __init__(
        self, scenario: Scenario, seed: int, key: RsaPrivateKey, timeline: Timeline, *, sharing: bool = True
    ) -> None:
        self.scenario = scenario
        self.now = 0.0
        self.timeline = timeline
        self.counts = RunCounts()
        self.chance = random.Random(seed)
        self._key = key
        self._opener = RekeyOpener() if sharing else None
        self.network = Network(scenario.network, random.Random(self.chance.getrandbits(64)))
        # As the key servers have them configured now.
        self.groups = [scenario.numbered_group(item) for item in range(scenario.groups)]
        self.servers = [
            Server(f"ks{item + 1}", scenario.key_server_address(item), number=item)
            for item in range(scenario.key_servers)
        ]
        self.members = [
            Member(
                f"m{item + 1}",
                scenario.member_address(item),
                number=item,
                group=self.groups[scenario.group_of(item)].name,
                traits=scenario.traits_of(item),
            )
            for item in range(scenario.members)
        ]
        self.by_name: dict[str, Party] = {party.name: party for party in (*self.servers, *self.members)}
        # By the address as a number: IPv4Address hashes its text anew each time.
        self._by_address: dict[int, Party] = {int(party.address): party for party in self.by_name.values()}
        self.invariants = Invariants(scenario, self.members)
        self._queue: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._order = itertools.count()
        self._recorded: deque[Datagram] = deque(maxlen=RECORDED)
        self._record = scenario.faults.replays.per_day > 0
        self._look = max(SHORTEST_LOOK, min(sa.tek_lifetime for sa in scenario.group.sas) / LOOKS_PER_LIFE)
        for server in self.servers:
            self.at(0.0, self.boot, server)
        for member in self.members:
            self.at(1.0 + self.chance.random() * scenario.arrival, self.boot, member)
        for order in scenario.orders:
            self.at(order.at, self.carry_out, order)
        self.at(self._look, self._look_around)

    # Time.

    def at(self, moment: float, action: Callable[..., None], *arguments: Any) -> None:
        """Do something then."""
        heapq.heappush(self._queue, (moment, next(self._order), action, arguments))

    def run(self, until: float) -> None:
        """Let time pass."""
        queue = self._queue
        while queue and queue[0][0] <= until:
            self.now, _, action, arguments = heapq.heappop(queue)
            self.counts.events += 1
            action(*arguments)
        self.now = until
        self.invariants.look(self.now)
        for member in self.members:
            self._account(member)

    def _look_around(self) -> None:
        self._exchange_data()
        self.invariants.look(self.now)
        self.at(self.now + self._look, self._look_around)

    def _exchange_data(self) -> None:
        """Everybody sends to everybody: who hears a key that it does not have may recover (`client recovery-check`)."""
        for member in self.members:
            engine = member.member
            if engine is None or member.traits.recovery_check is None or not member.held:
                continue
            for sender in self.members:
                unknown = sender.served_by == member.served_by and not sender.sending <= member.held
                if unknown and self.network.reaches(sender.address, member.address):
                    self.invariants.called_back(member, self.now, self.invariants.registration_seconds)
                    engine.data_plane_error("a packet with an unknown SPI", self.now)
                    self._follow(member)
                    break

    # Parties.

    def configure(self, change: Callable[[KeyServerGroup], KeyServerGroup]) -> None:
        """Change the policy of every group on every key server, from the next rekey on."""
        self.groups = [change(group) for group in self.groups]
        self.invariants.configured(self.groups)
        for server in self.servers:
            engine = server.key_server
            if engine is not None:
                for group in self.groups:
                    engine.reconfigure(server.own(group))
                self._follow(server)

    def boot(self, party: Party) -> None:
        """Start a party that is down."""
        if party.engine is not None:
            return
        chance = random.Random(self.chance.getrandbits(64))
        if isinstance(party, Server):
            party.start(self.scenario, self.groups, self._key, chance)
            # Whom an operator shut out stays out: that is configuration.
            for member in self.members:
                if member.evicted:
                    party.revoke(member.group, [member.address])
            self.disturb_all()
        elif isinstance(party, Member):
            party.start(self.scenario, self.now, chance, self._opener)
            self.invariants.disturbed(party, self.now, 0.0)
            party.disturbed = self.now
            # It has forgotten the KEKs of before: a late copy of a rekey under one looks like a KEK that it has missed.
            self.invariants.called_back(party, self.now, self.invariants.copies + self.invariants.missing_seconds)
            self.invariants.closed(party, self.now)
        self._follow(party)

    def crash(self, party: Party) -> None:
        """It loses everything it knows."""
        if isinstance(party, Member):
            party.held = party.sending = frozenset()
            party.ends = {}
            self.network.join(None, party.address)
        party.crash()
        if isinstance(party, Member):
            self._account(party)
        self.counts.restarts += 1
        if isinstance(party, Server):
            self.disturb_all()
        self.reachability()

    def disturb_all(self, seconds: float | None = None) -> None:
        """Something got in everybody's way."""
        for member in self.members:
            self.invariants.disturbed(member, self.now, seconds)

    def reachability(self) -> None:
        """Who is kept from a key server has changed."""
        up = [server.address for server in self.servers if server.engine is not None]
        for member in self.members:
            before = member.cut
            reached = sum(self.network.reaches(member.address, address) for address in up)
            member.cut, member.alone = reached < len(self.servers), not reached
            if before or member.cut:
                self.invariants.disturbed(member, self.now)

    def carry_out(self, order: Order) -> None:
        """What somebody told a party to do."""
        from labctl.simulation.orders import carry_out

        carry_out(self, order)

    def acted(self, party: Party) -> None:
        """A party was called: send what it sends, hear what it says, note when it wants to be called again."""
        self._follow(party)

    # Datagrams.

    def _follow(self, party: Party) -> None:
        engine = party.engine
        if engine is None:
            return
        for datagram in engine.datagrams_to_send():
            self._send(datagram)
        member = party if isinstance(party, Member) else None
        if member is not None:
            self._note(member)
        while (event := engine.next_event()) is not None:
            if isinstance(event, LogMessage):
                self.timeline.log(self.now, party.name, event)
            elif member is not None:
                self._member_event(member, event)
            elif isinstance(event, StateChanged) and isinstance(party, Server):
                self._note_keys(party)
        deadline = engine.next_deadline()
        if deadline is not None and deadline != party.wake:
            party.wake = deadline
            self.at(max(deadline, self.now), self._wake, party, deadline, party.life)

    def _wake(self, party: Party, deadline: float, life: int) -> None:
        if party.engine is None or party.life != life or party.wake != deadline:
            return
        party.wake = None
        party.engine.handle_timer(self.now)
        self._follow(party)

    def _send(self, datagram: Datagram) -> None:
        if self._record and datagram.data[_EXCHANGE] == ExchangeType.GROUPKEY_PUSH:
            self._recorded.append(datagram)
        source = self._by_address[int(datagram.source.address)]
        for receiver in self._receivers(datagram):
            arrivals = self.network.arrivals(source.address, receiver.address)
            for delay in arrivals:
                self.at(self.now + delay, self._deliver, receiver, datagram)
            if not arrivals:
                # Bad luck excuses a registration that takes longer; a path that is cut does not, others may lead on.
                by_chance = self.network.reaches(source.address, receiver.address)
                for party in (source, receiver):
                    if isinstance(party, Member):
                        self.invariants.disturbed(party, self.now, by_chance=by_chance)

    def _receivers(self, datagram: Datagram) -> list[Party]:
        """Who a datagram is for, in a fixed order; nobody where the address is nobody's."""
        destination = datagram.destination.address
        party = self._by_address.get(int(destination))
        if party is not None:
            return [party]
        return [self._by_address[int(address)] for address in self.network.receivers(destination)]

    def _deliver(self, party: Party, datagram: Datagram) -> None:
        if party.engine is None:
            return
        self.network.counts.delivered += 1
        party.engine.receive_datagram(datagram, self.now)
        self._follow(party)

    def replay(self) -> None:
        """Somebody sends a rekey again that was recorded before."""
        if self._recorded:
            datagram = self.chance.choice(self._recorded)
            self.timeline.say(self.now, "attacker", f"sends a recorded rekey to {datagram.destination.address} again")
            for receiver in self._receivers(datagram):
                if isinstance(receiver, Member):
                    receiver.heard_replay = self.now
                    # It may be under a KEK that a member of a key tree never knew, and thinks that it has missed.
                    self.invariants.called_back(receiver, self.now, self.invariants.missing_seconds)
                self._deliver(receiver, datagram)

    # What parties tell.

    def _note_keys(self, server: Server) -> None:
        """The keys that a key server has made, and how long they live."""
        engine = server.key_server
        if engine is not None:
            for group in self.groups:
                for generation in engine.group(group.name).generations:
                    for tek in generation.teks.values():
                        self.invariants.made(tek.spi, self.now + tek.lifetime, self.now)

    def _member_event(self, party: Member, event: object) -> None:
        if isinstance(event, PolicyInstalled):
            self.invariants.sent_until(party, self.now)
            party.held = frozenset(event.keys.teks)
            party.sending = frozenset(spi for spi in event.sending if spi is not None)
            party.ends = {spi: tek.expires for spi, tek in event.keys.teks.items()}
            party.crossing.installed(event.keys)
        elif isinstance(event, KeysLost):
            self.invariants.sent_until(party, self.now)
            party.held = party.sending = frozenset()
            party.ends = {}
            party.crossing.lost(policy=event.policy)
            self.counts.keys_lost += 1
            if not party.evicted and event.policy:
                self.timeline.say(self.now, party.name, "has no keys any more")
        elif isinstance(event, RekeyAddress):
            self.network.join(event.address, party.address)
            return
        else:
            return
        self._account(party)
        self.invariants.installed(party, self.now)

    def _note(self, party: Member) -> None:
        """Registrations and rekeys since the last call."""
        engine = party.member
        if engine is None:
            return
        if engine.successes != party.successes:
            self.counts.registrations += engine.successes - party.successes
            if party.successes:
                self.counts.again.add(party.name)
                self.invariants.registered_again(party, self.now)
            party.successes = engine.successes
            server = None if engine.registered_with is None else self._by_address.get(int(engine.registered_with))
            party.served_by = None if server is None else (server.name, server.life, party.group)
        if engine.rekeys.received != party.rekeys:
            self.counts.rekeys_taken += engine.rekeys.received - party.rekeys
            party.rekeys = engine.rekeys.received
            kek = None if engine.keys is None else engine.keys.kek
            if kek is not None:
                self.invariants.took_rekey(party, kek.spi, kek.sequence, self.now)

    def _account(self, member: Member) -> None:
        """Keep the time that a member has been without keys, and since when it is."""
        if member.unregistered_since is not None and not member.evicted:
            self.counts.seconds_without_keys += self.now - member.accounted
        member.accounted = self.now
        if member.engine is None or member.held:
            member.unregistered_since = None
        elif member.unregistered_since is None:
            member.unregistered_since = self.now


__all__ = ["RunCounts", "World"]
