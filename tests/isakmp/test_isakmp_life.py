"""The life of phase 1: dead peers, lifetimes, peers that are kept, INITIAL-CONTACT, deletes, restarts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Address
from typing import Any

import pytest
from isakmp_parties import MEMBER, QUICK, SERVER, Network, Party, deliver, run

from labctl.configuration import IsakmpSettings, Keepalive
from labctl.isakmp.datagram import Datagram, Endpoint
from labctl.isakmp.endpoint import Limits
from labctl.isakmp.errors import NotifyType
from labctl.isakmp.events import Ending, PeerDead, Phase1Deleted, UnknownCookies
from labctl.isakmp.header import HEADER_OCTETS, Doi, ExchangeType, Header
from labctl.isakmp.main_mode import MainMode
from labctl.isakmp.payloads import Delete, HashPayload, Identification, Nonce, Notification, Payload, pack_chain
from labctl.isakmp.sa import Phase1Sa
from labctl.isakmp.vendor import PRIVATE_PROPOSALS

SECRET = b"LabPsk1"
OTHER = Endpoint(IPv4Address("172.16.12.2"))
PERIODIC = IsakmpSettings(keepalive=Keepalive(15, 3, periodic=True))
ON_DEMAND = IsakmpSettings(keepalive=Keepalive(15, 3))


def nothing(datagram: Datagram) -> list[Datagram]:
    """A network that carries nothing any more."""
    return []


def joined(
    settings: IsakmpSettings | None = None, of_server: IsakmpSettings | None = None, lifetime: int = 3600
) -> tuple[Party, Party]:
    """A member and a server with an SA between them, since time 0."""
    policies = [replace(QUICK, lifetime=lifetime)]
    member = Party(MEMBER, policies, {SERVER: SECRET}, settings=settings)
    server = Party(SERVER, policies, {MEMBER: SECRET, OTHER: SECRET}, settings=of_server)
    member.isakmp.initiate(MEMBER, SERVER, 0)
    deliver([member, server], 0)
    assert member.seen.established and server.seen.established
    return member, server


def sa_of(party: Party) -> Phase1Sa:
    return party.isakmp.associations[-1]


def inside(sa: Phase1Sa, datagram: Datagram) -> list[Payload]:
    """The payloads of an informational message, its HASH checked."""
    header = Header.parse(datagram.data)
    opened = sa.open(header, datagram.data)
    sa.verify(opened, header.message_id.to_bytes(4, "big"))
    return [item.payload for item in opened.payloads]


def listening(sa: Callable[[], Phase1Sa], heard: list[Notification]) -> Network:
    """A network that writes down the notifications that pass."""

    def network(datagram: Datagram) -> list[Datagram]:
        header = Header.parse(datagram.data)
        if header.exchange == ExchangeType.INFORMATIONAL and header.encrypted:
            own = replace(sa(), ivs=type(sa().ivs)())
            heard.extend(item for item in inside(own, datagram) if isinstance(item, Notification))
        return [datagram]

    return network


# Dead peer detection (RFC 3706).


def test_without_keepalive_nobody_is_ever_asked() -> None:
    """The default, as between a key server and its members (cisco-getvpn 1.3)."""
    member, server = joined()
    assert run([member, server], 0, 3000, nothing) == 3000
    assert member.isakmp.counts.keepalives_sent == server.isakmp.counts.keepalives_sent == 0
    assert len(member.isakmp.associations) == 1


def test_periodic_keepalives_ask_every_interval_with_numbers_that_grow_by_one() -> None:
    member, server = joined(PERIODIC)
    heard: list[Notification] = []
    run([member, server], 0, 61, listening(lambda: sa_of(member), heard))
    asked = [item for item in heard if item.kind == NotifyType.R_U_THERE]
    answered = [item for item in heard if item.kind == NotifyType.R_U_THERE_ACK]
    numbers = [int.from_bytes(item.data, "big") for item in asked]
    assert numbers == list(range(numbers[0], numbers[0] + 4)) and numbers[0] < 2**31
    assert [item.data for item in answered] == [item.data for item in asked]
    assert {(item.doi, item.protocol, item.spi) for item in heard} == {(Doi.IPSEC, 1, sa_of(member).cookies)}
    assert member.isakmp.counts.keepalives_sent == server.isakmp.counts.keepalives_answered == 4


def test_a_peer_that_falls_silent_is_asked_with_one_number_and_then_dead() -> None:
    member, _ = joined(PERIODIC)
    sa, heard, times = sa_of(member), [], []
    now = 0.0
    while member.isakmp.associations:
        deadline = member.isakmp.next_deadline()
        assert deadline is not None
        now = deadline
        member.isakmp.handle_timer(now)
        for datagram in member.isakmp.datagrams_to_send():
            times.append(now)
            heard += inside(sa, datagram)
    assert times == [15, 18, 21, 24, 27, 30], "the question, and five more"
    assert now == 33
    assert len({item.data for item in heard if isinstance(item, Notification)}) == 1
    assert [reason for _, reason in member.seen.deleted] == [Ending.DEAD]
    events = list(iter(member.isakmp.next_event, None))
    assert [type(event) for event in events[-2:]] == [PeerDead, Phase1Deleted]
    assert member.isakmp.counts.dead_peers == 1


def test_one_answer_to_the_last_question_keeps_a_peer_alive() -> None:
    member, server = joined(PERIODIC)
    run([member], 0, 29, nothing)
    run([member, server], 29, 31)
    assert run([member, server], 31, 200) == 200
    assert len(member.isakmp.associations) == 1 and member.isakmp.counts.dead_peers == 0


def test_an_answer_with_another_number_does_not_count() -> None:
    member, server = joined(PERIODIC)

    def network(datagram: Datagram) -> list[Datagram]:
        header = Header.parse(datagram.data)
        if datagram.source == SERVER and header.exchange == ExchangeType.INFORMATIONAL:
            (answer,) = inside(sa_of(server), replace(datagram))
            assert isinstance(answer, Notification)
            wrong = replace(answer, data=(int.from_bytes(answer.data, "big") ^ 1).to_bytes(4, "big"))
            return [replace(datagram, data=sa_of(server).informational(header.message_id ^ 1, wrong))]
        return [datagram]

    run([member, server], 0, 40, network)
    assert member.isakmp.associations == [] and member.isakmp.counts.dead_peers == 1


def test_on_demand_a_peer_is_asked_only_when_something_is_sent_and_nothing_came_for_the_interval() -> None:
    member, server = joined(ON_DEMAND)
    run([member, server], 0, 100)
    assert member.isakmp.counts.keepalives_sent == 0, "nothing was sent"
    sa = sa_of(member)
    member.isakmp.send(sa, sa.protect(ExchangeType.COOP, 77, (Nonce(bytes(16)),)), 100)
    deliver([member, server], 100)
    assert member.isakmp.counts.keepalives_sent == 1
    member.isakmp.send(sa, sa.protect(ExchangeType.COOP, 78, (Nonce(bytes(16)),)), 110)
    assert member.isakmp.counts.keepalives_sent == 1, "its answer came ten seconds ago"
    member.isakmp.heard(sa, 118)
    member.isakmp.send(sa, sa.protect(ExchangeType.COOP, 79, (Nonce(bytes(16)),)), 130)
    assert member.isakmp.counts.keepalives_sent == 1, "what the party above heard counts as well"
    member.isakmp.send(sa, sa.protect(ExchangeType.COOP, 80, (Nonce(bytes(16)),)), 133)
    run([member], 133, 160, nothing)
    assert [reason for _, reason in member.seen.deleted] == [Ending.DEAD]


def test_a_peer_that_does_not_know_the_question_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("labctl.isakmp.vendor.OURS", (PRIVATE_PROPOSALS,))
    member, server = joined(PERIODIC)
    run([member, server], 0, 100)
    assert member.isakmp.counts.keepalives_sent == 0 and member.isakmp.associations


@pytest.mark.parametrize(
    ("what", "change"),
    [
        ("about another SA", {"spi": b"x" * 16}),
        ("without a number", {"data": b""}),
        ("with a number from before", {"data": (6).to_bytes(4, "big")}),
    ],
)
def test_a_question_that_is_none_gets_no_answer(what: str, change: dict[str, Any]) -> None:
    member, server = joined()
    sa = sa_of(member)
    question = Notification(NotifyType.R_U_THERE, Doi.IPSEC, 1, sa.cookies, (7).to_bytes(4, "big"))
    server.isakmp.receive(Datagram(sa.informational(1, question), MEMBER, SERVER), 1)
    assert len(server.isakmp.datagrams_to_send()) == 1
    server.isakmp.receive(Datagram(sa.informational(2, replace(question, **change)), MEMBER, SERVER), 2)
    assert server.isakmp.datagrams_to_send() == [], what


# Lifetimes (RFC 2409, RFC 2407 4.5.4).


@pytest.mark.parametrize(("of_member", "of_server"), [(86400, 600), (600, 86400), (600, 600)])
def test_the_shorter_life_counts_on_both_sides(of_member: int, of_server: int) -> None:
    """A responder's shorter one is told by RESPONDER-LIFETIME: it must return the transform as it came."""
    member = Party(MEMBER, [replace(QUICK, lifetime=of_member)], {SERVER: SECRET})
    server = Party(SERVER, [replace(QUICK, lifetime=of_server)], {MEMBER: SECRET})
    member.isakmp.initiate(MEMBER, SERVER, 5)
    deliver([member, server], 5)
    assert [sa.expires for sa in [*member.isakmp.associations, *server.isakmp.associations]] == [605, 605]
    run([member, server], 5, 604)
    assert len(member.isakmp.associations) == 1
    run([member, server], 604, 605)
    assert member.isakmp.associations == server.isakmp.associations == []


