"""GDOI's codec and parties against octets of every kind, in clear and, worse, authenticated."""

from __future__ import annotations

import contextlib
import random
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from typing import ClassVar

import pytest
from gdoi_parties import KS1, World, group, group_member, key_server, member_address
from hypothesis import given, settings
from hypothesis import strategies as st

from labctl.configuration import AccessListEntry, Action
from labctl.configuration.policy import Network
from labctl.gdoi.decoding import combine, read_policy
from labctl.gdoi.numbers import KdType, SaProtocol
from labctl.gdoi.payloads import (
    PARSERS,
    GdoiSa,
    GroupAssociatedPolicy,
    KeyDownload,
    KeyPacket,
    SaKek,
    SaTek,
    Selector,
    SequenceNumber,
)
from labctl.isakmp.attributes import Attribute
from labctl.isakmp.datagram import Datagram, Endpoint
from labctl.isakmp.errors import PeerError
from labctl.isakmp.header import ExchangeType
from labctl.isakmp.payloads import Payload, pack_chain, parse_chain
from labctl.isakmp.reader import Reader

octets = st.binary(max_size=40)
attributes = st.lists(
    st.one_of(
        st.builds(Attribute.tv, st.integers(1, 40), st.integers(0, 0xFFFF)),
        st.builds(Attribute.tlv, st.integers(1, 40), octets),
    ),
    max_size=6,
).map(tuple)
networks = st.tuples(st.ip_addresses(v=4), st.integers(0, 32)).map(
    lambda pair: IPv4Network((str(pair[0]), pair[1]), strict=False)
)
ipv6_networks = st.tuples(st.ip_addresses(v=6), st.integers(0, 128)).map(
    lambda pair: IPv6Network((str(pair[0]), pair[1]), strict=False)
)
ends = st.one_of(st.tuples(networks, networks), st.tuples(ipv6_networks, ipv6_networks))
selectors = st.builds(Selector.of, st.one_of(networks, ipv6_networks), st.integers(0, 0xFFFF))
spis = st.integers(256, 0xFFFFFFFF).map(lambda number: number.to_bytes(4, "big"))
teks = st.builds(
    SaTek,
    st.sampled_from([int(SaProtocol.ESP), int(SaProtocol.AH), int(SaProtocol.BYPASS)]),
    st.integers(0, 255),
    selectors,
    selectors,
    st.integers(0, 255),
    spis,
    attributes,
)
keks = st.builds(
    SaKek,
    st.just(1),
    st.binary(min_size=4, max_size=4),
    st.integers(0, 0xFFFF),
    st.just(1),
    st.binary(min_size=4, max_size=4),
    st.integers(0, 0xFFFF),
    st.binary(min_size=16, max_size=16),
    attributes,
)
gaps = st.builds(GroupAssociatedPolicy, attributes)
associations = st.builds(
    GdoiSa, st.one_of(st.none(), keks), st.one_of(st.none(), gaps), st.lists(teks, min_size=1, max_size=4).map(tuple)
)
packets = st.builds(KeyPacket, st.just(int(KdType.TEK)), spis, attributes)
downloads = st.builds(KeyDownload, st.lists(packets, max_size=5).map(tuple))
payloads: st.SearchStrategy[Payload] = st.one_of(
    associations, gaps, downloads, st.builds(SequenceNumber, st.integers(0, 0xFFFFFFFF))
)


@given(st.lists(payloads, min_size=1, max_size=5))
def test_a_chain_parses_to_what_was_packed(chain: list[Payload]) -> None:
    parsed = parse_chain(chain[0].TYPE, Reader(pack_chain(chain)), PARSERS)
    assert [item.payload for item in parsed] == chain


@given(st.sampled_from([1, 17, 18, 22]), st.binary(max_size=300))
@settings(max_examples=500)
def test_noise_parses_or_is_the_peers_error(first: int, data: bytes) -> None:
    with contextlib.suppress(PeerError):
        parse_chain(first, Reader(data), PARSERS)


