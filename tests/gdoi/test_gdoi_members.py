"""Members of a group on its key server: until when each has keys, noted for all at once where all are told at once."""

from __future__ import annotations

import random
from dataclasses import replace
from ipaddress import IPv4Address
from typing import NoReturn

import pytest
from gdoi_parties import group, key_server, member_address
from hypothesis import given
from hypothesis import strategies as st

from labctl.configuration import RekeyPolicy
from labctl.gdoi.members import Member, Members

NAME, REKEYS = "GETVPN_LAB", IPv4Address("239.192.1.1")


def unreachable(*_: object) -> NoReturn:
    raise AssertionError("every member was looked at")


def test_a_multicast_rekey_looks_at_no_member(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its cost does not depend on how many there are."""
    server = key_server(replace(group(), rekey=RekeyPolicy(address=REKEYS)))
    held = server.group(NAME)
    held.renew(0.0)
    for number in range(50):
        held.register(member_address(number), held.take_sender_ids(1), 0.0, private=True)
    for name in ("values", "items", "keys", "__iter__"):
        monkeypatch.setattr(Members, name, unreachable)
    server.rekey(NAME, 10.0)
    assert len(server.datagrams_to_send()) == 1
    monkeypatch.undo()
    assert all(held.members.keys_until(member) == 10.0 + 3600 for member in held.members.values())


@given(st.lists(st.tuples(st.sampled_from(["all", "one", "join", "leave", "time"]), st.integers(0, 9)), max_size=40))
def test_members_have_keys_until_the_last_time_that_they_or_all_were_told(steps: list[tuple[str, int]]) -> None:
    """As a plain table of who has keys until when would have it."""
    members, plain, strangers = Members(), dict[IPv4Address, float](), set[IPv4Address]()
    chance, now = random.Random(1), 0.0
    for step, number in steps:
        address = member_address(number)
        until = now + chance.uniform(1.0, 100.0)
        if step == "all":
            members.all_hold(until)
            plain = dict.fromkeys(plain, until)
        elif step == "join":
            member = members.setdefault(address, Member(address, now))
            members.registered(member, private=bool(number % 2))
            members.hold(member, until)
            plain[address] = until
            strangers |= set() if number % 2 else {address}
        elif step == "one" and address in plain:
            members.hold(members[address], until)
            plain[address] = until
        elif step == "leave" and address in plain:
            assert [member.address for member in members.leave([address])] == [address]
            del plain[address]
            strangers.discard(address)
        else:
            now += 10.0 * number
        assert {address: members.keys_until(member) for address, member in members.items()} == plain
        assert {member.address for member in members.without_keys(now)} == {
            address for address, end in plain.items() if end <= now
        }
        assert members.all_private == (not strangers)
