"""GROUPKEY-PUSH-ACK (RFC 8263) in wrong forms; the right ones are among the vectors."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labctl.gdoi import ack
from labctl.gdoi.payloads import SequenceNumber
from labctl.isakmp.errors import InvalidHash, MalformedMessage, PeerError
from labctl.isakmp.header import HEADER_OCTETS, ExchangeType, Header, PayloadType
from labctl.isakmp.payloads import HashPayload, Identification, Payload, pack_chain

SPI = bytes(range(1, 17))
KEY = bytes(range(32))
TOLD = ack.Acknowledgement(SPI, 5, Identification(1, bytes((10, 0, 0, 1))))


def message(chain: list[Payload], *, exchange: int = ExchangeType.GROUPKEY_PUSH_ACK, flags: int = 0) -> bytes:
    body = pack_chain(chain)
    header = Header(SPI[:8], SPI[8:], chain[0].TYPE, exchange, flags, 0, HEADER_OCTETS + len(body))
    return header.pack() + body


@pytest.mark.parametrize("kind", list(ack.AckType))
def test_every_kind_is_read_back_under_its_key_only(kind: ack.AckType) -> None:
    data = ack.build(kind, KEY, TOLD)
    assert ack.open_ack(data, kind, KEY) == TOLD
    with pytest.raises(InvalidHash):
        ack.open_ack(data, kind, bytes(32))
    other = ack.AckType.KEK_SHA512 if kind.key_bits == 512 else ack.AckType.KEK_SHA256
    with pytest.raises(InvalidHash):
        ack.open_ack(data, other, KEY)


def test_no_octet_can_be_changed() -> None:
    data = ack.build(ack.AckType.KEK_SHA256, KEY, TOLD)
    # Version's minor number and reserved octets mean nothing and are covered by nothing.
    free = {17, HEADER_OCTETS + 1}
    for position in set(range(len(data))) - free:
        changed = bytearray(data)
        changed[position] ^= 0x20
        with pytest.raises(PeerError):
            ack.open_ack(bytes(changed), ack.AckType.KEK_SHA256, KEY)


@pytest.mark.parametrize(
    "chain",
    [
        [HashPayload(bytes(32))],
        [HashPayload(bytes(32)), SequenceNumber(5)],
        [HashPayload(bytes(32)), TOLD.identity, SequenceNumber(5)],
        [SequenceNumber(5), HashPayload(bytes(32)), TOLD.identity],
        [HashPayload(bytes(32)), SequenceNumber(5), TOLD.identity, TOLD.identity],
    ],
)
def test_other_payloads_are_refused(chain: list[Payload]) -> None:
    with pytest.raises(MalformedMessage, match="HASH, SEQ and ID"):
        ack.open_ack(message(chain), ack.AckType.KEK_SHA256, KEY)


@pytest.mark.parametrize(("exchange", "flags"), [(33, 0), (35, 1), (5, 0)])
def test_another_header_is_no_acknowledgement(exchange: int, flags: int) -> None:
    chain: list[Payload] = [HashPayload(bytes(32)), SequenceNumber(5), TOLD.identity]
    with pytest.raises(PeerError, match="not an acknowledgement"):
        ack.open_ack(message(chain, exchange=exchange, flags=flags), ack.AckType.KEK_SHA256, KEY)


@given(st.binary(max_size=120))
def test_noise_is_the_peers_error(body: bytes) -> None:
    header = Header(SPI[:8], SPI[8:], PayloadType.HASH, 35, 0, 0, HEADER_OCTETS + len(body))
    with contextlib.suppress(PeerError):
        ack.open_ack(header.pack() + body, ack.AckType.KEK_SHA256, KEY)
        pytest.fail("nobody knows the key")
