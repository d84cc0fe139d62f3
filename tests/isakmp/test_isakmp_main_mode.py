"""Two real parties hold Main Mode in memory: every algorithm, every loss, every way to fail."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Address

import pytest
from isakmp_parties import MEMBER, QUICK, SERVER, Party, deliver, run

from labctl.configuration import DhGroup, Encryption, Hash, IsakmpPolicy
from labctl.isakmp import proposals
from labctl.isakmp.datagram import Datagram, Endpoint
from labctl.isakmp.endpoint import Limits
from labctl.isakmp.errors import NotifyType
from labctl.isakmp.events import Cause, Phase1Deleted, Phase1Hint
from labctl.isakmp.header import HEADER_OCTETS, Doi, ExchangeType, Header
from labctl.isakmp.main_mode import MainMode
from labctl.isakmp.payloads import (
    HashPayload,
    Identification,
    KeyExchange,
    Nonce,
    Notification,
    Payload,
    VendorId,
    pack_chain,
    parse_chain,
)
from labctl.isakmp.reader import Reader
from labctl.isakmp.vendor import DEAD_PEER_DETECTION, PRIVATE_PROPOSALS

CIPHERS = [
    (Encryption.AES_CBC, 128),
    (Encryption.AES_CBC, 192),
    (Encryption.AES_CBC, 256),
    (Encryption.TRIPLE_DES, 192),
]
HASHES = [Hash.MD5, Hash.SHA1, Hash.SHA256, Hash.SHA384, Hash.SHA512]

Change = Callable[[MainMode, list[Payload]], list[Payload]]


def parties(*, member: list[IsakmpPolicy], server: list[IsakmpPolicy]) -> tuple[Party, Party]:
    return Party(MEMBER, member, {SERVER: b"secret"}), Party(SERVER, server, {MEMBER: b"secret"})


def establish(member: Party, server: Party, now: float = 0.0) -> None:
    assert member.isakmp.initiate(MEMBER, SERVER, now)
    deliver([member, server], now)
    assert len(member.seen.established) == len(server.seen.established) == 1


@pytest.mark.parametrize(("cipher", "hash_name"), list(itertools.product(CIPHERS, HASHES)))
def test_both_sides_derive_the_same_keys_with_every_cipher_and_hash(
    cipher: tuple[Encryption, int], hash_name: Hash
) -> None:
    policy = IsakmpPolicy(10, *cipher, hash_name, DhGroup.ECP256)
    member, server = parties(member=[policy], server=[policy])
    establish(member, server)
    ours, theirs = member.seen.established[0], server.seen.established[0]
    assert ours.keys == theirs.keys
    assert ours.last_block == theirs.last_block
    assert len(ours.keys.cipher_key) * 8 == cipher[1]


@pytest.mark.parametrize("group", DhGroup)
def test_both_sides_derive_the_same_keys_with_every_group(group: DhGroup) -> None:
    policy = IsakmpPolicy(10, Encryption.AES_CBC, 256, Hash.SHA1, group)
    member, server = parties(member=[policy], server=[policy])
    establish(member, server)
    assert member.seen.established[0].keys == server.seen.established[0].keys


def test_each_side_knows_who_the_other_is(pair: tuple[Party, Party]) -> None:
    member, server = pair
    establish(member, server)
    assert str(member.seen.established[0].peer_identity) == "10.255.0.11"
    assert str(server.seen.established[0].peer_identity) == "172.16.11.2"
    assert server.seen.established[0].peer_vendor_ids == {DEAD_PEER_DETECTION, PRIVATE_PROPOSALS}


def test_the_responders_best_policy_wins_and_the_shorter_lifetime_counts() -> None:
    weak = IsakmpPolicy(10, Encryption.TRIPLE_DES, 192, Hash.SHA1, DhGroup.ECP256, 500)
    strong = IsakmpPolicy(20, Encryption.AES_CBC, 256, Hash.SHA512, DhGroup.ECP384, 1000)
    member, server = parties(
        member=[weak, strong], server=[IsakmpPolicy(1, Encryption.AES_CBC, 256, Hash.SHA512, DhGroup.ECP384, 700), weak]
    )
    establish(member, server)
    assert server.seen.established[0].keys.hash is Hash.SHA512
    assert server.seen.established[0].expires == 700


def test_without_a_common_policy_each_side_says_so() -> None:
    member, server = parties(member=[QUICK], server=[IsakmpPolicy(group=DhGroup.ECP384)])
    member.isakmp.initiate(MEMBER, SERVER, 0)
    deliver([member, server], 0)
    assert [failure.cause for failure in server.seen.failures] == [Cause.NO_PROPOSAL]
    hints = [event for event in iter(member.isakmp.next_event, None) if isinstance(event, Phase1Hint)]
    assert [hint.cause for hint in hints] == [Cause.NO_PROPOSAL]
    run([member, server], 0, 60)
    assert [failure.cause for failure in member.seen.failures] == [Cause.NO_PROPOSAL]
    assert len(server.seen.failures) == 1, "copies of one offer are one failure"


def test_with_different_keys_each_side_says_so() -> None:
    member, server = Party(MEMBER, keys={SERVER: b"one"}), Party(SERVER, keys={MEMBER: b"two"})
    member.isakmp.initiate(MEMBER, SERVER, 0)
    run([member, server], 0, 60)
    assert [failure.cause for failure in server.seen.failures] == [Cause.AUTHENTICATION]
    assert "pre-shared keys differ" in server.seen.failures[0].reason
    assert [failure.cause for failure in member.seen.failures] == [Cause.AUTHENTICATION]
    assert not member.seen.established and not server.seen.established
    assert member.isakmp.half_open_count == server.isakmp.half_open_count == 0


def test_a_peer_without_a_key_is_refused_by_reason() -> None:
    member, server = Party(MEMBER, keys={SERVER: b"one"}), Party(SERVER)
    member.isakmp.initiate(MEMBER, SERVER, 0)
    run([member, server], 0, 60)
    assert [failure.cause for failure in server.seen.failures] == [Cause.NO_KEY]
    assert [failure.cause for failure in member.seen.failures] == [Cause.NO_KEY]


def test_we_do_not_begin_without_a_key() -> None:
    member = Party(MEMBER)
    assert not member.isakmp.initiate(MEMBER, SERVER, 0)
    assert [failure.cause for failure in member.seen.failures] == [Cause.NO_KEY]
    assert member.isakmp.datagrams_to_send() == []


def test_a_silent_server_gets_four_copies_and_then_the_member_gives_up() -> None:
    member = Party(MEMBER, keys={SERVER: b"one"})
    member.isakmp.initiate(MEMBER, SERVER, 0)
    sent: list[Datagram] = []

    def swallow(datagram: Datagram) -> list[Datagram]:
        sent.append(datagram)
        return []

    run([member], 0, 60, swallow)
    assert len(sent) == 4
    assert len({datagram.data for datagram in sent}) == 1, "copies are the same to the octet"
    assert [(failure.cause, failure.reason) for failure in member.seen.failures] == [
        (Cause.TIMEOUT, "it does not answer")
    ]


@pytest.mark.parametrize("lost", range(6))
def test_the_loss_of_any_one_message_is_survived(pair: tuple[Party, Party], lost: int) -> None:
    member, server = pair
    count = itertools.count()
    member.isakmp.initiate(MEMBER, SERVER, 0)
    run([member, server], 0, 29, lambda datagram: [] if next(count) == lost else [datagram])
    assert len(member.seen.established) == len(server.seen.established) == 1
    assert member.seen.established[0].last_block == server.seen.established[0].last_block


@pytest.mark.parametrize("late", range(6))
def test_any_message_may_arrive_after_the_one_sent_behind_it(pair: tuple[Party, Party], late: int) -> None:
    """A message is held back until something else has travelled; until then its sender only has copies to send."""
    member, server = pair
    count, held = itertools.count(), list[Datagram]()

    def network(datagram: Datagram) -> list[Datagram]:
        if next(count) == late:
            held.append(datagram)
            return []
        out = [datagram, *held]
        held.clear()
        return out

    member.isakmp.initiate(MEMBER, SERVER, 0)
    run([member, server], 0, 29, network)
    assert not held
    assert len(member.seen.established) == len(server.seen.established) == 1
    assert member.seen.established[0].last_block == server.seen.established[0].last_block


@pytest.mark.parametrize("replayed", range(6))
def test_an_old_message_that_comes_again_at_the_end_changes_nothing(pair: tuple[Party, Party], replayed: int) -> None:
    member, server = pair
    seen: list[Datagram] = []

    def network(datagram: Datagram) -> list[Datagram]:
        seen.append(datagram)
        return [datagram]

    member.isakmp.initiate(MEMBER, SERVER, 0)
    deliver([member, server], 0, network)
    old = seen[replayed]
    receiver = member if old.destination == MEMBER else server
    receiver.isakmp.receive(old, 1)
    deliver([member, server], 1)
    assert len(member.seen.established) == len(server.seen.established) == 1
    assert not member.seen.failures and not server.seen.failures
    assert server.isakmp.half_open_count == 0


@pytest.mark.parametrize("twice", range(6))
def test_a_duplicate_of_any_message_does_no_harm(pair: tuple[Party, Party], twice: int) -> None:
    member, server = pair
    count = itertools.count()
    member.isakmp.initiate(MEMBER, SERVER, 0)
    run([member, server], 0, 29, lambda datagram: [datagram] * (2 if next(count) == twice else 1))
    assert len(member.seen.established) == len(server.seen.established) == 1
    assert member.seen.established[0].keys == server.seen.established[0].keys


def test_every_message_may_come_three_times(pair: tuple[Party, Party]) -> None:
    member, server = pair
    member.isakmp.initiate(MEMBER, SERVER, 0)
    run([member, server], 0, 29, lambda datagram: [datagram] * 3)
    assert len(member.seen.established) == len(server.seen.established) == 1


def test_doi_1_is_accepted_when_relaxed_and_answered_in_kind() -> None:
    member, server = Party(MEMBER, keys={SERVER: b"k"}), Party(SERVER, keys={MEMBER: b"k"})
    member.isakmp.initiate(MEMBER, SERVER, 0, doi=Doi.IPSEC)
    deliver([member, server], 0)
    assert member.seen.established[0].doi == server.seen.established[0].doi == Doi.IPSEC


def test_doi_1_is_refused_when_strict() -> None:
    member = Party(MEMBER, keys={SERVER: b"k"})
    server = Party(SERVER, keys={MEMBER: b"k"}, relaxed_doi=False)
    member.isakmp.initiate(MEMBER, SERVER, 0, doi=Doi.IPSEC)
    deliver([member, server], 0)
    assert not server.seen.established
    assert "domain of interpretation 1" in server.seen.failures[0].reason


def test_an_association_ends_with_its_lifetime_on_both_sides(pair: tuple[Party, Party]) -> None:
    member, server = pair
    establish(member, server)
    run([member, server], 0, 4000)
    assert member.isakmp.associations == server.isakmp.associations == []
    assert {reason for _, reason in member.seen.deleted + server.seen.deleted} <= {
        "lifetime expired",
        "deleted by the peer",
    }


def test_a_delete_ends_it_on_the_other_side(pair: tuple[Party, Party]) -> None:
    member, server = pair
    establish(member, server)
    member.isakmp.delete(member.seen.established[0], 1, "left")
    deliver([member, server], 1)
    assert [reason for _, reason in server.seen.deleted] == ["deleted by the peer"]
    assert any(isinstance(event, Phase1Deleted) for event in iter(server.isakmp.next_event, None))


def test_a_member_that_restarts_replaces_its_old_association(pair: tuple[Party, Party]) -> None:
    member, server = pair
    establish(member, server)
    again = Party(MEMBER, keys={SERVER: b"LabPsk1"}, seed=1)
    again.isakmp.initiate(MEMBER, SERVER, 5)
    deliver([again, server], 5)
    assert len(server.isakmp.associations) == 1
    assert server.isakmp.associations[0].cookies == again.seen.established[0].cookies


def test_half_open_exchanges_of_one_peer_and_of_all_are_limited() -> None:
    limits = Limits(half_open=20, half_open_per_peer=3)
    addresses = [Endpoint(IPv4Address(f"10.9.0.{number}")) for number in range(1, 41)]
    server = Party(SERVER, keys=dict.fromkeys(addresses, b"k"), limits=limits)
    for attempt in range(10):
        for address in addresses:
            client = Party(address, keys={SERVER: b"k"}, seed=attempt)
            client.isakmp.initiate(address, SERVER, 0)
            for datagram in client.isakmp.datagrams_to_send():
                server.isakmp.receive(datagram, 0)
    assert server.isakmp.half_open_count == 20
    run([server], 0, 31, lambda datagram: [])
    assert server.isakmp.half_open_count == 0


def test_a_notification_reaches_the_other_side(pair: tuple[Party, Party]) -> None:
    member, server = pair
    establish(member, server)
    server.isakmp.notify(server.seen.established[0], NotifyType.INVALID_ID_INFORMATION)
    deliver([member, server], 1)
    assert [notification.name for notification in member.seen.notifications] == ["INVALID-ID-INFORMATION"]


def test_two_parties_at_one_address_keep_an_association_each() -> None:
    server = Party(SERVER, keys={MEMBER: b"k"})
    for seed in (1, 2):
        party = Party(MEMBER, keys={SERVER: b"k"}, seed=seed, initial_contact=False)
        party.isakmp.initiate(MEMBER, SERVER, 0)
        deliver([party, server], 0)
        assert party.seen.established
    assert len(server.isakmp.associations) == 2


def with_message_5(pair: tuple[Party, Party], monkeypatch: pytest.MonkeyPatch, change: Change) -> tuple[Party, Party]:
    """Phase 1 whose message 5, sealed with the right keys, holds what `change` makes of it."""
    member, server = pair
    genuine = MainMode._identity_payloads

    def changed(self: MainMode) -> list[Payload]:
        return change(self, genuine(self)) if self.initiator else genuine(self)

    monkeypatch.setattr(MainMode, "_identity_payloads", changed)
    member.isakmp.initiate(MEMBER, SERVER, 0)
    deliver([member, server], 0)
    return member, server


def proved(protocol: int, port: int) -> Change:
    """An identity with protocol and port, and the proof that goes with it."""

    def change(exchange: MainMode, payloads: list[Payload]) -> list[Payload]:
        identity = replace(Identification.ipv4(MEMBER.address), protocol=protocol, port=port)
        return [identity, HashPayload(exchange._expected_proof(identity.pack(), of_initiator=True)), *payloads[2:]]

    return change


@pytest.mark.parametrize(("protocol", "port"), [(0, 0), (17, 500), (17, 848), (17, 0), (0, 4711)])
def test_identities_with_these_protocols_and_ports_are_taken(
    pair: tuple[Party, Party], monkeypatch: pytest.MonkeyPatch, protocol: int, port: int
) -> None:
    _, server = with_message_5(pair, monkeypatch, proved(protocol, port))
    assert [sa.peer_identity.port for sa in server.seen.established] == [port]


@pytest.mark.parametrize(("protocol", "port"), [(17, 4500), (6, 500), (6, 0)])
def test_identities_with_other_protocols_and_ports_are_refused(
    pair: tuple[Party, Party], monkeypatch: pytest.MonkeyPatch, protocol: int, port: int
) -> None:
    _, server = with_message_5(pair, monkeypatch, proved(protocol, port))
    assert not server.seen.established
    assert [failure.reason for failure in server.seen.failures] == [
        f"an identity with protocol {protocol} and port {port}"
    ]


@pytest.mark.parametrize(
    ("missing", "change"),
    [
        ("the proof", lambda exchange, payloads: [payloads[0]]),
        ("the identity", lambda exchange, payloads: [payloads[1]]),
        ("one identity of two", lambda exchange, payloads: [payloads[0], *payloads]),
        ("the right proof", lambda exchange, payloads: [payloads[0], HashPayload(bytes(32))]),
    ],
)
def test_a_message_5_that_does_not_prove_an_identity_fails_authentication(
    pair: tuple[Party, Party], monkeypatch: pytest.MonkeyPatch, missing: str, change: Change
) -> None:
    """Also where noise of another key happens to parse: what fails is always the proof."""
    _, server = with_message_5(pair, monkeypatch, change)
    assert [failure.cause for failure in server.seen.failures] == [Cause.AUTHENTICATION], missing
    assert not server.seen.established


def test_a_forged_message_5_does_not_stop_the_genuine_one(pair: tuple[Party, Party]) -> None:
    """The IV moves with a message that proved itself, never with one that did not."""
    member, server = pair

    def network(datagram: Datagram) -> list[Datagram]:
        header = Header.parse(datagram.data)
        if header.encrypted and datagram.destination == SERVER:
            return [replace(datagram, data=datagram.data[:HEADER_OCTETS] + bytes(header.length - 28)), datagram]
        return [datagram]

    member.isakmp.initiate(MEMBER, SERVER, 0)
    deliver([member, server], 0, network)
    assert len(member.seen.established) == len(server.seen.established) == 1


@pytest.mark.parametrize(
    ("what", "first", "body"),
    [
        ("nothing", 0, b""),
        ("a broken SA", 1, bytes.fromhex("0000000800000002")),
        ("no SA", 13, bytes.fromhex("0000000878787878")),
        ("octets behind the chain", 13, bytes.fromhex("000000087878787800")),
    ],
)
def test_a_malformed_offer_is_refused_and_said(what: str, first: int, body: bytes) -> None:
    server = Party(SERVER, keys={MEMBER: b"k"})
    header = Header(b"initiate", bytes(8), first, ExchangeType.MAIN_MODE, length=HEADER_OCTETS + len(body))
    server.isakmp.receive(Datagram(header.pack() + body, MEMBER, SERVER), 0)
    assert [failure.cause for failure in server.seen.failures] == [Cause.MALFORMED], what
    (answer,) = server.isakmp.datagrams_to_send()
    (item,) = parse_chain(Header.parse(answer.data).next_payload, Reader(answer.data, HEADER_OCTETS))
    assert isinstance(item.payload, Notification) and item.payload.kind == NotifyType.PAYLOAD_MALFORMED
    assert server.isakmp.half_open_count == 0


@pytest.mark.parametrize("chain", [(0, 0), (1, 0)])
def test_an_offer_has_one_sa_and_it_comes_first(chain: tuple[int, int]) -> None:
    """RFC 2409 5."""
    choice: tuple[Payload, Payload] = (proposals.offer([QUICK]), VendorId(b"vendor"))
    payloads = [choice[index] for index in chain]
    body = pack_chain(payloads)
    header = Header(b"initiate", bytes(8), payloads[0].TYPE, 2, length=HEADER_OCTETS + len(body))
    server = Party(SERVER, keys={MEMBER: b"k"})
    server.isakmp.receive(Datagram(header.pack() + body, MEMBER, SERVER), 0)
    assert [failure.cause for failure in server.seen.failures] == [Cause.MALFORMED]


def test_a_trivial_public_value_is_refused(pair: tuple[Party, Party]) -> None:
    member, server = pair

    def network(datagram: Datagram) -> list[Datagram]:
        header = Header.parse(datagram.data)
        if header.next_payload == KeyExchange.TYPE and datagram.destination == SERVER:
            body = pack_chain([KeyExchange(bytes(64)), Nonce(bytes(32))])
            return [replace(datagram, data=header.with_length(HEADER_OCTETS + len(body)).pack() + body)]
        return [datagram]

    member.isakmp.initiate(MEMBER, SERVER, 0)
    deliver([member, server], 0, network)
    assert [failure.cause for failure in server.seen.failures] == [Cause.MALFORMED]
    assert "not a point of the curve" in server.seen.failures[0].reason


def test_no_printed_object_shows_a_key(pair: tuple[Party, Party]) -> None:
    member, server = pair
    establish(member, server)
    sa = member.seen.established[0]
    printed = repr(sa) + repr(sa.keys) + repr(list(iter(member.isakmp.next_event, None)))
    for secret in (sa.keys.skeyid, sa.keys.skeyid_a, sa.keys.skeyid_d, sa.keys.skeyid_e, sa.keys.cipher_key):
        assert repr(secret)[2:-1] not in printed and secret.hex() not in printed
