"""Codec and endpoint against octets of every kind: round trips hold, and only the peer-error family comes out."""

from __future__ import annotations

import contextlib
import random
from ipaddress import IPv4Address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from isakmp_parties import MEMBER, SERVER, Party, deliver, run

from labctl.isakmp.attributes import Attribute, parse_attributes
from labctl.isakmp.datagram import Datagram, Endpoint
from labctl.isakmp.endpoint import Limits
from labctl.isakmp.errors import MalformedMessage, NotifyType, PeerError
from labctl.isakmp.header import Header
from labctl.isakmp.payloads import (
    MAX_PAYLOADS,
    Certificate,
    CertificateRequest,
    Configuration,
    Delete,
    HashPayload,
    Identification,
    KeyExchange,
    NatDiscovery,
    NatOriginalAddress,
    Nonce,
    Notification,
    Payload,
    ProofOfPossession,
    Proposal,
    SecurityAssociation,
    Signature,
    Transform,
    VendorId,
    pack_chain,
    parse_chain,
)
from labctl.isakmp.reader import Reader

octets = st.binary(max_size=64)
attributes = st.one_of(
    st.builds(Attribute.tv, st.integers(0, 0x7FFF), st.integers(0, 0xFFFF)),
    st.builds(Attribute.tlv, st.integers(0, 0x7FFF), octets),
)
attribute_lists = st.lists(attributes, max_size=8).map(tuple)
transforms = st.builds(Transform, st.integers(0, 255), st.integers(0, 255), attribute_lists)
proposals = st.builds(
    Proposal,
    st.integers(0, 255),
    st.integers(0, 255),
    st.binary(max_size=16),
    st.lists(transforms, min_size=1, max_size=4).map(tuple),
)
associations = st.builds(
    SecurityAssociation,
    st.integers(0, 0xFFFFFFFF),
    st.integers(0, 0xFFFFFFFF),
    st.lists(proposals, min_size=1, max_size=3).map(tuple),
)
deletes = st.integers(0, 16).flatmap(
    lambda size: st.builds(
        Delete,
        st.integers(0, 0xFFFFFFFF),
        st.integers(0, 255),
        st.just(size),
        st.lists(st.binary(min_size=size, max_size=size), max_size=5).map(tuple),
    )
)
payloads: st.SearchStrategy[Payload] = st.one_of(
    associations,
    st.builds(KeyExchange, octets),
    st.builds(HashPayload, octets),
    st.builds(VendorId, octets),
    st.builds(Nonce, st.binary(min_size=8, max_size=256)),
    st.builds(Identification, st.just(11), octets, st.integers(0, 255), st.integers(0, 0xFFFF)),
    st.ip_addresses(v=4).map(lambda address: Identification.ipv4(IPv4Address(address))),
    st.builds(
        Notification, st.integers(0, 0xFFFF), st.integers(0, 0xFFFFFFFF), st.integers(0, 255), st.binary(max_size=16)
    ),
    deletes,
    st.builds(Signature, octets),
    st.builds(NatDiscovery, octets),
    st.builds(ProofOfPossession, octets),
    st.builds(Certificate, st.integers(0, 255), octets),
    st.builds(CertificateRequest, st.integers(0, 255), octets),
    st.builds(Configuration, st.integers(0, 255), st.integers(0, 0xFFFF), attribute_lists),
    st.ip_addresses(v=4).map(lambda address: NatOriginalAddress(1, address.packed)),
    st.ip_addresses(v=6).map(lambda address: NatOriginalAddress(5, address.packed)),
)


@given(st.lists(payloads, min_size=1, max_size=8))
def test_a_chain_parses_to_what_was_packed(chain: list[Payload]) -> None:
    data = pack_chain(chain)
    parsed = parse_chain(chain[0].TYPE, Reader(data))
    assert [item.payload for item in parsed] == chain
    assert b"".join(item.whole for item in parsed) == data


@given(attribute_lists)
def test_attributes_parse_to_what_was_packed(values: tuple[Attribute, ...]) -> None:
    assert parse_attributes(Reader(b"".join(item.pack() for item in values))) == values


@given(st.lists(payloads, min_size=1, max_size=5), st.data())
@settings(max_examples=200)
def test_a_chain_cut_anywhere_is_malformed(chain: list[Payload], data: st.DataObject) -> None:
    packed = pack_chain(chain)
    cut = data.draw(st.integers(0, len(packed) - 1))
    with pytest.raises(PeerError):
        parse_chain(chain[0].TYPE, Reader(packed[:cut]))


@given(st.integers(0, 255), st.binary(max_size=300))
@settings(max_examples=500)
def test_noise_parses_or_is_the_peers_error(first: int, data: bytes) -> None:
    with contextlib.suppress(PeerError):
        parse_chain(first, Reader(data))


@given(st.binary(max_size=60))
def test_a_header_of_noise_parses_or_is_the_peers_error(data: bytes) -> None:
    try:
        header = Header.parse(data)
    except PeerError:
        return
    assert header.pack()[:16] == data[:16]


