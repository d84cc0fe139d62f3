"""What an operator, or the person who pulls the cables, does to a running group."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from labctl.configuration import KeyServerGroup
from labctl.simulation.parties import Member, Party, Server
from labctl.simulation.scenario import Order, OrderKind

if TYPE_CHECKING:
    from labctl.simulation.world import World

# `replace-now` reaches the last member after its copies, and this much for the network.
REPLACE_SLACK = 10.0


def carry_out(world: World, order: Order) -> None:
    """Do it, if the party is up; orders to who is down are lost, but for what key servers do."""
    party = world.by_name[order.party]
    if order.kind is OrderKind.CUT:
        cut(world, frozenset({party.address}), order.duration)
        return
    if order.kind is OrderKind.RESTART:
        restart(world, party, order.duration)
        return
    if order.kind in (OrderKind.EVICT, OrderKind.ALLOW):
        assert isinstance(party, Member)
        world.timeline.say(world.now, party.name, f"is subject to: {order.kind.value}")
        for server in world.servers:
            _about(world, server, party, order.kind)
        return
    if party.engine is None:
        world.timeline.say(world.now, party.name, f"is down: {order.kind.value} is lost")
        return
    world.timeline.say(world.now, party.name, f"is told: {order.kind.value}")
    if order.kind in (OrderKind.CLEAR, OrderKind.REREGISTER):
        assert isinstance(party, Member)
        _at_member(world, party, order.kind)
        world.acted(party)
        return
    assert isinstance(party, Server)
    if order.kind in _POLICY:
        world.configure(_POLICY[order.kind](order))
        return
    for group in world.groups:
        _at_server(world, party, group, order.kind)
    world.acted(party)


def _receive_only(_: Order) -> Callable[[KeyServerGroup], KeyServerGroup]:
    return lambda group: replace(group, receive_only=True)


def _both_ways(_: Order) -> Callable[[KeyServerGroup], KeyServerGroup]:
    return lambda group: replace(group, receive_only=False)


def _tek_lifetime(order: Order) -> Callable[[KeyServerGroup], KeyServerGroup]:
    return lambda group: replace(group, sas=tuple(replace(sa, tek_lifetime=int(order.duration)) for sa in group.sas))


# Orders that change what key servers have configured.
_POLICY = {
    OrderKind.RECEIVE_ONLY: _receive_only,
    OrderKind.BOTH_WAYS: _both_ways,
    OrderKind.TEK_LIFETIME: _tek_lifetime,
}


def _at_member(world: World, member: Member, kind: OrderKind) -> None:
    engine = member.member
    assert engine is not None
    world.invariants.called_back(member, world.now, world.invariants.registration_seconds)
    if kind is OrderKind.CLEAR:
        world.invariants.cleared(member)
        engine.clear(world.now)
    else:
        engine.reregister(world.now)


def _at_server(world: World, server: Server, group: KeyServerGroup, kind: OrderKind) -> None:
    engine = server.key_server
    assert engine is not None
    _forgotten(world, server)
    if kind in (OrderKind.REKEY, OrderKind.REPLACE_NOW):
        replace_now = kind is OrderKind.REPLACE_NOW
        if replace_now:
            # "A few packets may be lost": members change one after the other.
            copies = group.rekey.retransmit_interval * group.rekey.retransmit_count
            world.disturb_all(copies + REPLACE_SLACK)
        try:
            engine.rekey(group.name, world.now, replace_now=replace_now)
        except ValueError as error:
            world.timeline.say(world.now, server.name, f"refuses: {error}")
    else:
        immediate = kind is OrderKind.CLEAR_MEMBERS_NOW
        for member in world.members:
            world.invariants.called_back(member, world.now, world.invariants.healing_seconds)
        if immediate:
            _wiped(world)
        engine.clear_members(group.name, world.now, immediate=immediate)


def _forgotten(world: World, server: Server) -> None:
    """Members that a key server does not have on its list any more cannot be told: they come back for their keys."""
    assert server.key_server is not None
    for member in world.members:
        known = server.key_server.group(member.group).members
        if member.served_by == (server.name, server.life, member.group) and member.address not in known:
            world.invariants.disturbed(member, world.now, world.invariants.healing_seconds)


def _wiped(world: World) -> None:
    """Members lose their keys, and come back within seconds."""
    world.disturb_all(world.invariants.registration_seconds)
    for member in world.members:
        world.invariants.cleared(member)


def _about(world: World, server: Server, member: Member, kind: OrderKind) -> None:
    engine, group = server.key_server, member.group
    if engine is None:
        if kind is OrderKind.EVICT:
            world.invariants.evicted(member, (), world.now)  # it is told when it boots
        else:
            world.invariants.allowed(member, world.now)
        return
    if kind is OrderKind.EVICT:
        _forgotten(world, server)
        known = [tek.spi for status in engine.status(world.now) for tek in status.teks]
        world.invariants.evicted(member, known, world.now)
        engine.evict(group, member.address, world.now)
    else:
        engine.allow(group, member.address)
        world.invariants.allowed(member, world.now)
    world.acted(server)


def cut(world: World, inside: frozenset[object], seconds: float) -> None:
    """Part some parties from all others for a time."""
    addresses = frozenset(party.address for party in world.by_name.values() if party.address in inside)
    names = [party.name for party in world.by_name.values() if party.address in addresses]
    who = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    world.timeline.say(world.now, "network", f"{who} cut off for {seconds:.0f} s")
    world.network.partitions.append(addresses)
    world.reachability()

    def heal() -> None:
        world.network.partitions.remove(addresses)
        world.timeline.say(world.now, "network", f"{who} back")
        world.reachability()

    world.at(world.now + seconds, heal)


def restart(world: World, party: Party, seconds: float) -> None:
    """Crash a party, and boot it again after a time."""
    if party.engine is None:
        return
    world.timeline.say(world.now, party.name, f"crashes, for {seconds:.0f} s")
    world.crash(party)
    world.at(world.now + seconds, partial(_boot, world, party))


def _boot(world: World, party: Party) -> None:
    world.timeline.say(world.now, party.name, "boots")
    world.boot(party)
    world.reachability()
