"""Floods: what anybody can send costs little memory and no key agreement, and keeps no real member out."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Address

import pytest
from isakmp_parties import MEMBER, QUICK, SERVER, Party, deliver

from labctl import crypto
from labctl.configuration import DhGroup, IsakmpSettings
from labctl.isakmp import proposals
from labctl.isakmp.cookies import KNOWN_OFFERS, STRANGE_OFFERS, Cookies
from labctl.isakmp.datagram import Datagram, Endpoint
from labctl.isakmp.endpoint import Limits
from labctl.isakmp.events import AdmissionLimit
from labctl.isakmp.header import HEADER_OCTETS, ExchangeType, Header
from labctl.isakmp.payloads import Payload, SecurityAssociation, VendorId, pack_chain

SECRET = b"LabPsk1"
SITES = [Endpoint(IPv4Address(f"10.9.{number // 250}.{number % 250 + 1}")) for number in range(2000)]


def offer(source: Endpoint, cookie: bytes, *more: Payload, to: Endpoint = SERVER) -> Datagram:
    """A well-formed message 1, from wherever it says."""
    body = pack_chain([proposals.offer([QUICK]), *more])
    header = Header(cookie, bytes(8), SecurityAssociation.TYPE, ExchangeType.MAIN_MODE)
    return Datagram(header.with_length(HEADER_OCTETS + len(body)).pack() + body, source, to)


def flood(seed: int = 0) -> Iterator[Datagram]:
    """First messages without end, each from another site and under another cookie."""
    chance = random.Random(seed)
    while True:
        yield offer(chance.choice(SITES), chance.randbytes(8))


def a_server(limits: Limits | None = None, settings: IsakmpSettings | None = None) -> Party:
    return Party(SERVER, keys=dict.fromkeys([MEMBER, *SITES], SECRET), limits=limits, settings=settings)


@pytest.fixture
def agreements(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Counts the key agreements of everybody: each begins with a key pair or ends with a shared secret."""
    done: list[int] = []
    genuine = crypto.generate_private_value

    class Counted:
        def __init__(self, group: DhGroup) -> None:
            self._value = genuine(group)
            self.public = self._value.public

        def exchange(self, peer_public: bytes) -> bytes:
            done.append(1)
            return self._value.exchange(peer_public)

    monkeypatch.setattr(crypto, "generate_private_value", Counted)
    return done


def test_the_oldest_exchange_makes_place_and_the_limit_is_the_configured_one() -> None:
    server = a_server(settings=IsakmpSettings(admission=100))
    storm = flood()
    for _ in range(1000):
        server.isakmp.receive(next(storm), 0)
    assert server.isakmp.half_open_count == 100
    assert server.isakmp.counts.half_open_dropped == 900 and server.isakmp.counts.refused_by_admission == 0
    events = list(iter(server.isakmp.next_event, None))
    assert any(isinstance(event, AdmissionLimit) for event in events)


def test_a_flood_costs_no_key_agreement_and_bounded_memory(agreements: list[int]) -> None:
    server = a_server()
    storm = flood()
    for number in range(3000):
        server.isakmp.receive(next(storm), number / 1000)
    limits = server.isakmp.limits
    assert agreements == []
    assert server.isakmp.half_open_count <= limits.half_open
    assert server.isakmp.kept_replies <= limits.first_replies
    assert server.isakmp._timers.kept <= 2 * limits.half_open + 64


def test_nothing_is_kept_of_what_is_no_plausible_first_message() -> None:
    server = a_server()
    good = offer(MEMBER, b"initiate").data
    stranger = offer(Endpoint(IPv4Address("192.0.2.66")), b"initiate")
    for data in (good[:40], good[:28], good[:16] + b"\x01\x21" + good[18:], bytes(100)):
        server.isakmp.receive(Datagram(data, MEMBER, SERVER), 0)
    server.isakmp.receive(stranger, 0)
    assert server.isakmp.half_open_count == 0