@given(associations, downloads)
@settings(max_examples=300)
def test_any_policy_is_understood_or_refused(sa: GdoiSa, download: KeyDownload) -> None:
    with contextlib.suppress(PeerError):
        combine(read_policy(sa, 0), download, 0)


@given(ends, st.integers(0, 255), st.integers(0, 0xFFFF), st.integers(0, 0xFFFF))
def test_every_entry_survives_its_wire_form(
    networks: tuple[Network, Network], protocol: int, source_port: int, destination_port: int
) -> None:
    source, destination = networks
    entry = AccessListEntry(Action.PERMIT, protocol, source, destination, source_port, destination_port)
    sat = SaTek(
        SaProtocol.ESP,
        protocol,
        Selector.of(source, source_port),
        Selector.of(destination, destination_port),
        12,
        b"\x00\x00\x10\x01",
        (),
    )
    assert SaTek.parse(Reader(sat.pack())).entry() == entry


@pytest.mark.parametrize("mask", ["ff00ff00", "00ffffff", "7fffffff"])
def test_a_mask_with_holes_is_refused(mask: str) -> None:
    with pytest.raises(PeerError, match="holes"):
        Selector(4, bytes(4) + bytes.fromhex(mask)).network  # noqa: B018


@dataclass(frozen=True, slots=True)
class Hostile:
    """A payload of any type with any body, for messages that are authenticated all the same."""

    TYPE: ClassVar[int] = 10
    body: bytes

    def pack(self) -> bytes:
        return self.body


@dataclass(frozen=True, slots=True)
class HostileSa(Hostile):
    TYPE: ClassVar[int] = 1


@dataclass(frozen=True, slots=True)
class HostileKeys(Hostile):
    TYPE: ClassVar[int] = 17


def test_ten_thousand_hostile_messages_of_an_authenticated_member_leave_the_key_server_serving() -> None:
    member, server = group_member(), key_server(group())
    world = World({KS1: server}, [member])
    member.start(0)
    world.settle()
    sa = member.isakmp.associations[0]
    source = random.Random(11)
    for number in range(10_000):
        message_id = source.randrange(1, 1 << 32)
        chain = [
            source.choice((Hostile, HostileSa, HostileKeys))(source.randbytes(source.randrange(80)))
            for _ in range(source.randrange(1, 4))
        ]
        exchange = source.choice((ExchangeType.GROUPKEY_PULL, ExchangeType.INFORMATIONAL, ExchangeType.COOP))
        data = sa.protect(exchange, message_id, chain, message_id.to_bytes(4, "big"))
        sa.forget(message_id)
        server.receive_datagram(Datagram(data, Endpoint(member_address(0)), Endpoint(KS1)), 1 + number / 1000)
        server.datagrams_to_send()
        while server.next_event() is not None:
            pass
    assert server.open_pulls <= 4096
    assert len(server.group("GETVPN_LAB").members) == 1
    other = group_member(1)
    world = World({KS1: server}, [other])
    world.now = 20
    other.start(20)
    world.settle()
    assert other.registered


def test_mutated_datagrams_leave_a_member_registered_and_able_to_register_again() -> None:
    member, server = group_member(), key_server(group())
    source = random.Random(5)

    def network(datagram: Datagram) -> list[Datagram]:
        copies = [datagram]
        for _ in range(200):
            changed = bytearray(datagram.data)
            for _ in range(source.randint(1, 5)):
                changed[source.randrange(len(changed))] = source.randrange(256)
            # Behind the true one: who is faster can break any phase 1, which proves nobody before its end.
            copies.append(Datagram(bytes(changed), datagram.source, datagram.destination))
        return copies

    world = World({KS1: server}, [member], network)
    member.start(0)
    world.run(29)
    assert member.registered
    world.run(3600)
    assert member.registered and member.successes >= 2