@pytest.mark.parametrize(("told", "counts"), [(10**9, 3600), (0, 60), (700, 700)])
def test_a_responder_cannot_make_a_life_longer_or_senselessly_short(
    told: int, counts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    genuine = MainMode._status_notifications

    def status(self: MainMode) -> list[Payload]:
        if self.initiator:
            return genuine(self)
        self.lifetime, self._offered_lifetime = told, told + 1
        return genuine(self)

    monkeypatch.setattr(MainMode, "_status_notifications", status)
    member, _ = joined()
    assert sa_of(member).expires == counts


def test_what_nobody_keeps_ends_and_is_not_made_anew() -> None:
    member, server = joined(lifetime=600)
    run([member, server], 0, 3000)
    assert len(member.seen.established) == 1 and member.isakmp.associations == server.isakmp.associations == []
    assert member.isakmp.counts.expired == server.isakmp.counts.expired == 1
    assert not [event for event in iter(server.isakmp.next_event, None) if isinstance(event, UnknownCookies)], (
        "farewells that cross are no news"
    )


def kept(lifetime: int = 600, *, both: bool = True, settings: IsakmpSettings | None = None) -> tuple[Party, Party]:
    """Two parties, of which one or both keep an SA with the other."""
    policies = [replace(QUICK, lifetime=lifetime)]
    first = Party(MEMBER, policies, {SERVER: SECRET}, settings=settings)
    second = Party(SERVER, policies, {MEMBER: SECRET}, settings=settings)
    first.isakmp.keep(MEMBER, SERVER, 0)
    deliver([first, second], 0)
    if both:
        second.isakmp.keep(SERVER, MEMBER, 0)
    return first, second


@pytest.mark.parametrize("both", [True, False])
def test_a_peer_that_is_kept_is_authenticated_anew_before_the_end_of_each_life(both: bool) -> None:
    first, second = kept(both=both)
    for now in range(0, 6000, 10):
        run([first, second], now, now + 10)
        assert first.isakmp.association_with(SERVER) and second.isakmp.association_with(MEMBER), now
        assert len(first.isakmp.associations) <= 2
    assert 10 <= first.isakmp.counts.established <= 13
    assert {reason for _, reason in first.seen.deleted + second.seen.deleted} <= {
        Ending.EXPIRED,
        Ending.DELETED_BY_PEER,
    }, "a new SA beside an old one is no initial contact"


def test_a_peer_that_is_released_is_not_authenticated_anew() -> None:
    first, second = kept(both=False)
    first.isakmp.release(SERVER)
    run([first, second], 0, 2000)
    assert first.isakmp.counts.established == 1 and first.isakmp.associations == []


def test_a_kept_peer_that_was_dead_is_found_again_when_it_is_back() -> None:
    first, second = kept(lifetime=86400, settings=PERIODIC)
    run([first, second], 0, 100)
    run([first, second], 100, 400, nothing)
    assert first.isakmp.associations == second.isakmp.associations == []
    assert first.isakmp.counts.dead_peers == second.isakmp.counts.dead_peers == 1
    run([first, second], 400, 450)
    assert first.isakmp.association_with(SERVER) and second.isakmp.association_with(MEMBER)


# INITIAL-CONTACT (RFC 2407 4.6.3.3).


def contacts(party: Party, other: Party, now: float) -> int:
    """How many INITIAL-CONTACTs a phase 1 of a party sends."""
    said: list[bool] = []
    genuine = MainMode._status_notifications

    def status(self: MainMode) -> list[Payload]:
        payloads = genuine(self)
        said.extend(True for item in payloads if isinstance(item, Notification) and item.kind == 24578)
        return payloads

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MainMode, "_status_notifications", status)
        party.isakmp.initiate(party.address, other.address, now)
        deliver([party, other], now)
    return len(said)


