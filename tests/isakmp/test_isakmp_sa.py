"""An established SA: messages under it, their HASH, and the IV chain that only genuine messages move."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from isakmp_parties import MEMBER, SERVER, Party, deliver

from labctl.isakmp import keys as schedule
from labctl.isakmp.errors import InvalidHash, MalformedMessage, PeerError
from labctl.isakmp.header import HEADER_OCTETS, ExchangeType, Flag, Header
from labctl.isakmp.payloads import Identification, Nonce, Payload, VendorId
from labctl.isakmp.sa import MAX_EXCHANGES, Opened, Phase1Sa

PULL = ExchangeType.GROUPKEY_PULL
NONCE = Nonce(bytes(range(16)))
IDENTITY = Identification(11, b"\x00\x00\x04\xd2")


def established() -> tuple[Phase1Sa, Phase1Sa]:
    member, server = Party(MEMBER, keys={SERVER: b"k"}), Party(SERVER, keys={MEMBER: b"k"})
    member.isakmp.initiate(MEMBER, SERVER, 0)
    deliver([member, server], 0)
    return member.seen.established[0], server.seen.established[0]


@pytest.fixture
def sas() -> tuple[Phase1Sa, Phase1Sa]:
    return established()


def opened(sa: Phase1Sa, data: bytes) -> Opened:
    return sa.open(Header.parse(data), data)


def take(sa: Phase1Sa, data: bytes, *prefix: bytes) -> list[Payload]:
    """Open, verify, accept."""
    message = opened(sa, data)
    sa.verify(message, *prefix)
    return [item.payload for item in message.payloads]


def test_a_message_opens_to_what_was_protected(sas: tuple[Phase1Sa, Phase1Sa]) -> None:
    ours, theirs = sas
    data = ours.protect(PULL, 77, (NONCE, IDENTITY), b"prefix")
    assert take(theirs, data, b"prefix") == [NONCE, IDENTITY]


def test_a_message_of_nothing_but_its_hash_opens(sas: tuple[Phase1Sa, Phase1Sa]) -> None:
    """Message 3 of GROUPKEY-PULL is one (RFC 6407 3.2)."""
    ours, theirs = sas
    assert take(theirs, ours.protect(PULL, 77, (), b"prefix"), b"prefix") == []


def test_the_hash_covers_the_octets_behind_it_without_padding(sas: tuple[Phase1Sa, Phase1Sa]) -> None:
    ours, theirs = sas
    message = opened(theirs, ours.protect(PULL, 77, (VendorId(b"x"),)))
    assert message.covered == bytes.fromhex("00000005") + b"x"
    assert message.hash == ours.prf(message.covered)


def test_an_exchange_is_one_chain_of_ivs_in_both_directions(sas: tuple[Phase1Sa, Phase1Sa]) -> None:
    ours, theirs = sas
    first = ours.protect(PULL, 77, (NONCE,))
    assert take(theirs, first) == [NONCE]
    second = theirs.protect(PULL, 77, (NONCE,))
    assert second[HEADER_OCTETS:] != first[HEADER_OCTETS:], "the second message goes on from the first one's end"
    iv = first[-ours.keys.block :]
    assert schedule.unseal(ours.keys, iv, second[HEADER_OCTETS:])[4:36] == ours.prf(opened(ours, second).covered)
    assert take(ours, second) == [NONCE]
    assert take(theirs, ours.protect(PULL, 77, (IDENTITY,))) == [IDENTITY]


def test_exchanges_do_not_disturb_each_other(sas: tuple[Phase1Sa, Phase1Sa]) -> None:
    ours, theirs = sas
    one, other = ours.protect(PULL, 1, (NONCE,)), ours.protect(PULL, 2, (IDENTITY,))
    assert take(theirs, other) == [IDENTITY]
    assert take(theirs, one) == [NONCE]


def test_the_first_iv_is_the_hash_of_the_last_phase_1_block_and_the_message_id(sas: tuple[Phase1Sa, Phase1Sa]) -> None:
    ours, _ = sas
    data = ours.protect(PULL, 0x4B68EEA2, (NONCE,))
    iv = schedule.exchange_iv(ours.keys, ours.last_block, 0x4B68EEA2)
    assert schedule.unseal(ours.keys, iv, data[HEADER_OCTETS:])[:4] == bytes.fromhex("0a000024")


def test_a_wrong_hash_is_refused_and_moves_no_iv(sas: tuple[Phase1Sa, Phase1Sa]) -> None:
    ours, theirs = sas
    genuine = ours.protect(PULL, 77, (NONCE,), b"prefix")
    with pytest.raises(InvalidHash):
        take(theirs, genuine, b"another prefix")
    assert theirs.ivs == {}
    assert take(theirs, genuine, b"prefix") == [NONCE]


def test_opening_alone_moves_no_iv(sas: tuple[Phase1Sa, Phase1Sa]) -> None:
    ours, theirs = sas
    genuine = ours.protect(PULL, 77, (NONCE,))
    for _ in range(3):
        opened(theirs, genuine)
    assert theirs.ivs == {}


def test_a_message_in_clear_is_refused(sas: tuple[Phase1Sa, Phase1Sa]) -> None:
    ours, theirs = sas
    data = ours.protect(PULL, 77, (NONCE,))
    with pytest.raises(MalformedMessage, match="in clear"):
        theirs.open(replace(Header.parse(data), flags=0), data)


def test_a_message_that_does_not_begin_with_its_hash_is_refused(sas: tuple[Phase1Sa, Phase1Sa]) -> None:
    ours, theirs = sas
    data = ours.protect(PULL, 77, (NONCE,))
    with pytest.raises(MalformedMessage, match="not HASH"):
        theirs.open(replace(Header.parse(data), next_payload=Nonce.TYPE), data)


@pytest.mark.parametrize("octets", [0, 1, 15, 17])
def test_a_message_that_is_not_whole_blocks_is_refused(sas: tuple[Phase1Sa, Phase1Sa], octets: int) -> None:
    _, theirs = sas
    header = Header(theirs.cookies[:8], theirs.cookies[8:], 8, PULL, Flag.ENCRYPTION, 77, HEADER_OCTETS + octets)
    with pytest.raises(MalformedMessage, match="whole blocks"):
        theirs.open(header, header.pack() + bytes(octets))


def test_no_more_than_sixteen_exchanges_are_remembered(sas: tuple[Phase1Sa, Phase1Sa]) -> None:
    ours, theirs = sas
    for number in range(1, 3 * MAX_EXCHANGES):
        take(theirs, ours.protect(PULL, number, (NONCE,)))
    assert len(ours.ivs) == len(theirs.ivs) == MAX_EXCHANGES
    ours.forget(3 * MAX_EXCHANGES - 1)
    assert len(ours.ivs) == MAX_EXCHANGES - 1


OURS, THEIRS = established()


@given(st.data())
def test_a_mutated_message_never_passes_and_raises_nothing_but_the_peers_error(data: st.DataObject) -> None:
    """GROUPKEY-PULL's message 1: every octet of it counts, or is padding that nobody reads."""
    OURS.forget(9)
    genuine = OURS.protect(PULL, 9, (NONCE, IDENTITY))
    changed = bytearray(genuine)
    place = data.draw(st.integers(HEADER_OCTETS, len(genuine) - 1))
    changed[place] ^= data.draw(st.integers(1, 255))
    try:
        message = opened(THEIRS, bytes(changed))
    except PeerError:
        return
    if message.covered == opened(THEIRS, genuine).covered and message.hash == opened(THEIRS, genuine).hash:
        return
    with pytest.raises(InvalidHash):
        THEIRS.verify(message)
    assert THEIRS.ivs == {}