@pytest.mark.parametrize("between", [0, 50, 1100])
def test_a_member_gets_through_whatever_comes_between_its_messages(between: int) -> None:
    """Also where its exchange was dropped for newer ones: our cookie in message 3 brings it back."""
    server, member, storm = a_server(), Party(MEMBER, keys={SERVER: SECRET}), flood()

    def network(datagram: Datagram) -> list[Datagram]:
        return [*(next(storm) for _ in range(between)), datagram] if datagram.destination == SERVER else [datagram]

    member.isakmp.initiate(MEMBER, SERVER, 0)
    deliver([member, server], 0, network)
    assert len(member.seen.established) == len(server.seen.established) == 1
    assert server.isakmp.counts.half_open_restored == (1 if between == 1100 else 0)


def test_a_member_gets_through_a_flood_under_its_own_address() -> None:
    server, member, chance = a_server(), Party(MEMBER, keys={SERVER: SECRET}), random.Random(1)

    def network(datagram: Datagram) -> list[Datagram]:
        if datagram.destination != SERVER:
            return [datagram]
        return [*(offer(MEMBER, chance.randbytes(8)) for _ in range(100)), datagram]

    member.isakmp.initiate(MEMBER, SERVER, 0)
    deliver([member, server], 0, network)
    assert len(server.seen.established) == 1
    assert server.isakmp.half_open_count <= server.isakmp.limits.half_open_per_peer + 1


def test_a_member_gets_through_a_flood_of_offers_that_all_differ_once_one_like_it_has() -> None:
    server, chance = a_server(), random.Random(2)
    first = Party(SITES[0], keys={SERVER: SECRET})
    first.isakmp.initiate(SITES[0], SERVER, 0)
    deliver([first, server], 0)

    def network(datagram: Datagram) -> list[Datagram]:
        if datagram.destination != SERVER:
            return [datagram]
        forged = [
            offer(chance.choice(SITES), chance.randbytes(8), VendorId(chance.randbytes(16)))
            for _ in range(STRANGE_OFFERS + 1)
        ]
        return [*forged, datagram]

    member = Party(MEMBER, keys={SERVER: SECRET})
    member.isakmp.initiate(MEMBER, SERVER, 1)
    deliver([member, server], 1, network)
    assert len(server.seen.established) == 2 and server.isakmp.counts.half_open_restored == 1


def test_members_that_stand_are_untouched_by_a_flood() -> None:
    server, member = a_server(Limits(half_open=50)), Party(MEMBER, keys={SERVER: SECRET})
    member.isakmp.initiate(MEMBER, SERVER, 0)
    deliver([member, server], 0)
    storm = flood()
    for number in range(3000):
        server.isakmp.receive(next(storm), 1 + number / 1000)
        server.isakmp.datagrams_to_send()
    assert [sa.peer for sa in server.isakmp.associations] == [MEMBER]


def messages(member: Party, server: Party, now: float) -> list[Datagram]:
    """Phase 1, and what the member sent in it."""
    sent: list[Datagram] = []

    def network(datagram: Datagram) -> list[Datagram]:
        sent.extend([datagram] if datagram.source == MEMBER else [])
        return [datagram]

    member.isakmp.initiate(MEMBER, SERVER, now)
    deliver([member, server], now, network)
    return sent


@pytest.mark.parametrize("later", [0, 10, 59, 61, 200])
def test_replays_of_a_phase_1_cost_no_second_key_agreement(agreements: list[int], later: int) -> None:
    server, member = a_server(), Party(MEMBER, keys={SERVER: SECRET})
    sent = messages(member, server, 0)
    assert len(agreements) == 2, "one each"
    for _ in range(5):
        for datagram in sent:
            server.isakmp.receive(datagram, later)
    assert len(agreements) == 2
    assert len(server.seen.established) == 1 and len(server.isakmp.associations) == 1