def test_initial_contact_is_said_only_without_another_association() -> None:
    member = Party(MEMBER, keys={SERVER: SECRET})
    server = Party(SERVER, keys={MEMBER: SECRET})
    assert contacts(member, server, 0) == 1
    assert contacts(member, server, 1) == 0
    assert len(server.isakmp.associations) == 2
    for sa in member.isakmp.associations:
        member.isakmp.delete(sa, 2, "left")
    assert contacts(member, server, 3) == 1


def test_initial_contact_replaces_all_associations_of_that_party_whatever_its_port_and_of_nobody_else() -> None:
    server = joined()[1]
    other = Party(OTHER, keys={SERVER: SECRET})
    other.isakmp.initiate(OTHER, SERVER, 1)
    deliver([other, server], 1)
    behind = Endpoint(MEMBER.address, 4848)
    again = Party(behind, keys={SERVER: SECRET}, seed=1)
    again.isakmp.initiate(behind, SERVER, 5)
    deliver([again, server], 5)
    assert [sa.peer for sa in server.isakmp.associations] == [OTHER, behind]
    assert [(sa.peer, reason) for sa, reason in server.seen.deleted] == [(MEMBER, Ending.INITIAL_CONTACT)]
    assert server.isakmp.counts.replaced_by_initial_contact == 1


