"""Phase 1 of every capture: parsed, every key derived, both identities decrypted and proved; published vectors too."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
import vectors
from vectors import octets

from labctl import crypto
from labctl.configuration import DhGroup, Encryption, Hash
from labctl.crypto.diffie_hellman import prime
from labctl.isakmp import keys as schedule
from labctl.isakmp.header import HEADER_OCTETS, Doi, Header
from labctl.isakmp.keys import Phase1Keys
from labctl.isakmp.main_mode import only
from labctl.isakmp.payloads import (
    HashPayload,
    Identification,
    KeyExchange,
    Nonce,
    Notification,
    SecurityAssociation,
    pack_chain,
    parse_chain,
)
from labctl.isakmp.proposals import read_transform
from labctl.isakmp.reader import Reader

HASHES = {"MD5": Hash.MD5, "SHA1": Hash.SHA1, "SHA256": Hash.SHA256}
CIPHERS = {"3DES-CBC": crypto.BlockCipher.TRIPLE_DES, "AES-CBC": crypto.BlockCipher.AES}


@pytest.fixture(params=vectors.NAMES)
def capture(request: pytest.FixtureRequest) -> dict[str, Any]:
    return vectors.load(request.param)


def derived(capture: dict[str, Any]) -> Phase1Keys:
    """Every key from the PSK, the nonces and one private value."""
    phase1 = capture["phase1"]
    name = HASHES[phase1["hash"]]
    group = DhGroup(phase1["dh_group"])
    private = crypto.load_private_value(group, int(phase1["dh_private_i"], 16))
    secret = private.exchange(octets(phase1["g_xr"]))
    skeyid = schedule.skeyid_from_psk(name, octets(phase1["psk"]), octets(phase1["ni_b"]), octets(phase1["nr_b"]))
    cookies = octets(phase1["icookie"]) + octets(phase1["rcookie"])
    size = len(octets(phase1["encryption_key"]))
    return schedule.derive(name, CIPHERS[phase1["cipher"]], size, skeyid, secret, cookies)


def test_the_clear_messages_parse_and_pack_to_the_same_octets(capture: dict[str, Any]) -> None:
    for name in ("main1", "main2", "main3", "main4"):
        data = vectors.message(capture, name)
        header = Header.parse(data)
        assert header.pack() == data[:HEADER_OCTETS]
        chain = parse_chain(header.next_payload, Reader(data, HEADER_OCTETS))
        assert pack_chain([item.payload for item in chain]) == data[HEADER_OCTETS:]


def test_the_offer_is_understood(capture: dict[str, Any]) -> None:
    data = vectors.message(capture, "main1")
    offered = parse_chain(Header.parse(data).next_payload, Reader(data, HEADER_OCTETS))[0]
    assert isinstance(offered.payload, SecurityAssociation)
    assert offered.payload.doi == Doi.GDOI
    assert offered.body == octets(capture["phase1"]["sai_b"])
    policy = read_transform(offered.payload.proposals[0].transforms[0])
    assert policy is not None
    assert policy.group.value == capture["phase1"]["dh_group"]
    assert policy.hash is HASHES[capture["phase1"]["hash"]]
    expected = Encryption.AES_CBC if capture["phase1"]["cipher"] == "AES-CBC" else Encryption.TRIPLE_DES
    assert (policy.encryption, policy.lifetime) == (expected, capture["phase1"]["life_seconds"])


def test_public_values_and_the_shared_secret_follow_from_the_private_ones(capture: dict[str, Any]) -> None:
    phase1 = capture["phase1"]
    group = DhGroup(phase1["dh_group"])
    for ours, theirs in (("i", "r"), ("r", "i")):
        private = crypto.load_private_value(group, int(phase1[f"dh_private_{ours}"], 16))
        assert private.public == octets(phase1[f"g_x{ours}"])
        assert private.exchange(octets(phase1[f"g_x{theirs}"])) == octets(phase1["g_xy"])


def test_every_key_follows_from_the_pre_shared_key(capture: dict[str, Any]) -> None:
    phase1 = capture["phase1"]
    keys = derived(capture)
    assert keys.skeyid == octets(phase1["skeyid"])
    assert keys.skeyid_d == octets(phase1["skeyid_d"])
    assert keys.skeyid_a == octets(phase1["skeyid_a"])
    assert keys.skeyid_e == octets(phase1["skeyid_e"])
    assert keys.cipher_key == octets(phase1["encryption_key"])


def test_both_identities_decrypt_and_are_proved(capture: dict[str, Any]) -> None:
    phase1 = capture["phase1"]
    keys = derived(capture)
    publics = (octets(phase1["g_xi"]), octets(phase1["g_xr"]))
    iv = schedule.phase1_iv(keys, *publics)
    cookies = octets(phase1["icookie"]) + octets(phase1["rcookie"])
    assert iv == octets(phase1["iv_main5"])
    for name, compute in (("main5", schedule.hash_of_initiator), ("main6", schedule.hash_of_responder)):
        data = vectors.message(capture, name)
        plaintext = schedule.unseal(keys, iv, data[HEADER_OCTETS:])
        chain = parse_chain(Header.parse(data).next_payload, Reader(plaintext), padded=True)
        body = next(item.body for item in chain if isinstance(item.payload, Identification))
        assert only(chain, HashPayload).data == compute(keys, *publics, cookies, octets(phase1["sai_b"]), body)
        assert only(chain, Notification).name == "INITIAL-CONTACT"
        iv = data[-keys.block :]
    assert iv == octets(phase1["last_phase1_block"])
    message_id = int(capture["pull"]["message_id"], 16)
    assert schedule.exchange_iv(keys, iv, message_id) == octets(capture["pull"]["iv_pull1"])


def test_the_key_exchange_messages_carry_what_the_keys_were_made_of(capture: dict[str, Any]) -> None:
    for name, public, nonce in (("main3", "g_xi", "ni_b"), ("main4", "g_xr", "nr_b")):
        data = vectors.message(capture, name)
        chain = parse_chain(Header.parse(data).next_payload, Reader(data, HEADER_OCTETS))
        assert only(chain, KeyExchange).data == octets(capture["phase1"][public])
        assert only(chain, Nonce).data == octets(capture["phase1"][nonce])


@pytest.mark.parametrize(
    ("group", "digest"),
    [
        (DhGroup.MODP768, "b52ba6a3026520a6c49d37e4587601801bee500123b3259b6bf03e7cecc3e63d"),
        (DhGroup.MODP1024, "3f35a3f5f6c4376a744acad409bb22f8d897f949d2311d885adaa890981b67a0"),
        (DhGroup.MODP1536, "64fcc83ec403930bf18393dbc883ccaa1fbb08ac876f77f7aa99748ca945019b"),
        (DhGroup.MODP2048, "d66436f79bbd6b2e38c0ffbd079be904d2641415e2e67140e09448be9a60890e"),
        (DhGroup.MODP3072, "48cf8b092fbce4359d9871abf74f98e25b6163379eaa15cd9087e800c6d1c55c"),
        (DhGroup.MODP4096, "4ee95187682bcb230ad26a95205f6920e84708f6251b3894329b09ec23919e33"),
    ],
)
def test_the_primes_are_those_of_the_rfcs(group: DhGroup, digest: str) -> None:
    value = prime(group)
    assert hashlib.sha256(value.to_bytes((value.bit_length() + 7) // 8, "big")).hexdigest() == digest


def test_group_19_of_rfc_5903() -> None:
    private_i = 0xC88F01F510D9AC3F70A292DAA2316DE544E9AAB8AFE84049C62A9C57862D1433
    private_r = 0xC6EF9C5D78AE012A011164ACB397CE2088685D8F06BF9BE0B283AB46476BEE53
    public_i = octets(
        "dad0b65394221cf9b051e1feca5787d098dfe637fc90b9ef945d0c3772581180"
        "5271a0461cdb8252d61f1c456fa3e59ab1f45b33accf5f58389e0577b8990bb3"
    )
    public_r = octets(
        "d12dfb5289c8d4f81208b70270398c342296970a0bccb74c736fc7554494bf63"
        "56fbf3ca366cc23e8157854c13c58d6aac23f046ada30f8353e74f33039872ab"
    )
    secret = octets("d6840f6b42f6edafd13116e0e12565202fef8e9ece7dce03812464d04b9442de")
    initiator = crypto.load_private_value(DhGroup.ECP256, private_i)
    responder = crypto.load_private_value(DhGroup.ECP256, private_r)
    assert (initiator.public, responder.public) == (public_i, public_r)
    assert initiator.exchange(public_r) == responder.exchange(public_i) == secret


@pytest.mark.parametrize(
    ("name", "digest"),
    [
        (Hash.SHA1, "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79"),
        (Hash.SHA256, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"),
        (
            Hash.SHA512,
            "164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea250554"
            "9758bf75c05a994a6d034f65f8f0e6fdcaeab1a34d4a6b4b636e070a38bce737",
        ),
    ],
)
def test_hmac_of_rfc_2202_and_4231(name: Hash, digest: str) -> None:
    assert crypto.hmac(name, b"Jefe", b"what do ya ", b"want for nothing?").hex() == digest


def test_a_short_skeyid_is_expanded() -> None:
    skeyid_e = octets("3f695eede20b751ac77c1ac44932a164d30d56aa")
    long = schedule.expand_cipher_key(Hash.SHA1, skeyid_e, 32)
    assert long.hex() == "7896ae5deb4e57d66a3043e73ea03cd272f88d82282e23be562fd6d15bd6dfda"
    assert schedule.expand_cipher_key(Hash.SHA1, skeyid_e, 24) == long[:24]
    assert schedule.expand_cipher_key(Hash.SHA1, skeyid_e, 16) == skeyid_e[:16]


@pytest.mark.parametrize("group", DhGroup)
def test_a_public_value_that_is_not_of_the_group_is_refused(group: DhGroup) -> None:
    private = crypto.generate_private_value(group)
    size = crypto.public_length(group)
    for hostile in (b"", bytes(size), bytes(size - 1) + b"\x01", b"\xff" * size, bytes(size + 1)):
        with pytest.raises(crypto.DiffieHellmanError):
            private.exchange(hostile)
