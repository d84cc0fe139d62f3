"""GROUPKEY-PUSH as we build it, and what becomes of one that is not as it should be (RFC 6407 4, reference 4.2-4.3)."""

from __future__ import annotations

import contextlib
import random
from dataclasses import replace

import pytest
from gdoi_parties import PERMIT, signing_key
from hypothesis import given, settings
from hypothesis import strategies as st

from labctl import crypto
from labctl.configuration import Cipher, Encryption, Hash, Integrity, TransformSet
from labctl.gdoi import encoding, push
from labctl.gdoi.payloads import GdoiSa, KeyDownload, SequenceNumber
from labctl.gdoi.policy import KeyEncryptionKey, TrafficEncryptionKey
from labctl.isakmp.errors import MalformedMessage, PeerError
from labctl.isakmp.header import HEADER_OCTETS, Flag, Header, PayloadType
from labctl.isakmp.payloads import Delete, Payload, Signature, pack_chain

TEK = TrafficEncryptionKey(
    0x1A2B3C4D, TransformSet(Cipher.AES_CBC, 128, Integrity.SHA1), bytes(range(16)), bytes(range(20)), 3600, 3600
)
SA = GdoiSa(None, None, (encoding.sa_tek(PERMIT, TEK, 0, None),))
KEYS = KeyDownload((encoding.tek_packet(TEK),))
DELETE = Delete(2, 1, 4, (bytes.fromhex("01020304"),))


def kek(encryption: Encryption = Encryption.AES_CBC, name: Hash = Hash.SHA256, sequence: int = 0) -> KeyEncryptionKey:
    source = random.Random(7)
    block, octets = (16, 32) if encryption is Encryption.AES_CBC else (8, 24)
    return KeyEncryptionKey(
        source.randbytes(16),
        encryption,
        source.randbytes(block),
        source.randbytes(octets),
        name,
        signing_key().public.der,
        86400,
        86400,
        sequence,
    )


def sealed(plaintext: bytes, key: KeyEncryptionKey, *, flags: int = Flag.ENCRYPTION, message_id: int = 0) -> bytes:
    """Any plaintext, encrypted as a rekey."""
    cipher = push.CIPHERS[key.encryption]
    plaintext += bytes(-len(plaintext) % crypto.block_size(cipher))
    ciphertext = crypto.cbc_encrypt(cipher, key.key, key.iv, plaintext)
    length = HEADER_OCTETS + len(ciphertext)
    return Header(key.spi[:8], key.spi[8:], PayloadType.SEQ, 33, flags, message_id, length).pack() + ciphertext


def signed_over_padded_length(key: KeyEncryptionKey) -> bytes:
    """As a peer signs that reads the RFC the other way: the length as sent."""
    body = pack_chain(push.Push(3, sa=SA, keys=KEYS).payloads(), PayloadType.SIG)
    length = HEADER_OCTETS + len(body) + 260
    length += -(length - HEADER_OCTETS) % 16
    header = Header(key.spi[:8], key.spi[8:], PayloadType.SEQ, 33, Flag.ENCRYPTION, 0, length)
    digest = crypto.digest(key.signature_hash, push.SIGNED_PREFIX, header.pack(), body)
    return sealed(body + pack_chain([Signature(signing_key().sign(key.signature_hash, digest))]), key)


@pytest.mark.parametrize("encryption", list(Encryption))
@pytest.mark.parametrize("name", [Hash.SHA1, Hash.SHA256, Hash.SHA384, Hash.SHA512])
@pytest.mark.parametrize(
    "told",
    [push.Push(1, sa=SA, keys=KEYS), push.Push(9, (DELETE,)), push.Push(2, (DELETE, DELETE), SA, KEYS)],
    ids=["keys", "delete", "both"],
)
def test_a_rekey_says_what_was_put_in(encryption: Encryption, name: Hash, told: push.Push) -> None:
    key = kek(encryption, name)
    data = push.build(told, key, signing_key())
    header = Header.parse(data)
    assert (header.cookies, header.flags, header.message_id) == (key.spi, Flag.ENCRYPTION, 0)
    assert push.open_push(data, key) == told


def test_the_same_rekey_again_is_the_same_datagram() -> None:
    told = push.Push(1, sa=SA, keys=KEYS)
    assert push.build(told, kek(), signing_key()) == push.build(told, kek(), signing_key())