def test_a_member_that_claims_another_identity_replaces_nothing_of_its_owner(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under a pre-shared key the identity is what the peer says; the key proves the address."""
    member, server = joined()
    thief = Party(OTHER, keys={SERVER: SECRET})
    genuine = MainMode._proof

    def proof(self: MainMode) -> list[Payload]:
        if self.local != OTHER:
            return genuine(self)
        claimed = Identification.ipv4(MEMBER.address)
        return [claimed, HashPayload(self._expected_proof(claimed.pack(), of_initiator=True))]

    monkeypatch.setattr(MainMode, "_proof", proof)
    thief.isakmp.initiate(OTHER, SERVER, 1)
    deliver([thief, server], 1)
    assert [sa.peer for sa in server.isakmp.associations] == [MEMBER, OTHER]
    stolen = Delete(Doi.GDOI, 1, 16, (sa_of(member).cookies,))
    server.isakmp.receive(Datagram(sa_of(thief).informational(9, stolen), OTHER, SERVER), 2)
    assert len(server.isakmp.associations) == 2, "and deletes nothing of its owner either"


def test_initial_contact_counts_only_behind_a_proof() -> None:
    _, server = joined()
    liar = Party(MEMBER, keys={SERVER: b"guess"}, seed=7)
    liar.isakmp.initiate(MEMBER, SERVER, 1)
    deliver([liar, server], 1)
    assert len(server.isakmp.associations) == 1 and server.seen.deleted == []


# Deletes.


def test_a_delete_under_one_association_ends_another_of_the_same_peer() -> None:
    member, server = joined()
    first = sa_of(member)
    member.isakmp.initiate(MEMBER, SERVER, 1)
    deliver([member, server], 1)
    second = sa_of(member)
    server.isakmp.receive(
        Datagram(second.informational(9, Delete(Doi.GDOI, 1, 16, (first.cookies,))), MEMBER, SERVER), 2
    )
    assert [sa.cookies for sa in server.isakmp.associations] == [second.cookies]


@pytest.mark.parametrize(("protocol", "doi"), [(3, Doi.GDOI), (1, 7)])
def test_a_delete_of_another_protocol_or_domain_ends_nothing(protocol: int, doi: int) -> None:
    member, server = joined()
    sa = sa_of(member)
    server.isakmp.receive(Datagram(sa.informational(9, Delete(doi, protocol, 16, (sa.cookies,))), MEMBER, SERVER), 2)
    assert len(server.isakmp.associations) == 1


@pytest.mark.parametrize("who", [0, 1])
def test_either_side_deletes_and_a_replay_of_it_does_nothing(who: int) -> None:
    parties = joined()
    party, other = parties[who], parties[1 - who]
    party.isakmp.delete(sa_of(party), 1, "left")
    (farewell,) = party.isakmp.datagrams_to_send()
    other.isakmp.receive(farewell, 1)
    assert other.isakmp.associations == []
    again = parties[0]
    again.isakmp.initiate(MEMBER, SERVER, 2)
    deliver(parties, 2)
    other.isakmp.receive(farewell, 100)
    assert len(other.isakmp.associations) == 1


# Peers that restart.


def test_a_peer_that_forgot_us_says_so_and_a_new_phase_1_takes_the_place_of_the_old() -> None:
    member, _ = joined()
    old = sa_of(member)
    server = Party(SERVER, keys={MEMBER: SECRET}, seed=3)
    member.isakmp.request(old, 77, old.protect(ExchangeType.GROUPKEY_PULL, 77, (Nonce(bytes(16)),)), 10)
    deliver([member, server], 10)
    assert len(member.seen.established) == 2, "at once, without a timer"
    assert [(sa.cookies, reason) for sa, reason in member.seen.deleted] == [(old.cookies, Ending.FORGOTTEN)]
    assert server.isakmp.counts.unknown_cookies == 1


def test_keepalives_find_a_peer_that_restarted_without_waiting_for_their_retries() -> None:
    first, _ = kept(lifetime=86400, settings=PERIODIC)
    again = Party(SERVER, [replace(QUICK, lifetime=86400)], {MEMBER: SECRET}, seed=3, settings=PERIODIC)
    run([first, again], 0, 16)
    assert first.isakmp.association_with(SERVER) and again.isakmp.association_with(MEMBER)
    assert first.isakmp.counts.dead_peers == 0


def invalid_cookie(sa: Phase1Sa) -> bytes:
    body = pack_chain([Notification(NotifyType.INVALID_COOKIE)])
    header = Header(sa.cookies[:8], sa.cookies[8:], Notification.TYPE, ExchangeType.INFORMATIONAL, 0, 5)
    return header.with_length(HEADER_OCTETS + len(body)).pack() + body


def test_who_only_claims_that_a_peer_forgot_us_costs_one_phase_1_and_no_association() -> None:
    member, _ = joined()
    sa = sa_of(member)
    member.isakmp.receive(Datagram(invalid_cookie(sa), SERVER, MEMBER), 5)
    assert member.isakmp.datagrams_to_send() == [], "nobody waits for an answer, so there is nothing to doubt"
    member.isakmp.request(sa, 77, b"request", 10)
    for now in range(10, 20):
        member.isakmp.receive(Datagram(invalid_cookie(sa), SERVER, MEMBER), now)
    sent = [Header.parse(item.data).exchange for item in member.isakmp.datagrams_to_send() if item.data != b"request"]
    assert sent == [ExchangeType.MAIN_MODE]
    assert member.isakmp.associations == [sa] and member.seen.deleted == []


def test_answers_about_unknown_associations_are_few() -> None:
    member, _ = joined()
    server = Party(SERVER, keys={MEMBER: SECRET}, limits=Limits(unknown_answers=3))
    sent = 0
    for number in range(1, 50):
        data = sa_of(member).protect(ExchangeType.GROUPKEY_PULL, number, (Nonce(bytes(16)),))
        server.isakmp.receive(Datagram(data, MEMBER, SERVER), 1 + number / 100)
        sent += len(server.isakmp.datagrams_to_send())
    assert sent == 3
