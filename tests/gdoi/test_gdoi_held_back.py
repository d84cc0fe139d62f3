"""A rekey says what is left of its keys, not when that was said: one that comes late lengthens no key's life."""

from __future__ import annotations

from dataclasses import replace

import pytest
from gdoi_parties import group, group_member, key_server, member_address
from gdoi_rekeyed import LAB, UNICAST, Rekeyed

from labctl.configuration import RekeyPolicy
from labctl.isakmp.datagram import Datagram
from labctl.isakmp.header import ExchangeType

GM1 = member_address(0)


def cut_off_for_a_rekey(policy: RekeyPolicy = UNICAST) -> tuple[Rekeyed, Datagram]:
    """A group of two, one of which was sent a rekey at 1000 s that did not reach it."""
    world = Rekeyed(key_server(replace(group(), rekey=policy)), [group_member(0), group_member(1)])
    world.run(1000.0)
    world.cut.add(GM1)
    world.server.rekey(LAB, world.now)
    world.settle()
    held_back = [item for _, item in world.of(ExchangeType.GROUPKEY_PUSH) if item.destination.address == GM1]
    return world, held_back[0]


def newest_key(world: Rekeyed, member: int) -> tuple[int, float]:
    keys = world.members[member].keys
    assert keys is not None
    spi = keys.rules[0].spis[-1]
    return spi, keys.teks[spi].expires


@pytest.mark.parametrize("late", [1, 20, 90, 600])
def test_a_key_ends_when_its_key_server_ends_it_however_late_it_comes(late: float) -> None:
    world, held_back = cut_off_for_a_rekey()
    world.now = 1000.0 + late
    world.members[0].receive_datagram(held_back, world.now)
    spi, expires = newest_key(world, 0)
    other_spi, other_expires = newest_key(world, 1)
    assert spi == other_spi and abs(expires - other_expires) <= 2.0


def test_a_rekey_whose_keys_have_ended_is_refused_and_not_answered() -> None:
    world, held_back = cut_off_for_a_rekey()
    world.run(5000.0)
    member = world.members[0]
    assert not member.registered, "cut off for longer than its key lived"
    before = member.keys
    member.receive_datagram(held_back, world.now)
    assert (member.rekeys.rejected, member.rekeys.acknowledged) == (1, 0)
    assert member.keys == before and not member.registered


def test_a_key_that_has_ended_dates_a_rekey_that_brings_another_kek() -> None:
    """The KEK is new to the member, so it is the TEK that says how old the message is."""
    policy = replace(UNICAST, lifetime=20_000)
    world = Rekeyed(key_server(replace(group(), rekey=policy)), [group_member(0), group_member(1)])
    world.run(17_900.0)
    world.cut.add(GM1)
    # The KEK is replaced 10 % and the copies before its end, between two rekeys for TEKs.
    world.run(18_000.0)
    held_back = [item for at, item in world.of(ExchangeType.GROUPKEY_PUSH) if item.destination.address == GM1][-1]
    world.run(19_900.0)
    member = world.members[0]
    assert not member.registered
    member.receive_datagram(held_back, world.now)
    assert member.rekeys.rejected == 1 and not member.registered


def test_another_key_with_the_spi_of_one_that_has_ended_is_taken() -> None:
    """SPIs are drawn at random, and may come again."""
    world = Rekeyed(key_server(replace(group(), rekey=UNICAST)), [group_member(0)])
    world.run(3700.0)
    member, keys = world.members[0], world.members[0].keys
    assert keys is not None and keys.ended
    spi, tek = next(iter(keys.teks.items()))
    ended = {(spi, b"of another"): world.now - 60.0}
    member.keys = replace(keys, ended=ended)
    world.run(tek.expires - 300.0)
    assert member.rekeys.rejected == 0 and member.rekeys.received == 2
    assert newest_key(world, 0)[1] > tek.expires + 1000