def test_a_signature_over_the_length_as_sent_is_accepted_too() -> None:
    assert push.open_push(signed_over_padded_length(kek()), kek()).sequence == 3


@pytest.mark.parametrize("last", [1, 2, 0xFFFFFFFF])
def test_a_sequence_number_must_rise(last: int) -> None:
    data = push.build(push.Push(1, sa=SA, keys=KEYS), kek(), signing_key())
    with pytest.raises(push.ReplayedRekey):
        push.open_push(data, kek(sequence=last))


def test_a_replay_is_found_before_its_signature_is_looked_at() -> None:
    """The cheap check comes first (RFC 6407 7.3.5)."""
    data = push.build(push.Push(1, sa=SA, keys=KEYS), kek(), crypto.generate_rsa_key(2048))
    with pytest.raises(push.ReplayedRekey):
        push.open_push(data, kek(sequence=1))
    with pytest.raises(push.BadSignature):
        push.open_push(data, kek())


def test_a_rekey_under_another_kek_is_not_ours() -> None:
    data = push.build(push.Push(1, sa=SA, keys=KEYS), kek(), signing_key())
    with pytest.raises(PeerError, match="no rekey under this KEK"):
        push.open_push(data, replace(kek(), spi=bytes(16)))


def test_a_public_key_that_is_none_verifies_nothing() -> None:
    data = push.build(push.Push(1, sa=SA, keys=KEYS), kek(), signing_key())
    with pytest.raises(push.BadSignature):
        push.open_push(data, replace(kek(), signature_key=b"\x30\x03\x02\x01\x00"))


@pytest.mark.parametrize(
    ("flags", "message_id"),
    [(0, 0), (Flag.ENCRYPTION | Flag.COMMIT, 0), (Flag.ENCRYPTION, 1)],
    ids=["in clear", "with the commit flag", "with a message ID"],
)
def test_a_header_that_is_not_a_rekeys_is_refused(flags: int, message_id: int) -> None:
    data = sealed(
        pack_chain([SequenceNumber(1), DELETE, Signature(bytes(256))]), kek(), flags=flags, message_id=message_id
    )
    with pytest.raises(PeerError, match="flag E alone"):
        push.open_push(data, kek())


@pytest.mark.parametrize(
    "chain",
    [
        [SequenceNumber(1), Signature(bytes(256))],
        [SequenceNumber(1), SA, Signature(bytes(256))],
        [SequenceNumber(1), KEYS, SA, Signature(bytes(256))],
        [SequenceNumber(1), SA, KEYS, DELETE, Signature(bytes(256))],
        [SequenceNumber(1), SA, DELETE, KEYS, Signature(bytes(256))],
        [SequenceNumber(1), SequenceNumber(1), SA, KEYS, Signature(bytes(256))],
        [SequenceNumber(1), SA, KEYS],
        [SequenceNumber(1)],
    ],
    ids=["nothing", "SA alone", "KD first", "D last", "D amid", "SEQ twice", "no SIG", "SEQ alone"],
)
def test_payloads_out_of_order_are_refused(chain: list[Payload]) -> None:
    with pytest.raises(MalformedMessage):
        push.open_push(sealed(pack_chain(chain), kek()), kek())


def test_padding_is_zero_and_less_than_a_block() -> None:
    body = pack_chain([SequenceNumber(1), DELETE, Signature(bytes(256))])
    missing = -len(body) % 16
    assert missing
    for padding in (bytes(missing - 1) + b"\x01", bytes(missing + 16)):
        with pytest.raises(MalformedMessage, match="padding"):
            push.open_push(sealed(body + padding, kek()), kek())


def test_no_octet_of_a_rekey_can_be_changed() -> None:
    data = push.build(push.Push(1, sa=SA, keys=KEYS), kek(), signing_key())
    for position in range(0, len(data), 7):
        changed = bytearray(data)
        changed[position] ^= 0x10
        with pytest.raises(PeerError):
            push.open_push(bytes(changed), kek())


@given(st.binary(max_size=200))
@settings(max_examples=300)
def test_any_plaintext_is_refused_as_the_peers_error(plaintext: bytes) -> None:
    with contextlib.suppress(PeerError):
        push.open_push(sealed(plaintext + b"\x00", kek()), kek())
        pytest.fail("nothing here is signed")
