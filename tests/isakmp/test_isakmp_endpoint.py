"""One port: what goes up, what is answered, what is only a hint, and the limits that hold."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address
from typing import Any

import pytest
from isakmp_parties import MEMBER, QUICK, SERVER, Party, deliver, run

from labctl.isakmp import proposals
from labctl.isakmp.attributes import MAX_ATTRIBUTES, Attribute, pack_attributes, parse_attributes
from labctl.isakmp.datagram import Datagram, Endpoint
from labctl.isakmp.endpoint import Limits
from labctl.isakmp.errors import MalformedMessage, NotifyType, PeerError
from labctl.isakmp.events import Cause, MessageDropped, NotificationReceived, Phase1Hint
from labctl.isakmp.header import HEADER_OCTETS, MAX_MESSAGE_OCTETS, Doi, ExchangeType, Header
from labctl.isakmp.payloads import (
    Delete,
    Nonce,
    Notification,
    Payload,
    Proposal,
    Transform,
    pack_chain,
    parse_chain,
)
from labctl.isakmp.payloads.control import MAX_SPIS
from labctl.isakmp.payloads.security_association import MAX_TRANSFORMS
from labctl.isakmp.reader import Reader
from labctl.isakmp.replies import Replies
from labctl.isakmp.sa import Phase1Sa

NONCE = Nonce(bytes(16))


@pytest.fixture
def joined(pair: tuple[Party, Party]) -> tuple[Party, Party]:
    """The pair with an SA between them."""
    member, server = pair
    member.isakmp.initiate(MEMBER, SERVER, 0)
    deliver([member, server], 0)
    assert member.seen.established and server.seen.established
    return member, server


def sa_of(party: Party) -> Phase1Sa:
    return party.seen.established[0]


def receive(party: Party, data: bytes, now: float = 1.0, source: Endpoint = MEMBER) -> None:
    party.isakmp.receive(Datagram(data, source, party.address), now)


def clear_informational(sa: Phase1Sa, payload: Payload) -> bytes:
    body = pack_chain([payload])
    header = Header(sa.cookies[:8], sa.cookies[8:], payload.TYPE, ExchangeType.INFORMATIONAL, 0, 5)
    return header.with_length(HEADER_OCTETS + len(body)).pack() + body


def dropped(party: Party) -> list[str]:
    return [event.reason for event in iter(party.isakmp.next_event, None) if isinstance(event, MessageDropped)]


# Demultiplexing (reference 1.4).


@pytest.mark.parametrize("exchange", [ExchangeType.GROUPKEY_PULL, ExchangeType.COOP])
def test_exchanges_of_others_go_up_with_their_association(joined: tuple[Party, Party], exchange: ExchangeType) -> None:
    member, server = joined
    data = sa_of(member).protect(exchange, 77, (NONCE,))
    receive(server, data)
    ((sa, received),) = server.seen.exchanges
    assert sa.cookies == sa_of(server).cookies
    assert (received.header.exchange, received.header.message_id, received.datagram.data) == (exchange, 77, data)


@pytest.mark.parametrize("exchange", [ExchangeType.GROUPKEY_PUSH, ExchangeType.GROUPKEY_PUSH_ACK])
def test_rekeys_and_their_acknowledgements_go_up_without_any_association(exchange: ExchangeType) -> None:
    party = Party(SERVER)
    receive(party, Header(b"k" * 8, b"e" * 8, 18, exchange).pack())
    assert [received.header.exchange for received in party.seen.groups] == [exchange]


def test_a_protected_exchange_under_unknown_cookies_goes_nowhere(joined: tuple[Party, Party]) -> None:
    member, server = joined
    stranger = replace(sa_of(member), cookies=b"x" * 16)
    receive(server, stranger.protect(ExchangeType.GROUPKEY_PULL, 77, (NONCE,)))
    assert server.seen.exchanges == []
    assert "no phase-1 SA with these cookies" in dropped(server)


def test_a_protected_exchange_without_a_message_id_goes_nowhere(joined: tuple[Party, Party]) -> None:
    member, server = joined
    receive(server, sa_of(member).protect(ExchangeType.GROUPKEY_PULL, 0, (NONCE,)))
    assert server.seen.exchanges == []
    assert "message ID 0 outside phase 1" in dropped(server)


# Phase 1 belongs to whom it began with.


def half_way(pair: tuple[Party, Party]) -> tuple[Datagram, Datagram]:
    """Messages 1 and 3; the responder has seen message 1 and waits for message 3."""
    member, server = pair
    member.isakmp.initiate(MEMBER, SERVER, 0)
    (first,) = member.isakmp.datagrams_to_send()
    receive(server, first.data)
    (second,) = server.isakmp.datagrams_to_send()
    receive(member, second.data, source=SERVER)
    (third,) = member.isakmp.datagrams_to_send()
    return first, third


@pytest.mark.parametrize(
    ("what", "source", "change"),
    [
        ("from elsewhere", Endpoint(IPv4Address("192.0.2.66")), {}),
        ("from another port", Endpoint(MEMBER.address, 4500), {}),
        ("under another initiator's cookie", MEMBER, {"initiator_cookie": b"somebody"}),
        ("under another responder's cookie", MEMBER, {"responder_cookie": b"somebody"}),
        ("with a message ID", MEMBER, {"message_id": 1}),
    ],
)
def test_a_message_that_is_not_of_the_exchange_goes_nowhere(
    pair: tuple[Party, Party], what: str, source: Endpoint, change: dict[str, Any]
) -> None:
    _, server = pair
    _, third = half_way(pair)
    stray = replace(Header.parse(third.data), **change).pack() + third.data[HEADER_OCTETS:]
    receive(server, stray, source=source)
    assert server.isakmp.datagrams_to_send() == [], what
    assert not server.seen.failures
    receive(server, third.data)
    assert len(server.isakmp.datagrams_to_send()) == 1, "the genuine one is answered"


def test_a_cookie_in_use_begins_no_second_exchange(pair: tuple[Party, Party]) -> None:
    _, server = pair
    first, _ = half_way(pair)
    body = pack_chain([proposals.offer([QUICK, replace(QUICK, priority=20, key_bits=256)])])
    other = Header.parse(first.data).with_length(HEADER_OCTETS + len(body)).pack() + body
    receive(server, other)
    assert server.isakmp.half_open_count == 1
    assert server.isakmp.datagrams_to_send() == []


def test_an_initiator_that_cannot_read_the_last_message_says_so_at_the_end(pair: tuple[Party, Party]) -> None:
    """Nobody told it anything in clear: what it saw itself is the reason."""
    member, server = pair

    def network(datagram: Datagram) -> list[Datagram]:
        header = Header.parse(datagram.data)
        if header.exchange == ExchangeType.MAIN_MODE and header.encrypted and datagram.source == SERVER:
            return [replace(datagram, data=datagram.data[:HEADER_OCTETS] + bytes(header.length - HEADER_OCTETS))]
        return [datagram]

    member.isakmp.initiate(MEMBER, SERVER, 0)
    run([member, server], 0, 60, network)
    assert [failure.cause for failure in member.seen.failures] == [Cause.AUTHENTICATION]
    assert "pre-shared keys differ" in member.seen.failures[0].reason


# Requests and replies (reference 2.11).


def test_a_request_is_repeated_to_the_octet_and_then_given_up(joined: tuple[Party, Party]) -> None:
    member, _ = joined
    data = sa_of(member).protect(ExchangeType.GROUPKEY_PULL, 77, (NONCE,))
    member.isakmp.request(sa_of(member), 77, data, 100)
    times: list[float] = []
    now = 100.0
    while not member.seen.unanswered:
        times += [now for datagram in member.isakmp.datagrams_to_send() if datagram.data == data]
        deadline = member.isakmp.next_deadline()
        assert deadline is not None
        now = deadline
        member.isakmp.handle_timer(now)
    assert times == [100, 102, 106, 114]
    assert (member.seen.unanswered, now) == ([77], 130)


def test_a_request_that_was_answered_is_not_repeated(joined: tuple[Party, Party]) -> None:
    member, _ = joined
    member.isakmp.request(sa_of(member), 77, b"request", 100)
    member.isakmp.answered(sa_of(member), 77)
    member.isakmp.datagrams_to_send()
    run([member], 100, 200, lambda datagram: [])
    assert member.seen.unanswered == []


def test_a_request_ends_with_its_association(joined: tuple[Party, Party]) -> None:
    member, _ = joined
    member.isakmp.request(sa_of(member), 77, b"request", 100)
    member.isakmp.delete(sa_of(member), 101, "left")
    member.isakmp.datagrams_to_send()
    run([member], 101, 200, lambda datagram: [])
    assert member.seen.unanswered == []


def test_a_duplicate_gets_the_same_reply_and_does_not_go_up_again(joined: tuple[Party, Party]) -> None:
    member, server = joined
    data = sa_of(member).protect(ExchangeType.GROUPKEY_PULL, 77, (NONCE,))
    receive(server, data)
    ((_, received),) = server.seen.exchanges
    server.isakmp.reply(received, b"the reply", 1)
    for now in (1.0, 30.0, 60.9):
        assert [datagram.data for datagram in server.isakmp.datagrams_to_send()] == [b"the reply"]
        receive(server, data, now)
    assert len(server.seen.exchanges) == 1


def test_a_copy_from_elsewhere_draws_no_reply_to_there(joined: tuple[Party, Party]) -> None:
    member, server = joined
    data = sa_of(member).protect(ExchangeType.GROUPKEY_PULL, 77, (NONCE,))
    receive(server, data)
    server.isakmp.reply(server.seen.exchanges[0][1], b"the reply", 1)
    server.isakmp.datagrams_to_send()
    receive(server, data, source=Endpoint(IPv4Address("192.0.2.66")))
    assert server.isakmp.datagrams_to_send() == []


def test_replies_are_forgotten_when_their_time_is_over_and_when_there_are_too_many() -> None:
    replies = Replies(most=3, seconds=60)
    for number in range(5):
        replies.keep(bytes([number]), Datagram(bytes([number]), SERVER, MEMBER), number)
    assert len(replies) == 3
    assert replies.find(b"\x00", 5) == (False, None)
    assert replies.find(b"\x03", 62.9)[0] and not replies.find(b"\x03", 63)[0]
    assert len(replies) == 1, "what is over is dropped, asked for or not"
    replies.keep(b"no answer", None, 70)
    assert replies.find(b"no answer", 71) == (True, None)


# Informational exchanges (RFC 2409 5.7, RFC 3706).


def test_a_peer_that_asks_whether_we_live_hears_that_we_do(joined: tuple[Party, Party]) -> None:
    member, server = joined
    sa = sa_of(member)
    question = Notification(NotifyType.R_U_THERE, Doi.IPSEC, 1, sa.cookies, bytes.fromhex("00000a07"))
    receive(server, sa.informational(99, question))
    (answer,) = server.isakmp.datagrams_to_send()
    header = Header.parse(answer.data)
    assert (header.exchange, answer.destination) == (ExchangeType.INFORMATIONAL, MEMBER)
    assert header.message_id not in (0, 99), "the answer is an exchange of its own"
    opened = sa.open(header, answer.data)
    sa.verify(opened, header.message_id.to_bytes(4, "big"))
    expected = Notification(NotifyType.R_U_THERE_ACK, Doi.IPSEC, 1, sa.cookies, bytes.fromhex("00000a07"))
    assert [item.payload for item in opened.payloads] == [expected]
    assert server.seen.notifications == [], "a question of life is ours to answer, not the owner's"


def test_a_duplicate_of_the_question_is_not_answered_twice(joined: tuple[Party, Party]) -> None:
    member, server = joined
    question = Notification(NotifyType.R_U_THERE, Doi.IPSEC, 1, sa_of(member).cookies, bytes(4))
    data = sa_of(member).informational(99, question)
    receive(server, data)
    assert len(server.isakmp.datagrams_to_send()) == 1
    receive(server, data)
    assert server.isakmp.datagrams_to_send() == []


def test_a_notification_is_told_and_goes_up(joined: tuple[Party, Party]) -> None:
    member, server = joined
    receive(server, sa_of(member).informational(99, Notification(NotifyType.NO_PROPOSAL_CHOSEN)))
    assert [item.kind for item in server.seen.notifications] == [NotifyType.NO_PROPOSAL_CHOSEN]
    told = [event for event in iter(server.isakmp.next_event, None) if isinstance(event, NotificationReceived)]
    assert [event.name for event in told] == ["NO-PROPOSAL-CHOSEN"]


def test_an_informational_message_with_a_wrong_hash_does_nothing(joined: tuple[Party, Party]) -> None:
    member, server = joined
    sa = sa_of(member)
    forged = sa.protect(
        ExchangeType.INFORMATIONAL, 99, (Delete(Doi.GDOI, 1, 16, (sa.cookies,)),), bytes.fromhex("00000062")
    )
    receive(server, forged)
    assert server.seen.deleted == [] and len(server.isakmp.associations) == 1


@pytest.mark.parametrize("kind", ["delete", "notify"])
def test_nothing_in_clear_moves_an_association(joined: tuple[Party, Party], kind: str) -> None:
    member, server = joined
    sa = sa_of(member)
    payload: Payload = Notification(NotifyType.AUTHENTICATION_FAILED)
    if kind == "delete":
        payload = Delete(Doi.GDOI, 1, 16, (sa.cookies,))
    receive(server, clear_informational(sa, payload))
    assert not server.seen.deleted and not server.seen.notifications
    assert len(server.isakmp.associations) == 1
    assert server.isakmp.datagrams_to_send() == [], "and draws no answer that could be bounced"


@pytest.mark.parametrize("spis", [(), (b"y" * 16,)])
def test_a_delete_of_something_else_leaves_the_association(
    joined: tuple[Party, Party], spis: tuple[bytes, ...]
) -> None:
    member, server = joined
    receive(server, sa_of(member).informational(99, Delete(Doi.GDOI, 1, 16, spis)))
    assert len(server.isakmp.associations) == 1


@pytest.mark.parametrize("doi", [Doi.GDOI, Doi.IPSEC])
def test_a_delete_counts_in_either_domain(joined: tuple[Party, Party], doi: Doi) -> None:
    member, server = joined
    receive(server, sa_of(member).informational(99, Delete(doi, 1, 16, (sa_of(member).cookies,))))
    assert server.isakmp.associations == []


@pytest.mark.parametrize(("source", "heard"), [(SERVER, 1), (Endpoint(IPv4Address("192.0.2.66")), 0)])
def test_a_refusal_in_clear_is_a_hint_and_ends_nothing(pair: tuple[Party, Party], source: Endpoint, heard: int) -> None:
    """Anybody can send one: the exchange still comes to its end when the genuine answer arrives."""
    member, server = pair
    member.isakmp.initiate(MEMBER, SERVER, 0)
    (offer,) = member.isakmp.datagrams_to_send()
    cookie = Header.parse(offer.data).initiator_cookie
    body = pack_chain([Notification(NotifyType.NO_PROPOSAL_CHOSEN)])
    header = Header(cookie, b"forged!!", Notification.TYPE, ExchangeType.INFORMATIONAL, 0, 5, HEADER_OCTETS + len(body))
    receive(member, header.pack() + body, source=source)
    hints = [event for event in iter(member.isakmp.next_event, None) if isinstance(event, Phase1Hint)]
    assert [hint.reason for hint in hints] == ["it accepts none of our ISAKMP policies"] * heard
    assert member.seen.failures == []
    receive(server, offer.data)
    deliver([member, server], 1)
    assert member.seen.established


# Limits: each named beside its reason, each holds.


def test_the_oldest_association_makes_room() -> None:
    limits = Limits(associations=3)
    addresses = [Endpoint(IPv4Address(f"10.9.0.{number}")) for number in range(1, 6)]
    server = Party(SERVER, keys=dict.fromkeys(addresses, b"k"), limits=limits)
    for now, address in enumerate(addresses):
        client = Party(address, keys={SERVER: b"k"})
        client.isakmp.initiate(address, SERVER, now)
        deliver([client, server], now)
    assert [sa.peer for sa in server.isakmp.associations] == addresses[2:]
    assert [reason for _, reason in server.seen.deleted] == ["too many associations"] * 2


def test_events_that_nobody_fetches_do_not_pile_up() -> None:
    party = Party(SERVER, limits=Limits(events=10))
    for number in range(50):
        receive(party, bytes([number]))
    assert len(list(iter(party.isakmp.next_event, None))) == 10


def test_a_peer_whose_messages_are_refused_occupies_nothing() -> None:
    member = Party(MEMBER, keys={SERVER: b"k"}, policies=[replace(QUICK, key_bits=256)])
    server = Party(SERVER, keys={MEMBER: b"k"})
    for attempt in range(20):
        member.isakmp.initiate(MEMBER, SERVER, attempt)
        deliver([member, server], attempt)
    assert server.isakmp.half_open_count == 0


def test_a_message_longer_than_udp_carries_is_refused_unread() -> None:
    octets = MAX_MESSAGE_OCTETS + 1
    data = Header(b"i" * 8, bytes(8), 1, ExchangeType.MAIN_MODE, length=octets).pack() + bytes(octets - HEADER_OCTETS)
    with pytest.raises(PeerError) as refusal:
        Header.parse(data)
    assert refusal.value.notify == NotifyType.UNEQUAL_PAYLOAD_LENGTHS


def test_more_attributes_than_any_transform_has_are_refused() -> None:
    most = [Attribute.tv(number, 0) for number in range(MAX_ATTRIBUTES)]
    assert len(parse_attributes(Reader(pack_attributes(most)))) == MAX_ATTRIBUTES
    with pytest.raises(MalformedMessage, match="more than"):
        parse_attributes(Reader(pack_attributes([*most, Attribute.tv(1, 0)])))


def test_more_transforms_than_any_offer_has_are_refused() -> None:
    most = (Transform(1, 1, ()),) * MAX_TRANSFORMS
    assert Proposal.parse(Reader(Proposal(1, 1, b"", most).pack())).transforms == most
    with pytest.raises(MalformedMessage, match="transforms"):
        Proposal.parse(Reader(Proposal(1, 1, b"", (*most, most[0])).pack()))


def test_more_spis_than_any_delete_has_are_refused() -> None:
    most = Delete(Doi.GDOI, 1, 4, (b"spi!",) * MAX_SPIS)
    assert parse_chain(Delete.TYPE, Reader(pack_chain([most])))[0].payload == most
    with pytest.raises(MalformedMessage, match="SPIs"):
        parse_chain(Delete.TYPE, Reader(pack_chain([replace(most, spis=(*most.spis, b"more"))])))
