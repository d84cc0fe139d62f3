"""Hostile neighbours: they hold real conversations with an agent and slip mutated copies of every message in."""

from __future__ import annotations

import json
import random
import select
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address
from typing import Any

from node_getvpn import GCM, GROUP, IDENTITY, POLICIES, SITES, secret

from labctl.configuration import AccessListEntry, Action, GroupMembership, KeyServerGroup, PreSharedKey, SaIpsec
from labctl.gdoi import GroupMember, KeyServer
from labctl.isakmp.datagram import GDOI_PORT, Datagram, Endpoint
from labctl.isakmp.header import HEADER_OCTETS

EVIL = IPv4Address("10.0.0.99")

# Its victim's clock runs as fast.
EVIL_SCALE = 100

# Real seconds that an attacker waits for an answer.
PATIENCE = 0.25


@dataclass
class Mutator:
    """Mutated copies of messages, from a seed."""

    source: random.Random
    seen: list[bytes] = field(default_factory=list)

    def copies(self, data: bytes, count: int) -> Iterator[bytes]:
        self.seen = [*self.seen[-50:], data]
        for _ in range(count):
            yield self._mutated(data)

    def _mutated(self, data: bytes) -> bytes:
        source, octets = self.source, bytearray(data)
        kind = source.randrange(9)
        if kind == 0:  # some bits, anywhere
            for _ in range(source.randint(1, 8)):
                octets[source.randrange(len(octets))] ^= 1 << source.randrange(8)
        elif kind == 1:  # some octets behind the header
            for _ in range(source.randint(1, 8)):
                octets[source.randrange(min(HEADER_OCTETS, len(octets) - 1), len(octets))] = source.randrange(256)
        elif kind == 2:  # cut off, with a header that does and does not know it
            octets = octets[: source.randrange(len(octets))]
            if source.random() < 0.5 and len(octets) >= HEADER_OCTETS:
                octets[24:28] = len(octets).to_bytes(4, "big")
        elif kind == 3:  # longer
            octets += source.randbytes(source.randint(1, 600))
            if source.random() < 0.5:
                octets[24:28] = len(octets).to_bytes(4, "big")
        elif kind == 4:  # a length or a count somewhere that lies
            place = source.randrange(HEADER_OCTETS, max(HEADER_OCTETS + 1, len(octets) - 1))
            octets[place : place + 2] = source.choice((b"\0\0", b"\0\1", b"\0\3", b"\xff\xff", b"\x7f\xff"))
        elif kind == 5:  # another exchange, payload, flag or message ID
            octets[source.choice((16, 17, 18, 19, 20, 23))] = source.randrange(256)
        elif kind == 6:  # the head of one message and the tail of another
            other = source.choice(self.seen)
            octets = octets[: source.randrange(len(octets))] + other[source.randrange(len(other)) :]
        elif kind == 7:  # noise behind a true header
            octets[HEADER_OCTETS:] = source.randbytes(max(0, len(octets) - HEADER_OCTETS))
        else:  # noise
            octets = bytearray(source.randbytes(source.randint(0, 1400)))
        return bytes(octets)


