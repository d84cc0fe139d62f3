"""The full trace of the protocol digest's appendix A: one registration and one rekey, every value recomputed.

The private Diffie-Hellman values are not known, so it begins with the shared secret.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from gdoi_deviations import parsers

from labctl import crypto
from labctl.configuration import Cipher, Encryption, Hash, Integrity, TransformSet
from labctl.gdoi import push
from labctl.gdoi.decoding import PolicyRefused, combine, read_policy
from labctl.gdoi.numbers import SaAttribute
from labctl.gdoi.payloads import GdoiSa, KeyDownload, SequenceNumber
from labctl.gdoi.policy import GroupKeys, KeyEncryptionKey
from labctl.isakmp import keys as schedule
from labctl.isakmp.datagram import Endpoint
from labctl.isakmp.header import HEADER_OCTETS, Header
from labctl.isakmp.keys import Phase1Keys
from labctl.isakmp.main_mode import only
from labctl.isakmp.payloads import HashPayload, Identification, KeyExchange, Nonce, SecurityAssociation, parse_chain
from labctl.isakmp.reader import Reader
from labctl.isakmp.sa import Opened, Phase1Sa

TRACE = json.loads((Path(__file__).parent / "reference_trace.json").read_text())
SECRETS = {name: bytes.fromhex(value) for name, value in TRACE["secrets"].items()}
MESSAGES = {name: bytes.fromhex(value) for name, value in TRACE["messages"].items()}

PRE_SHARED_KEY = b"mekmitasdigoat"
RETAINED, NEW = 0x900FD74C, 0x3A75429C


def clear(name: str, kind: type) -> bytes:
    """The body of a payload of a message in clear."""
    data = MESSAGES[name]
    chain = parse_chain(Header.parse(data).next_payload, Reader(data, HEADER_OCTETS))
    return next(item.body for item in chain if isinstance(item.payload, kind))


def cookies() -> bytes:
    return Header.parse(MESSAGES["mm2"]).cookies


@pytest.fixture
def phase1() -> Phase1Keys:
    skeyid = schedule.skeyid_from_psk(Hash.SHA1, PRE_SHARED_KEY, clear("mm3", Nonce), clear("mm4", Nonce))
    return schedule.derive(Hash.SHA1, crypto.BlockCipher.AES, 16, skeyid, SECRETS["g_xy"], cookies())


@pytest.fixture
def pull(phase1: Phase1Keys) -> list[Opened]:
    """The four messages, decrypted in one IV chain, every hash checked."""
    identity = Identification(1, bytes((127, 0, 0, 2)))
    nobody = Endpoint.__new__(Endpoint)
    last_block = MESSAGES["mm6"][-phase1.block :]
    sa = Phase1Sa(True, cookies(), nobody, nobody, identity, phase1, last_block, 2, 0.0, 600.0)
    mid = Header.parse(MESSAGES["pull1"]).message_id.to_bytes(4, "big")
    assert schedule.exchange_iv(phase1, last_block, int.from_bytes(mid, "big")) == SECRETS["iv_pull"]
    prefix, opened = mid, []
    for number in range(1, 5):
        data = MESSAGES[f"pull{number}"]
        message = sa.open(Header.parse(data), data, parsers())
        assert message.hash == SECRETS[f"hash_{number}"]
        sa.verify(message, prefix)
        if number <= 2:
            prefix += only(message.payloads, Nonce).data
        opened.append(message)
    return opened


def symmetric(sa: GdoiSa) -> GdoiSa:
    """The same for both directions and addresses: the traced SA is receive-only and keeps the destination only."""
    dropped = (SaAttribute.ADDRESS_PRESERVATION, SaAttribute.SA_DIRECTION)
    teks = tuple(
        replace(tek, attributes=tuple(item for item in tek.attributes if item.kind not in dropped)) for tek in sa.teks
    )
    return replace(sa, teks=teks)


@pytest.fixture
def group(pull: list[Opened]) -> GroupKeys:
    policy = read_policy(symmetric(only(pull[1].payloads, GdoiSa)), 0)
    return combine(policy, only(pull[3].payloads, KeyDownload), only(pull[3].payloads, SequenceNumber).number)


def test_the_key_schedule_follows_from_the_shared_secret(phase1: Phase1Keys) -> None:
    found = (phase1.skeyid, phase1.skeyid_d, phase1.skeyid_a, phase1.skeyid_e)
    assert found == tuple(SECRETS[name] for name in ("skeyid", "skeyid_d", "skeyid_a", "skeyid_e"))


def test_both_identities_decrypt_and_are_proved(phase1: Phase1Keys) -> None:
    publics = clear("mm3", KeyExchange), clear("mm4", KeyExchange)
    offer = clear("mm1", SecurityAssociation)
    iv = schedule.phase1_iv(phase1, *publics)
    assert iv == SECRETS["iv5"]
    proofs = {"mm5": (schedule.hash_of_initiator, "hash_i"), "mm6": (schedule.hash_of_responder, "hash_r")}
    for name, (compute, expected) in proofs.items():
        data = MESSAGES[name]
        plaintext = schedule.unseal(phase1, iv, data[HEADER_OCTETS:])
        chain = parse_chain(Header.parse(data).next_payload, Reader(plaintext), padded=True)
        identity = next(item.body for item in chain if isinstance(item.payload, Identification))
        proof = compute(phase1, *publics, cookies(), offer, identity)
        assert proof == SECRETS[expected] == only(chain, HashPayload).data
        iv = data[-phase1.block :]


def test_what_we_could_not_keep_is_refused(pull: list[Opened]) -> None:
    with pytest.raises(PolicyRefused, match="address preservation"):
        read_policy(only(pull[1].payloads, GdoiSa), 0)


def test_the_registration_brings_policy_and_keys(pull: list[Opened], group: GroupKeys) -> None:
    assert only(pull[0].payloads, Identification).data == bytes.fromhex("d2040000"), "1234, octets swapped"
    assert pull[2].payloads == ()
    assert (group.activation_delay, group.deactivation_delay) == (2, 5)
    assert group.kek is not None
    assert (group.kek.spi, group.kek.iv, group.kek.key) == tuple(
        SECRETS[name] for name in ("kek_spi", "kek_iv", "kek_key")
    )
    assert group.kek.sequence == 0
    (tek,) = group.teks.values()
    assert tek.spi == RETAINED and tek.transform == TransformSet(Cipher.TRIPLE_DES, 192, Integrity.SHA1)
    assert (len(tek.encryption_key), len(tek.integrity_key)) == (24, 20)
    assert crypto.RsaPublicKey.from_der(group.kek.signature_key).bits == 2048


def test_the_rekey_decrypts_and_its_signature_verifies(group: GroupKeys) -> None:
    kek = group.kek
    assert isinstance(kek, KeyEncryptionKey) and kek.encryption is Encryption.AES_CBC
    header, plaintext = push.decrypt(MESSAGES["push"], kek)
    assert header.length == 988
    opened = push.verify(header, plaintext, kek, sig_raw_digest=True, parsers=parsers())
    assert opened.sequence == 1 and opened.sa is not None and opened.keys is not None
    told = combine(read_policy(symmetric(opened.sa), 0), opened.keys, opened.sequence)
    assert {spi: tek.lifetime for spi, tek in told.teks.items()} == {RETAINED: 105, NEW: 120}
    assert told.teks[RETAINED].encryption_key == group.teks[RETAINED].encryption_key
    (rule,) = told.rules
    assert rule.spis == (RETAINED, NEW)
    assert rule.entry.destination.is_multicast


def test_what_is_signed_counts_no_padding(group: GroupKeys) -> None:
    assert group.kek is not None
    header, plaintext = push.decrypt(MESSAGES["push"], group.kek)
    signature_octets = 4 + 256
    body = plaintext[: 978 - HEADER_OCTETS - signature_octets]
    digest = crypto.digest(Hash.SHA1, push.SIGNED_PREFIX, header.with_length(978).pack(), body)
    assert digest.hex() == "38a2cb8eb797e1167246560fc5032459f349d1aa"
