"""Phase 1 below a group: registrations need it, data and rekeys do not; who restarts or stops; what the log says."""

from __future__ import annotations

import random
from dataclasses import replace

from gdoi_parties import KS1, POLICY, World, group, group_member, key_server, member_address, signing_key

from labctl.configuration import IsakmpPolicy, IsakmpSettings, Keepalive, PreSharedKey, RekeyPolicy, RekeyTransport
from labctl.gdoi import KeyServer
from labctl.gdoi.events import LogMessage
from labctl.isakmp.datagram import Datagram, Endpoint
from labctl.isakmp.header import ExchangeType, Header

MEMBER = member_address(0)


def brief(lifetime: int) -> IsakmpPolicy:
    return IsakmpPolicy(group=POLICY.group, lifetime=lifetime)


def server_of(settings: IsakmpSettings, policy: IsakmpPolicy = POLICY) -> KeyServer:
    return KeyServer(
        [replace(group(), rekey=RekeyPolicy(transport=RekeyTransport.UNICAST))],
        [policy],
        [PreSharedKey(member_address(number), b"LabPsk1") for number in range(3)],
        random=random.Random("ks").randbytes,
        signing_key=signing_key(),
        settings=settings,
    )


def test_keys_and_rekeys_outlive_phase_1_which_is_made_anew_only_to_register() -> None:
    server, member = server_of(IsakmpSettings(), brief(300)), group_member()
    world = World({KS1: server}, [member])
    member.start(0)
    world.run(2000)
    assert member.isakmp.associations == server.isakmp.associations == []
    assert (member.successes, member.isakmp.counts.established) == (1, 1)
    world.run(3600)
    assert member.rekeys.received >= 1, "rekeys need no phase 1"
    member.reregister(3600)
    world.run(3610)
    assert (member.successes, member.isakmp.counts.established) == (2, 2)


def test_an_association_about_to_end_is_not_begun_to_be_used() -> None:
    server, member = server_of(IsakmpSettings(), brief(300)), group_member()
    world = World({KS1: server}, [member])
    member.start(0)
    world.run(100)
    member.reregister(100)
    world.run(230)
    assert (member.successes, member.isakmp.counts.established) == (2, 1), "the same phase 1 again"
    member.reregister(250)
    world.run(299)
    assert (member.successes, member.isakmp.counts.established) == (3, 2)
    world.run(400)
    assert member.registered and member.state.value == "registered", "the end of the old one disturbs nobody"


def test_a_key_server_that_stops_tells_its_members_that_phase_1_is_over() -> None:
    server, members = key_server(group()), [group_member(number) for number in range(3)]
    world = World({KS1: server}, members)
    for member in members:
        member.start(0)
    world.run(10)
    server.stop(10)
    world.run(11)
    assert [member.isakmp.associations for member in members] == [[], [], []]
    assert all(member.registered for member in members)
    assert [member.isakmp.counts.deleted_by_peer for member in members] == [1, 1, 1]


def test_a_member_of_a_key_server_that_restarted_registers_without_waiting_for_a_timer() -> None:
    member = group_member()
    world = World({KS1: key_server(group())}, [member])
    member.start(0)
    world.run(10)
    anew = key_server(group(), seed=1)
    world.parties[KS1] = anew
    member.reregister(10)
    world.run(10)
    assert member.successes == 2
    assert "IKMP_NO_SA" in world.logs(KS1)
    assert [sa.peer.address for sa in anew.isakmp.associations] == [MEMBER]


def test_a_member_that_restarted_replaces_its_old_phase_1_at_once() -> None:
    server, other = key_server(group()), group_member(1)
    world = World({KS1: server}, [group_member(), other])
    for party in (world.parties[MEMBER], other):
        party.start(0)  # type: ignore[union-attr]  # both are members
    world.run(10)
    anew = group_member(seed=1)
    world.parties[MEMBER] = anew
    anew.start(10)
    world.run(10)
    assert anew.registered
    assert sorted(str(sa.peer.address) for sa in server.isakmp.associations) == ["172.16.11.2", "172.16.11.3"]
    assert server.isakmp.counts.replaced_by_initial_contact == 1


def test_a_key_server_asks_no_member_whether_it_lives() -> None:
    """cisco-getvpn 1.3: keepalives are for key servers among each other."""
    server, member = server_of(IsakmpSettings(keepalive=Keepalive(10, 2, periodic=True))), group_member()
    world = World({KS1: server}, [member])
    member.start(0)
    world.run(1)
    del world.parties[MEMBER]
    world.run(200)
    assert server.isakmp.counts.keepalives_sent == 0 and len(server.isakmp.associations) == 1


def test_what_anybody_can_send_does_not_fill_the_log() -> None:
    server, member = server_of(IsakmpSettings(admission=2)), group_member()
    member.start(0)
    (offer,) = member.datagrams_to_send()
    header = Header.parse(offer.data)
    for number in range(300):
        now = number / 100
        octets = number.to_bytes(8, "big")
        source = Endpoint(member_address(number % 3))
        stranger = Endpoint(member_address(7))
        fresh = octets[:7] + bytes([octets[7] | 1]) + offer.data[8:]
        unknown = Header(octets, b"r" * 8, 8, ExchangeType.GROUPKEY_PULL, 1, number + 1, 28).pack()
        for data, sender in ((fresh, source), (fresh, stranger), (unknown, source)):
            server.receive_datagram(Datagram(data, sender, Endpoint(KS1)), now)
    logged = [event.mnemonic for event in iter(server.next_event, None) if isinstance(event, LogMessage)]
    assert header.exchange == ExchangeType.MAIN_MODE
    assert 1 <= logged.count("IKE_DENIED_SA_REQUEST") <= 4
    assert 1 <= logged.count("IKMP_NO_SA") <= 4
    assert 1 <= logged.count("IKMP_MODE_FAILURE") <= 80, "twenty a second"