@pytest.mark.parametrize("kind", [14, 19, 21])
def test_payloads_that_we_never_send_are_read_all_the_same(kind: int) -> None:
    """Reference 1.3; the body fits each: an IPv4 address, or four octets and a TLV of nothing."""
    body = bytes.fromhex("01000000" + ("0a000001" if kind == 21 else "00010000"))
    (item,) = parse_chain(kind, Reader(b"\x00\x00\x00\x0c" + body))
    assert (item.payload.TYPE, item.payload.pack()) == (kind, body)


@pytest.mark.parametrize("kind", [23, 127, 130, 131, 132, 255])
def test_payload_types_that_we_did_not_ask_for_are_refused_by_name(kind: int) -> None:
    """130 to 132 belong to vendor IDs that we never send (RFC 2408 5.3)."""
    with pytest.raises(PeerError) as refusal:
        parse_chain(kind, Reader(b"\x00\x00\x00\x04"))
    assert refusal.value.notify == NotifyType.INVALID_PAYLOAD_TYPE


@pytest.mark.parametrize("body", ["", "01000000", "010000000a00", "050000000a000001", "090000000a000001"])
def test_an_original_address_is_of_the_size_of_its_type(body: str) -> None:
    with pytest.raises(MalformedMessage):
        NatOriginalAddress.parse(Reader(bytes.fromhex(body)))


def test_more_payloads_than_any_message_has_are_refused() -> None:
    data = pack_chain([VendorId(b"x")] * (MAX_PAYLOADS + 1))
    with pytest.raises(MalformedMessage, match="more than"):
        parse_chain(VendorId.TYPE, Reader(data))


def test_a_nested_length_cannot_reach_beyond_what_holds_it() -> None:
    inner = Reader(b"\x00" * 10).restrict_to(4)
    with pytest.raises(MalformedMessage):
        inner.take(5)


def mutated(source: random.Random, data: bytes) -> bytes:
    """A datagram with a few octets changed, cut, or grown; the header's length mended half of the time."""
    changed = bytearray(data)
    for _ in range(source.randint(1, 6)):
        if changed:
            changed[source.randrange(len(changed))] = source.randrange(256)
    kind = source.randrange(4)
    if kind == 0:
        del changed[source.randrange(len(changed) + 1) :]
    elif kind == 1:
        changed += source.randbytes(source.randrange(64))
    if source.random() < 0.5 and len(changed) >= 28:
        changed[24:28] = len(changed).to_bytes(4, "big")
    return bytes(changed)


def test_ten_thousand_mutated_datagrams_leave_a_responder_serving_and_its_tables_bounded() -> None:
    limits = Limits(replies=500)
    server = Party(SERVER, keys={MEMBER: b"LabPsk1"}, limits=limits)
    seen: list[Datagram] = []

    def record(datagram: Datagram) -> list[Datagram]:
        seen.append(datagram)
        return [datagram]

    first = Party(MEMBER, keys={SERVER: b"LabPsk1"})
    first.isakmp.initiate(MEMBER, SERVER, 0)
    deliver([first, server], 0, record)
    source = random.Random(7)
    templates = [datagram.data for datagram in seen]
    now = 0.0
    for number in range(10_000):
        now += 0.01
        sender = Endpoint(MEMBER.address, source.choice((848, 4500)))
        server.isakmp.receive(Datagram(mutated(source, source.choice(templates)), sender, SERVER), now)
        if number % 100 == 0:
            server.isakmp.datagrams_to_send()
            while server.isakmp.next_event() is not None:
                pass
    assert server.isakmp.half_open_count <= limits.half_open_per_peer
    assert server.isakmp.kept_replies <= limits.replies
    now = run([server], now, now + 120, lambda datagram: [])
    assert server.isakmp.half_open_count == 0
    again = Party(MEMBER, keys={SERVER: b"LabPsk1"}, seed=2)
    again.isakmp.initiate(MEMBER, SERVER, now)
    deliver([again, server], now)
    assert again.seen.established


def test_mutated_answers_leave_an_initiator_trying() -> None:
    member, server = Party(MEMBER, keys={SERVER: b"LabPsk1"}), Party(SERVER, keys={MEMBER: b"LabPsk1"})
    source = random.Random(3)
    hostile = [False]

    def network(datagram: Datagram) -> list[Datagram]:
        if datagram.destination == MEMBER and hostile[0]:
            return [Datagram(mutated(source, datagram.data), datagram.source, datagram.destination) for _ in range(50)]
        return [datagram]

    hostile[0] = True
    member.isakmp.initiate(MEMBER, SERVER, 0)
    run([member, server], 0, 10, network)
    hostile[0] = False
    run([member, server], 10, 29, network)
    if not member.seen.established:
        member.isakmp.initiate(MEMBER, SERVER, 100)
        run([member, server], 100, 110, network)
    assert member.seen.established
