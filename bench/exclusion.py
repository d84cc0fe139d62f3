"""What leaving out one member costs a group, with a key tree and without: messages, octets, the key server's time.

Without a tree everybody else registers again, which is done for real up to a size, and reckoned from there on.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from ipaddress import IPv4Address

from bench.groups import FIRST, NAME, REKEYS, Clock, acknowledge, addresses, key_server, member, register
from labctl.configuration import DhGroup, IsakmpPolicy, RekeyPolicy, RekeyTransport
from labctl.gdoi import KeyServer
from labctl.gdoi.numbers import KdType
from labctl.gdoi.payloads import KeyPacket
from labctl.gdoi.policy import KeyEncryptionKey
from labctl.isakmp.datagram import Datagram

POLICIES = (IsakmpPolicy(group=DhGroup.ECP256),)
SIZES = (1000, 10_000)
# So many registrations are made to know what one costs.
REGISTERED = 300


@dataclass(slots=True)
class Cost:
    """What passed the key server, either way, and its own time."""

    messages: int = 0
    octets: int = 0
    seconds: float = 0.0

    def note(self, datagrams: list[Datagram]) -> None:
        """Messages that went one way."""
        self.messages += len(datagrams)
        self.octets += sum(len(datagram.data) for datagram in datagrams)

    def __str__(self) -> str:
        return f"{self.messages:7} messages {self.octets / 1000:9.1f} kB {self.seconds * 1000:9.1f} ms"


def exclusions(_: object) -> None:
    """One of 1000 and of 10,000 members is evicted."""
    registration = registration_cost()
    for transport in (RekeyTransport.MULTICAST, RekeyTransport.UNICAST):
        for size in SIZES:
            tree, largest = eviction(transport, size, key_tree=True)
            without, _ = eviction(transport, size, key_tree=False)
            again = size - 1
            without.messages += again * registration.messages // REGISTERED
            without.octets += again * registration.octets // REGISTERED
            without.seconds += again * registration.seconds / REGISTERED
            name = f"  {transport.value:9} {size:6} members"
            print(f"{name}, key tree    {tree}; largest message {largest} octets")
            print(f"{name}, without     {without}; {without.octets / tree.octets:.0f} x the octets")


def registration_cost() -> Cost:
    """Of `REGISTERED` registrations with ECP-256, phase 1 included."""
    server, cost, clock = key_server(POLICIES, RekeyPolicy(), REGISTERED), Cost(), Clock()
    for address in addresses(REGISTERED):
        register(server, member(address, POLICIES), clock, seen=cost.note)
    cost.seconds = clock.seconds
    return cost


def eviction(transport: RekeyTransport, size: int, *, key_tree: bool) -> tuple[Cost, int]:
    """The rekeys of an eviction, acknowledged where they are unicast; and octets of the largest."""
    address = REKEYS if transport is RekeyTransport.MULTICAST else None
    server = key_server(POLICIES, RekeyPolicy(transport=transport, address=address, key_tree=key_tree), 0)
    group = server.group(NAME)
    group.renew(0.0)
    kek = KeyPacket(KdType.KEK, b"", ())
    for one in addresses(size):
        kek = next(packet for packet in group.key_packets() if packet.kind == KdType.KEK)
        group.in_tree((kek,), one)
        group.register(one, group.take_sender_ids(1), 0.0, private=True)
    if key_tree:
        # Whatever growth left to be done is done with the first eviction: another is the usual case.
        run(server, FIRST, Cost())
    cost = Cost()
    largest = run(server, FIRST + size // 3, cost)
    return cost, largest


def run(server: KeyServer, out: IPv4Address, cost: Cost) -> int:
    """Evict a member, and go on until every rekey has ended. Returns the octets of the largest."""
    group, clock, now, largest = server.group(NAME), Clock(), 1.0, 0
    keks: dict[bytes, KeyEncryptionKey] = {} if group.kek is None else {group.kek.spi: group.kek}
    clock(partial(server.evict, NAME, out, now))
    for rekey in group.rekeys:
        keks[rekey.kek.spi] = rekey.kek
    while True:
        sent = clock(server.datagrams_to_send)
        assert isinstance(sent, list)
        cost.note(sent)
        largest = max([largest, *(len(datagram.data) for datagram in sent)])
        for datagram in sent:
            kek = keks[datagram.data[:16]]
            if kek.address is None:
                answer = acknowledge(datagram, kek)
                cost.note([answer])
                clock(partial(server.receive_datagram, answer, now))
        deadline = server.next_deadline()
        if not group.rekeys or deadline is None:
            break
        now = max(now, deadline)
        clock(partial(server.handle_timer, now))
    cost.seconds += clock.seconds
    return largest
