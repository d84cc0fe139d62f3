"""Phase 1 as a user sees it: rows in IOS's words, and counters."""

from __future__ import annotations

from isakmp_parties import MEMBER, SERVER, Party, deliver

from labctl.isakmp.datagram import Datagram
from labctl.isakmp.standing import standing


def pair() -> tuple[Party, Party]:
    return Party(MEMBER, keys={SERVER: b"LabPsk1"}), Party(SERVER, keys={MEMBER: b"LabPsk1"})


def test_each_step_of_phase_1_has_its_state_on_either_side() -> None:
    member, server = pair()
    parties = {MEMBER: member, SERVER: server}
    member.isakmp.initiate(MEMBER, SERVER, 0)
    seen: list[tuple[str, list[str]]] = []

    def note() -> None:
        for name, party in (("member", member), ("server", server)):
            seen.append((name, [row.state for row in standing(party.isakmp, 0).associations]))

    waiting: list[Datagram] = member.isakmp.datagrams_to_send()
    note()
    while waiting:
        (datagram,) = waiting
        parties[datagram.destination].isakmp.receive(datagram, 0)
        note()
        waiting = parties[datagram.destination].isakmp.datagrams_to_send()
    assert [states for name, states in seen if name == "member"] == [
        ["MM_NO_STATE"],
        ["MM_NO_STATE"],
        ["MM_SA_SETUP"],
        ["MM_SA_SETUP"],
        ["MM_KEY_EXCH"],
        ["MM_KEY_EXCH"],
        ["GDOI_IDLE"],
    ]
    assert [states for name, states in seen if name == "server"] == [
        [],
        ["MM_SA_SETUP"],
        ["MM_SA_SETUP"],
        ["MM_KEY_EXCH"],
        ["MM_KEY_EXCH"],
        ["GDOI_IDLE"],
        ["GDOI_IDLE"],
    ]


def test_an_association_shows_who_how_and_how_long_and_no_key() -> None:
    member, server = pair()
    member.isakmp.initiate(MEMBER, SERVER, 100)
    deliver([member, server], 100)
    shown = standing(server.isakmp, 1100.04)
    (row,) = shown.associations
    assert (row.peer, row.port, row.local, row.identity) == ("172.16.11.2", 848, "10.255.0.11", "172.16.11.2")
    assert (row.initiator, row.left, row.authentication) == (False, 2600.0, "pre-share")
    assert (row.encryption, row.hash, row.group) == ("aes 128", "sha256", 19)
    keys = server.isakmp.associations[0].keys
    assert not any(secret.hex() in repr(shown) for secret in (keys.skeyid, keys.skeyid_e, keys.cipher_key))
    assert (shown.counters["associations"], shown.counters["half_open"], shown.counters["established"]) == (1, 0, 1)