class Wire:
    """A UDP socket on port 848 of an address, and the mutated datagrams that left by it."""

    def __init__(self, address: IPv4Address, mutator: Mutator) -> None:
        self.mutated = 0
        self._local = Endpoint(address)
        self._mutator = mutator
        self._socket = socket.socket(type=socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind((str(address), GDOI_PORT))

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def send(self, datagram: Datagram, copies: int, *, genuine: bool = True, first: bool = True) -> None:
        """Mutated copies and, where `genuine`, the message itself, before them or behind."""
        target = (str(datagram.destination.address), datagram.destination.port)
        if genuine and first:
            self._socket.sendto(datagram.data, target)
        for copy in self._mutator.copies(datagram.data, copies):
            self._socket.sendto(copy, target)
            self.mutated += 1
        if genuine and not first:
            self._socket.sendto(datagram.data, target)

    def receive(self, patience: float) -> Datagram | None:
        if not select.select([self._socket], [], [], patience)[0]:
            return None
        data, (address, port) = self._socket.recvfrom(65536)
        return Datagram(data, Endpoint(IPv4Address(address), port), self._local)


def evil_members(server: IPv4Address, addresses: Sequence[IPv4Address], count: int, copies: int) -> Callable[..., None]:
    """What runs in a node that sends `count` mutated datagrams to a key server, then says so on its door."""

    def main(door: socket.socket) -> None:
        source = random.Random(1848)
        mutator = Mutator(source)
        sent = conversations = 0
        while sent < count:
            address = addresses[conversations % len(addresses)]
            conversations += 1
            wire = Wire(address, mutator)
            party = GroupMember(
                GroupMembership(GROUP, IDENTITY, (server,), "eth0", address),
                POLICIES,
                [PreSharedKey(server, secret(address))],
                random=source.randbytes,
            )
            party.start(time.monotonic())
            _converse(party, wire, copies, first=source.random() < 0.5)
            sent += wire.mutated
            wire.close()
            if conversations % 10 == 0:
                _say(door, sent=sent, conversations=conversations)
        _say(door, sent=sent, conversations=conversations, done=True)
        door.recv(1)

    return main


def _converse(party: GroupMember, wire: Wire, copies: int, *, first: bool) -> None:
    while datagrams := party.datagrams_to_send():
        for datagram in datagrams:
            wire.send(datagram, copies, first=first)
        # The mutated copies are answered too: what answers the genuine message moves the party on.
        while (answer := wire.receive(PATIENCE)) is not None:
            party.receive_datagram(answer, time.monotonic())
            if datagrams := party.datagrams_to_send():
                for datagram in datagrams:
                    wire.send(datagram, copies, first=first)
            if party.registered:
                return


def evil_server(victim: IPv4Address, count: int, copies: int) -> Callable[..., None]:
    """What runs in a key server that never hands out keys until it has sent `count` mutated datagrams."""

    def main(door: socket.socket) -> None:
        source = random.Random(4819)
        wire = Wire(EVIL, Mutator(source))
        permit = AccessListEntry(Action.PERMIT, 0, SITES, SITES)
        party = KeyServer(
            [KeyServerGroup(GROUP, IDENTITY, EVIL, (SaIpsec((permit,), GCM),))],
            POLICIES,
            [PreSharedKey(victim, secret(victim))],
            random=source.randbytes,
        )
        told = 0
        while True:
            if select.select([wire.fileno(), door.fileno()], [], [])[0] == [door.fileno()]:
                return
            received = wire.receive(0)
            if received is None:
                continue
            now = time.monotonic() * EVIL_SCALE
            party.handle_timer(now)
            party.receive_datagram(received, now)
            for datagram in party.datagrams_to_send():
                if wire.mutated >= count:
                    wire.send(datagram, 0)
                    continue
                keys = party.open_pulls == 0 and any(group.members for group in party.status(now))
                if keys:
                    # Every copy is of a message whose HASH is wrong: what changed only its header would be genuine.
                    datagram = replace(datagram, data=datagram.data[:-1] + bytes((datagram.data[-1] ^ 1,)))  # noqa: PLW2901
                # Now and then an exchange stops before its end.
                wire.send(datagram, copies, genuine=source.random() < 0.95, first=source.random() < 0.5)
            if wire.mutated - told >= 1000 or (told < count <= wire.mutated):
                told = wire.mutated
                _say(door, sent=wire.mutated, done=wire.mutated >= count)

    return main


def evil_member_addresses(count: int) -> list[IPv4Address]:
    return [IPv4Address(f"10.0.0.{100 + number}") for number in range(count)]


def _say(door: socket.socket, **facts: Any) -> None:
    door.sendall(json.dumps(facts).encode() + b"\n")
