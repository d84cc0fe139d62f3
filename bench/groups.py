"""What a key server's process can do, in memory: registrations a second, and rekeys of many members.

Only the key server's own time is counted: its members share the process, but not the clock.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from labctl.configuration import (
    AccessListEntry,
    Action,
    Cipher,
    DhGroup,
    GroupIdentity,
    GroupMembership,
    IsakmpPolicy,
    KeyServerGroup,
    PreSharedKey,
    RekeyPolicy,
    RekeyTransport,
    SaIpsec,
    TransformSet,
)
from labctl.crypto import generate_private_value, generate_rsa_key
from labctl.gdoi import GroupMember, KeyServer
from labctl.gdoi.ack import AckType
from labctl.gdoi.member_rekey import acknowledgement
from labctl.gdoi.policy import KeyEncryptionKey
from labctl.isakmp.datagram import Datagram, Endpoint
from labctl.isakmp.payloads import Identification

SERVER = IPv4Address("172.16.0.1")
FIRST = IPv4Address("172.20.0.1")
NAME = "BENCH"
SITES = IPv4Network("10.0.0.0/8")
REKEYS = IPv4Address("239.192.0.1")
SECRET = b"not a secret"

REGISTRATIONS = 400
# Registrations a second with ECP-256, seconds and megabytes for the unicast rekey.
REGISTRATION_GOAL, REKEY_GOAL, REKEY_MEMORY_GOAL = 400, 5.0, 150
SIZES = (10, 1000, 10_000)


# Public values of a peer, made before anything is timed.
PEERS = {group: generate_private_value(group).public for group in (DhGroup.MODP2048, DhGroup.ECP256)}


class Clock:
    """Adds up the processor time that calls take: what else the machine does is not counted."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self, call: Callable[[], object]) -> object:
        """Call it, and count."""
        begin = time.process_time()
        result = call()
        self.seconds += time.process_time() - begin
        return result


def registrations(_: object) -> None:
    """Registrations a second of one key server on one core, by group, beside the key agreements alone."""
    for dh_group in (DhGroup.MODP2048, DhGroup.ECP256):
        policies = (IsakmpPolicy(group=dh_group),)
        server, clock = key_server(policies, RekeyPolicy(), REGISTRATIONS), Clock()
        for address in addresses(REGISTRATIONS):
            register(server, member(address, policies), clock)
        agreements = Clock()
        for _ in range(REGISTRATIONS):
            agreements(partial(_agree, dh_group))
        rate, bare = REGISTRATIONS / clock.seconds, REGISTRATIONS / agreements.seconds
        goal = f", goal {REGISTRATION_GOAL}" if dh_group is DhGroup.ECP256 else ""
        print(f"  group {dh_group.value:2} {rate:6.0f} /s{goal}; {bare:6.0f} key agreements /s; {bare / rate:.1f} x")


def rekeys(_: object) -> None:
    """A key server's time and memory for one rekey of many members: unicast with acknowledgements, and multicast."""
    for transport in (RekeyTransport.UNICAST, RekeyTransport.MULTICAST):
        for size in SIZES:
            seconds, sent, megabytes = _rekey(transport, size)
            goals = f", goals {REKEY_GOAL:.0f} s and {REKEY_MEMORY_GOAL} MB" if size == SIZES[-1] else ""
            figures = f"{seconds * 1000:8.1f} ms, {sent:6} datagrams, {megabytes:5.0f} MB{goals}"
            print(f"  {transport.value:9} {size:6} members {figures}")


def addresses(count: int) -> list[IPv4Address]:
    """Of members."""
    return [FIRST + number for number in range(count)]


def key_server(policies: Sequence[IsakmpPolicy], rekey: RekeyPolicy, members: int) -> KeyServer:
    """One that knows so many members' pre-shared keys."""
    group = KeyServerGroup(
        NAME,
        GroupIdentity(number=1),
        SERVER,
        (SaIpsec((AccessListEntry(Action.PERMIT, 0, SITES, SITES),), TransformSet(Cipher.AES_GCM, 256)),),
        rekey=rekey,
    )
    keys = [PreSharedKey(address, SECRET) for address in addresses(members)]
    return KeyServer([group], policies, keys, random=os.urandom, signing_key=generate_rsa_key())


def member(address: IPv4Address, policies: Sequence[IsakmpPolicy]) -> GroupMember:
    """One that has not begun."""
    membership = GroupMembership(NAME, GroupIdentity(number=1), (SERVER,), "eth0", address)
    return GroupMember(membership, policies, [PreSharedKey(SERVER, SECRET)], random=os.urandom)


def register(
    server: KeyServer, member: GroupMember, clock: Clock, seen: Callable[[list[Datagram]], None] = lambda _: None
) -> None:
    """Phase 1 and a registration. `clock` counts the key server's time, `seen` is told every message."""
    member.start(0.0)
    while outgoing := member.datagrams_to_send():
        answers: list[Datagram] = []

        def serve(outgoing: list[Datagram] = outgoing, answers: list[Datagram] = answers) -> None:
            for datagram in outgoing:
                server.receive_datagram(datagram, 0.0)
            answers += server.datagrams_to_send()
            while server.next_event() is not None:
                pass

        clock(serve)
        seen([*outgoing, *answers])
        for datagram in answers:
            member.receive_datagram(datagram, 0.0)
    assert member.registered, member.reason


def _agree(group: DhGroup) -> None:
    """What phase 1 costs at least: a key pair, and a shared secret."""
    generate_private_value(group).exchange(PEERS[group])


def _rekey(transport: RekeyTransport, size: int) -> tuple[float, int, float]:
    """Seconds of the key server, datagrams it sent, and megabytes that the process has grown by."""
    before = resident()
    multicast = REKEYS if transport is RekeyTransport.MULTICAST else None
    server = key_server((IsakmpPolicy(),), RekeyPolicy(transport=transport, address=multicast), 0)
    group = server.group(NAME)
    group.renew(0.0)
    for address in addresses(size):
        group.register(address, group.take_sender_ids(1), 0.0, private=True)
    clock = Clock()
    now, sent = 1.0, 0
    clock(partial(server.rekey, NAME, now))
    kek = group.kek
    assert kek is not None
    while True:
        out = clock(server.datagrams_to_send)
        assert isinstance(out, list)
        sent += len(out)
        if transport is RekeyTransport.UNICAST:
            for datagram in out:
                answer = acknowledge(datagram, kek)
                clock(partial(server.receive_datagram, answer, now))
        deadline = server.next_deadline()
        if not group.rekeys or deadline is None:
            break
        now = max(now, deadline)
        clock(partial(server.handle_timer, now))
    return clock.seconds, sent, resident() - before


def acknowledge(datagram: Datagram, kek: KeyEncryptionKey) -> Datagram:
    """What the receiver of a rekey under `kek` answers, whose number the KEK has."""
    receiver = datagram.destination.address
    asked = replace(kek, acknowledgement=AckType.KEK_SHA256)
    data = acknowledgement(asked, kek.sequence, Identification.ipv4(receiver))
    assert data is not None
    return Datagram(data, Endpoint(receiver), Endpoint(SERVER))


def resident() -> float:
    """Resident megabytes of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