def test_a_replay_of_message_3_during_a_flood_costs_no_second_key_agreement(agreements: list[int]) -> None:
    """First messages have replies of their own, so that they push out no reply to message 3."""
    server, member, storm = a_server(), Party(MEMBER, keys={SERVER: SECRET}), flood()
    sent = messages(member, server, 0)
    for number in range(3000):
        server.isakmp.receive(next(storm), number / 1000)
    for datagram in sent[1:]:
        server.isakmp.receive(datagram, 5)
    assert len(agreements) == 2 and len(server.seen.established) == 1


def test_one_address_cannot_have_more_key_agreements_under_way_than_its_share(agreements: list[int]) -> None:
    """Whoever is where it says may begin so many exchanges, and is refused from then on until they end."""
    limits = Limits(half_open_per_peer=3)
    server = Party(SERVER, keys={MEMBER: SECRET}, limits=limits)
    for seed in range(10):
        greedy = Party(MEMBER, keys={SERVER: b"guess"}, seed=seed)
        greedy.isakmp.initiate(MEMBER, SERVER, 0)
        deliver([greedy, server], 0)
    assert len(agreements) == 2 * limits.half_open_per_peer
    assert server.isakmp.counts.refused_by_admission == 10 - limits.half_open_per_peer
    server.isakmp.handle_timer(31)
    assert server.isakmp.half_open_count == 0
    member = Party(MEMBER, keys={SERVER: SECRET}, seed=99)
    member.isakmp.initiate(MEMBER, SERVER, 31)
    deliver([member, server], 31)
    assert server.seen.established


# The cookies themselves.

HERE, THERE = SERVER, MEMBER


@pytest.fixture
def cookies() -> Cookies:
    return Cookies(random.Random(4).randbytes, 30)


def test_a_cookie_brings_its_offer_back_to_its_peer_alone_and_for_a_while(cookies: Cookies) -> None:
    made = cookies.make(HERE, THERE, b"initiate", b"the offer", 100)
    assert made == cookies.make(HERE, THERE, b"initiate", b"the offer", 101), "one answer to one message"
    assert cookies.recall(made, HERE, THERE, b"initiate", 130) == b"the offer"
    assert cookies.recall(made, HERE, THERE, b"initiate", 160) is None, "too old"
    assert cookies.recall(made, HERE, replace(THERE, port=4500), b"initiate", 101) is None
    assert cookies.recall(made, HERE, THERE, b"somebody", 101) is None
    assert cookies.recall(made[:7] + bytes([made[7] ^ 1]), HERE, THERE, b"initiate", 101) is None


def test_cookies_of_two_key_servers_have_nothing_in_common(cookies: Cookies) -> None:
    made = cookies.make(HERE, THERE, b"initiate", b"the offer", 100)
    other = Cookies(random.Random(5).randbytes, 30)
    other.make(HERE, THERE, b"initiate", b"the offer", 100)
    assert other.recall(made, HERE, THERE, b"initiate", 100) is None


def test_offers_are_kept_in_a_bounded_table_and_authenticated_ones_outlive_strange_ones(cookies: Cookies) -> None:
    cookies.authenticated(cookies.make(HERE, THERE, b"initiate", b"good", 0))
    good = cookies.make(HERE, THERE, b"initiate", b"good", 0)
    strange = cookies.make(HERE, THERE, b"initiate", b"strange", 0)
    for number in range(STRANGE_OFFERS):
        cookies.make(HERE, THERE, b"initiate", number.to_bytes(4, "big"), 0)
    assert cookies.recall(strange, HERE, THERE, b"initiate", 0) is None
    assert cookies.recall(good, HERE, THERE, b"initiate", 0) == b"good"
    for number in range(KNOWN_OFFERS):
        cookies.authenticated(cookies.make(HERE, THERE, b"initiate", b"also good %d" % number, 0))
    assert cookies.recall(good, HERE, THERE, b"initiate", 0) is None


def test_a_message_longer_than_any_offer_has_a_cookie_and_is_not_kept(cookies: Cookies) -> None:
    made = cookies.make(HERE, THERE, b"initiate", b"x" * 5000, 0)
    assert len(made) == 8 and cookies.recall(made, HERE, THERE, b"initiate", 0) is None
