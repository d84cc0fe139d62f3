"""Phase 1 of every capture: parsed, every key derived, both identities decrypted and proved."""

from __future__ import annotations

from typing import Any

import pytest
import vectors
from vectors import octets

from labctl import crypto
from labctl.configuration import DhGroup, Encryption, Hash
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


def test_a_short_skeyid_is_expanded() -> None:
    skeyid_e = octets("3f695eede20b751ac77c1ac44932a164d30d56aa")
    long = schedule.expand_cipher_key(Hash.SHA1, skeyid_e, 32)
    assert long.hex() == "7896ae5deb4e57d66a3043e73ea03cd272f88d82282e23be562fd6d15bd6dfda"
    assert schedule.expand_cipher_key(Hash.SHA1, skeyid_e, 24) == long[:24]
    assert schedule.expand_cipher_key(Hash.SHA1, skeyid_e, 16) == skeyid_e[:16]


# Appendix A of the protocol digest.
NONCES = octets("5dd1778ff005be1023813b72d19d8401"), octets("0d9da11d425baef5ed32c7b0353e560d")
SHARED_SECRET = octets(
    "dc7b1ec30662ffc4a5b14e4e74057097662373b091a5dbd8f12ea7b46adf2b9d9ec56870b095c1884702b6165372801b"
    "0c5be1a7f9a25ebfb9ee03d9523a41ad88b3a8fc40fdd9e92e8fb2aa1e0c0fad54b105e22db72e1e1c62d2d66beef8f9"
    "185eb117189a1565b05f10b37ccbd226399090ee7c3381f04d6f786ca0ddbe38"
)


@pytest.mark.parametrize(
    ("hash_name", "skeyid"),
    [
        (Hash.SHA1, "a4aae75cecb17d433137988a564c5ad6bfd18302"),
        (Hash.SHA256, "907a2ac201c64d16f41b146b554fefbfc63886ae3de9b57bd0f6caa6c0ce24bf"),
    ],
)
def test_signatures_have_a_skeyid_of_their_own(hash_name: Hash, skeyid: str) -> None:
    """Appendix B of the protocol digest, the inputs of appendix A."""
    assert schedule.skeyid_from_signatures(hash_name, SHARED_SECRET, *NONCES).hex() == skeyid


def test_the_key_schedule_with_hmac_sha_256() -> None:
    """Appendix B of the protocol digest: the inputs of its trace (appendix A), HMAC-SHA-256 in place of HMAC-SHA-1."""
    skeyid = schedule.skeyid_from_psk(Hash.SHA256, b"mekmitasdigoat", *NONCES)
    cookies = octets("d53d47ecd8050c862dcdddd093ac0607")
    keys = schedule.derive(Hash.SHA256, crypto.BlockCipher.AES, 32, skeyid, SHARED_SECRET, cookies)
    assert keys.skeyid.hex() == "cab92167edc2aeea4085b86313f7bd1c656dcf80f652716fab77f9d1df615c06"
    assert keys.skeyid_d.hex() == "eb5b9d26dea80aea00e9a98d5fe525d403d0313f81b06dbc4a16b9f423139837"
    assert keys.skeyid_a.hex() == "bc2c9ebeaa1553b6263e1f231fea5f20a28c3ba2a58bbcd3ea7bc9629315f0ca"
    assert keys.skeyid_e.hex() == "dfa453b014eb6e9a75e6a948d7df00c5be771bb72ecee2e3988fdc8a2a207441"
    assert keys.cipher_key == keys.skeyid_e
