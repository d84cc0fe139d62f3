"""Exchanges under phase 1 become readable, also where phase 1 is older than the capture, or messages are missing."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labctl.configuration import Hash
from labctl.crypto import BlockCipher, block_size
from labctl.decode import ExchangeKey, KeyLineError, read_exchange_keys
from labctl.decode.isakmp import MAX_EXCHANGES, Exchanges
from labctl.gdoi.events import Phase1KeyLog
from labctl.isakmp.datagram import Endpoint
from labctl.isakmp.header import ExchangeType, Flag
from labctl.isakmp.keys import Phase1Keys
from labctl.isakmp.payloads import Identification, Nonce
from labctl.isakmp.sa import Phase1Sa
from labctl.node.keylog import exchange_line

COOKIES = bytes(range(16))
HERE, THERE = Endpoint(IPv4Address("10.0.0.1")), Endpoint(IPv4Address("10.0.0.2"))
CIPHERS = [(BlockCipher.AES, 32), (BlockCipher.AES, 16), (BlockCipher.TRIPLE_DES, 24)]
CLEAR = slice(20, 24)


def association(cipher: BlockCipher = BlockCipher.AES, octets: int = 32, name: Hash = Hash.SHA256) -> Phase1Sa:
    random = Random(5).randbytes
    keys = Phase1Keys(name, cipher, random(32), random(32), random(32), random(32), random(octets))
    last = random(block_size(cipher))
    identity = Identification.ipv4(THERE.address)
    return Phase1Sa(True, COOKIES, HERE, THERE, identity, keys, last, 2, 0.0, 86400.0)


def keys_of(sa: Phase1Sa) -> dict[bytes, ExchangeKey]:
    """As the key log brings them."""
    return read_exchange_keys([exchange_line(Phase1KeyLog.of(sa))])


def messages(sa: Phase1Sa, count: int = 4, message_id: int = 0xABCD) -> list[bytes]:
    """One exchange of HASH and a nonce each, of sizes of their own."""
    kind = ExchangeType.GROUPKEY_PULL
    return [sa.protect(kind, message_id, (Nonce(bytes((number,)) * (20 + number)),)) for number in range(count)]


def nonces(read: Sequence[bytes]) -> list[int | None]:
    """The number of each message that can be read, by its nonce behind the HASH."""
    found: list[int | None] = []
    for data in read:
        assert int.from_bytes(data[24:28], "big") == len(data)
        found.append(None if data[19] & Flag.ENCRYPTION else data[-1])
    return found


@pytest.mark.parametrize(("cipher", "octets"), CIPHERS)
@pytest.mark.parametrize("name", [Hash.SHA1, Hash.SHA256, Hash.SHA512])
def test_every_message_is_read_without_its_padding(cipher: BlockCipher, octets: int, name: Hash) -> None:
    sa = association(cipher, octets, name)
    sealed = messages(sa) + messages(sa, 2, 0x1234)
    exchanges = Exchanges(keys_of(sa))
    read = [exchanges.readable(data) for data in sealed]
    assert nonces(read) == [0, 1, 2, 3, 0, 1]
    assert all(
        data[:19] == whole[:19] and data[CLEAR] == whole[CLEAR] for data, whole in zip(read, sealed, strict=True)
    )


def test_what_is_missing_or_nobodys_costs_no_more_than_the_message_after_it() -> None:
    sa = association()
    sealed = messages(sa)
    forged = sealed[1][:-32] + bytes(32)
    exchanges = Exchanges(keys_of(sa))
    assert nonces([exchanges.readable(data) for data in (sealed[0], forged, *sealed[1:])]) == [0, None, 1, 2, 3]
    begun_late = Exchanges(keys_of(sa))
    assert nonces([begun_late.readable(data) for data in sealed[1:]]) == [None, 2, 3]
    # A key that comes a message late.
    keys: dict[bytes, ExchangeKey] = {}
    live = Exchanges(keys)
    first = live.readable(sealed[0])
    keys.update(keys_of(sa))
    assert nonces([first, *map(live.readable, sealed[1:])]) == [None, 1, 2, 3]


def test_others_are_left_as_they_are_and_memory_is_bounded() -> None:
    sa = association()
    sealed = messages(sa)[0]
    exchanges = Exchanges({})
    clear = sealed[:19] + b"\0" + sealed[20:]
    main_mode = sealed[:18] + bytes((ExchangeType.MAIN_MODE,)) + sealed[19:]
    for data in (sealed, clear, main_mode, sealed[:40], b""):
        assert exchanges.readable(data) is data
    for number in range(MAX_EXCHANGES + 10):
        exchanges.readable(sealed[:20] + number.to_bytes(4, "big") + sealed[24:])
    assert len(exchanges._blocks) == MAX_EXCHANGES


@given(st.binary(max_size=300))
def test_no_message_confuses_it(noise: bytes) -> None:
    sa = association()
    exchanges = Exchanges(keys_of(sa))
    body = noise + bytes(-len(noise) % 16)
    header = COOKIES + bytes((8, 0x10, 32, 1)) + bytes(4) + (28 + len(body)).to_bytes(4, "big")
    exchanges.readable(header + body)
    exchanges.readable(COOKIES + noise)
    assert nonces([exchanges.readable(messages(association())[0])]) == [0]


def test_keys_that_are_none_are_told_by_their_line() -> None:
    line = exchange_line(Phase1KeyLog.of(association()))
    assert set(read_exchange_keys(["", line])) == {COOKIES}
    for broken in ("ab", f"{line},", line[2:], line.replace("sha256", "sha3"), line[:-2]):
        with pytest.raises(KeyLineError, match="line 2"):
            read_exchange_keys([line, broken])
