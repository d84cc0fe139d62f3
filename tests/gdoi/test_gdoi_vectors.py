"""GROUPKEY-PULL and -PUSH of every capture: decrypted, every hash and signature recomputed.

What the captures do against the RFC (their README) is mended by the adapters here; the product stays strict, which the
last tests show.
"""

from __future__ import annotations

from typing import Any

import pytest
import vectors
from gdoi_deviations import Deviation, parsers, under_spi
from vectors import octets

from labctl import crypto
from labctl.configuration import Encryption, Hash
from labctl.gdoi import ack, push
from labctl.gdoi.decoding import combine, read_policy
from labctl.gdoi.numbers import GapAttribute, KdType, KekKey
from labctl.gdoi.payloads import GdoiSa, GroupAssociatedPolicy, KeyDownload, SequenceNumber
from labctl.gdoi.policy import KeyEncryptionKey
from labctl.isakmp.datagram import Endpoint
from labctl.isakmp.errors import InvalidHash, MalformedMessage, PeerError
from labctl.isakmp.header import Header
from labctl.isakmp.keys import Phase1Keys
from labctl.isakmp.main_mode import only
from labctl.isakmp.payloads import Delete, Identification, Nonce
from labctl.isakmp.payloads.chain import Parser
from labctl.isakmp.reader import Reader
from labctl.isakmp.sa import Opened, Phase1Sa

HASHES = {"MD5": Hash.MD5, "SHA1": Hash.SHA1, "SHA256": Hash.SHA256}
CIPHERS = {"3DES-CBC": crypto.BlockCipher.TRIPLE_DES, "AES-CBC": crypto.BlockCipher.AES}
ENCRYPTIONS = {"3DES-CBC": Encryption.TRIPLE_DES, "AES-CBC": Encryption.AES_CBC}


LENIENT = parsers()


@pytest.fixture(params=vectors.NAMES)
def capture(request: pytest.FixtureRequest) -> dict[str, Any]:
    return vectors.load(request.param)


@pytest.fixture(params=[name for name in vectors.NAMES if "nokek" not in name])
def rekeyed(request: pytest.FixtureRequest) -> dict[str, Any]:
    return vectors.load(request.param)


def association(capture: dict[str, Any]) -> Phase1Sa:
    """The phase-1 SA as a third party that knows its keys."""
    phase1 = capture["phase1"]
    keys = Phase1Keys(
        HASHES[phase1["hash"]],
        CIPHERS[phase1["cipher"]],
        *(octets(phase1[name]) for name in ("skeyid", "skeyid_d", "skeyid_a", "skeyid_e", "encryption_key")),
    )
    nobody = Endpoint.__new__(Endpoint)
    cookies = octets(phase1["icookie"]) + octets(phase1["rcookie"])
    identity = Identification(1, bytes(4))
    return Phase1Sa(True, cookies, nobody, nobody, identity, keys, octets(phase1["last_phase1_block"]), 2, 0.0, 3600.0)


def pull(capture: dict[str, Any], parsers: dict[int, Parser] = LENIENT) -> list[Opened]:
    """The four messages, each decrypted and its hash checked, in one IV chain."""
    sa = association(capture)
    mid = octets(capture["pull"]["message_id"])
    ni, nr = octets(capture["pull"]["ni_b"]), octets(capture["pull"]["nr_b"])
    prefixes = [(mid,), (mid, ni), (mid, ni, nr), (mid, ni, nr)]
    messages = []
    for number, prefix in enumerate(prefixes, start=1):
        data = vectors.message(capture, f"pull{number}")
        opened = sa.open(Header.parse(data), data, parsers)
        assert opened.hash == octets(capture["pull"][f"hash_{number}"])
        sa.verify(opened, *prefix)
        messages.append(opened)
    return messages


def keks(capture: dict[str, Any]) -> dict[bytes, KeyEncryptionKey]:
    """Every KEK of a capture by the SPI that its rekeys carry."""
    found: dict[bytes, KeyEncryptionKey] = {}
    for item in capture["keks"]:
        spi = octets(item["spi_in_sak"])
        public = octets(item["rsa_spki_der"])
        key, iv = octets(item["key"]), octets(item["iv"])
        hash_name = HASHES[item["sig_hash"]]
        encryption = ENCRYPTIONS[item["algorithm"]]
        found.setdefault(spi, KeyEncryptionKey(spi, encryption, iv, key, hash_name, public, 60, 60))
    return found


def pushes(capture: dict[str, Any]) -> list[dict[str, Any]]:
    return [item for item in capture["messages"] if item["name"] == "push"]


def test_every_hash_of_the_registration_is_recomputed(capture: dict[str, Any]) -> None:
    request, offer, _, download = pull(capture)
    assert only(request.payloads, Nonce).data == octets(capture["pull"]["ni_b"])
    assert only(offer.payloads, Nonce).data == octets(capture["pull"]["nr_b"])
    assert only(download.payloads, KeyDownload).packets


def test_the_group_is_named_by_its_number(capture: dict[str, Any]) -> None:
    identity = only(pull(capture)[0].payloads, Identification)
    # Deviation 4: little endian.
    assert int.from_bytes(identity.data, "little") == capture["pull"]["group_number_configured"]
    assert identity.kind == 11


def test_policy_and_keys_come_out_as_the_member_installed_them(capture: dict[str, Any]) -> None:
    _, offer, _, download = pull(capture)
    sa, keys = only(offer.payloads, GdoiSa), only(download.payloads, KeyDownload)
    body = next(item.body for item in download.payloads if isinstance(item.payload, KeyDownload))
    assert KeyDownload.parse(Reader(body)).pack() == body
    if "-ah" in capture["meta"]["name"]:
        with pytest.raises(PeerError, match="AH is not supported"):
            read_policy(sa, 0)
        return
    if "gap" in capture["meta"]["name"]:
        with pytest.raises(PeerError, match="other than tunnel"):
            read_policy(sa, 0)
        return
    policy = read_policy(sa, 0)
    sequence = only(download.payloads, SequenceNumber).number if policy.kek is not None else 0
    group = combine(policy, keys, sequence)
    expected = {
        int(item["spi"], 16): octets(item["secrecy_key"]) for item in capture["teks"] if item["sat_from"] == "pull"
    }
    assert {spi: tek.encryption_key for spi, tek in group.teks.items()} == expected
    if policy.kek is not None:
        kek = next(iter(keks(capture).values()))
        assert group.kek is not None
        assert (group.kek.key, group.kek.iv, group.kek.signature_key) == (kek.key, kek.iv, kek.signature_key)


def test_every_rekey_decrypts_and_its_signature_verifies(rekeyed: dict[str, Any]) -> None:
    known = keks(rekeyed)
    assert pushes(rekeyed)
    last: dict[bytes, int] = {}
    for item in pushes(rekeyed):
        data = octets(item["datagram"])
        kek = known[octets(item["kek_spi"])]
        header, plaintext = push.decrypt(data, kek)
        assert plaintext == octets(item["plaintext"])
        opened = push.verify(header, plaintext, kek, sig_raw_digest=True, parsers=LENIENT)
        assert opened.sequence > last.get(kek.spi, 0)
        last[kek.spi] = opened.sequence
        digest = crypto.digest(kek.signature_hash, octets(item["digest_input"]))
        assert digest == octets(item["digest"])


@pytest.mark.parametrize("name", ["registration-psk-gcm-sid", "rekey-psk-aes-g5", "rekey-psk-aes-sha256-g14"])
def test_rekeys_bring_the_keys_that_the_member_installed(name: str) -> None:
    capture = vectors.load(name)
    expected = {int(item["spi"], 16): octets(item["secrecy_key"]) for item in capture["teks"]}
    seen: dict[int, bytes] = {}
    for item in pushes(capture):
        kek = keks(capture)[octets(item["kek_spi"])]
        header, plaintext = push.decrypt(octets(item["datagram"]), kek)
        opened = push.verify(header, plaintext, kek, sig_raw_digest=True, parsers=LENIENT)
        if opened.sa is None or opened.keys is None:
            continue
        policy = read_policy(opened.sa, 0)
        assert policy.kek is not None
        spi = policy.kek.spi
        if policy.needs_sender_id:
            # A rekey holds none: the member keeps its own (RFC 6407 5.6.4.4).
            packets = {packet.spi: packet.octets(1) for packet in opened.keys.of(KdType.TEK)}
            seen.update({int.from_bytes(key, "big"): value for key, value in packets.items() if value is not None})
            continue
        group = combine(policy, under_spi(opened.keys, spi), opened.sequence)
        seen.update({number: tek.encryption_key for number, tek in group.teks.items()})
    assert set(seen.items()) <= set(expected.items())
    pushed = {int(item["spi"], 16) for item in capture["teks"] if item["sat_from"] != "pull"}
    assert pushed and pushed <= set(seen)


def test_a_signature_without_digest_info_is_refused_unless_asked_for(rekeyed: dict[str, Any]) -> None:
    item = pushes(rekeyed)[0]
    kek = keks(rekeyed)[octets(item["kek_spi"])]
    header, plaintext = push.decrypt(octets(item["datagram"]), kek)
    with pytest.raises(push.BadSignature):
        push.verify(header, plaintext, kek, parsers=LENIENT)


def test_the_last_rekey_deletes(rekeyed: dict[str, Any]) -> None:
    item = pushes(rekeyed)[-1]
    kek = keks(rekeyed)[octets(item["kek_spi"])]
    header, plaintext = push.decrypt(octets(item["datagram"]), kek)
    opened = push.verify(header, plaintext, kek, sig_raw_digest=True, parsers=LENIENT)
    assert opened.sa is None and opened.keys is None
    assert all(isinstance(delete, Delete) and delete.doi == 2 for delete in opened.deletes)


def test_a_rekey_that_was_seen_is_a_replay(rekeyed: dict[str, Any]) -> None:
    item = pushes(rekeyed)[0]
    kek = keks(rekeyed)[octets(item["kek_spi"])]
    seen = KeyEncryptionKey(
        kek.spi, kek.encryption, kek.iv, kek.key, kek.signature_hash, kek.signature_key, 60, 60, sequence=1
    )
    header, plaintext = push.decrypt(octets(item["datagram"]), kek)
    with pytest.raises(push.ReplayedRekey):
        push.verify(header, plaintext, seen, sig_raw_digest=True, parsers=LENIENT)


def test_sender_ids_come_out_as_the_member_asked_for_them() -> None:
    _, offer, request, download = pull(vectors.load("registration-psk-gcm-sid"))
    gap = only(request.payloads, GroupAssociatedPolicy)
    assert gap.value(GapAttribute.SENDER_ID_REQUEST) == 3
    policy = read_policy(only(offer.payloads, GdoiSa), 0)
    group = combine(policy, only(download.payloads, KeyDownload), 0)
    assert (policy.activation_delay, policy.deactivation_delay) == (30, 45)
    assert group.sender_id_bits == 16 and group.sender_ids == (0, 1, 2)


@pytest.mark.parametrize(
    ("deviation", "name", "words"),
    [
        *((Deviation.SAK_RESERVED, name, "octets of zero") for name in vectors.NAMES if "nokek" not in name),
        (Deviation.SAT_ADDRESSES, "rekey-psk-aes-sha256-g14", "holes"),
        (Deviation.SAT_ADDRESSES, "registration-psk-gcm-sid", "holes"),
        (Deviation.GCM_KEY_LENGTH, "registration-psk-gcm-sid", "AES key of 160 bits"),
        (Deviation.SID_OCTETS, "registration-psk-gcm-sid", "do not fit their width"),
    ],
)
def test_the_strict_product_refuses_a_deviation(deviation: Deviation, name: str, words: str) -> None:
    capture = vectors.load(name)
    with pytest.raises(PeerError, match=words):
        _, offer, _, download = pull(capture, parsers(deviation))
        combine(read_policy(only(offer.payloads, GdoiSa), 0), only(download.payloads, KeyDownload), 0)


def test_the_strict_product_reads_another_group_number() -> None:
    capture = vectors.load("registration-psk")
    identity = only(pull(capture)[0].payloads, Identification)
    assert int.from_bytes(identity.data, "big") == 0xD2040000


def test_the_strict_product_reads_a_kek_packet_of_another_spi_as_no_key() -> None:
    """Deviation 7: a new KEK's key comes under the old SPI."""
    capture = vectors.load("rekey-psk-aes-g5")
    item = next(entry for entry, summary in zip(pushes(capture), capture["pushes"], strict=True) if summary["new_kek"])
    kek = keks(capture)[octets(item["kek_spi"])]
    header, plaintext = push.decrypt(octets(item["datagram"]), kek)
    opened = push.verify(header, plaintext, kek, sig_raw_digest=True, parsers=LENIENT)
    assert opened.sa is not None and opened.keys is not None
    policy = read_policy(opened.sa, 0)
    with pytest.raises(MalformedMessage, match="no key for the KEK"):
        combine(policy, opened.keys, opened.sequence)
    assert policy.kek is not None
    mended = combine(policy, under_spi(opened.keys, policy.kek.spi), opened.sequence)
    assert mended.kek is not None and mended.kek.key == octets(capture["keks"][1]["key"])


SA_EXAMPLE = octets(
    "000000a40000000200000000000f00001600004911010350040a00000101035004ef010101101112131415161718191a1b1c1d1e1f"
    "0000000080020003800301000004000400015180800500038006000180070800800900011000000c800100058002001e0000003f01"
    "00040000080a000000ff000000040000080a000000ff000000141a2b3c4d800100010002000400000e108004000180060100800e0004"
    "800f0003"
)
KD_EXAMPLE = octets(
    "00000092000300000200004910101112131415161718191a1b1c1d1e1f00010030808182838485868788898a8b8c8d8e8f9091929394"
    "95969798999a9b9c9d9e9fa0a1a2a3a4a5a6a7a8a9aaabacadaeaf01000031041a2b3c4d00010024404142434445464748494a4b4c4d"
    "4e4f505152535455565758595a5b5c5d5e5f6061626304000010008001001800020003010000"
)


def test_the_conforming_examples_of_the_reference_parse_pack_and_are_understood() -> None:
    sa, keys = GdoiSa.parse(Reader(SA_EXAMPLE, 4)), KeyDownload.parse(Reader(KD_EXAMPLE, 4))
    assert sa.pack() == SA_EXAMPLE[4:]
    assert keys.pack() == KD_EXAMPLE[4:]
    policy = read_policy(sa, 100)
    assert (policy.activation_delay, policy.deactivation_delay) == (5, 30)
    assert policy.kek is not None and policy.kek.lifetime == 86400
    assert str(policy.teks[0].transform) == "esp-gcm 256"
    # The example holds no public key, without which rekeys could not be verified.
    assert keys.of(KdType.KEK)[0].octets(KekKey.SIG_ALGORITHM_KEY) is None
    with pytest.raises(MalformedMessage, match="public key"):
        combine(policy, keys, 0)


KEK_SPI = octets("3026eac931e283c83ec644405053aeed")
KEK_KEY = octets("8ecfa8024ca8e27362d02737a499469d")
ACKS = {
    ack.AckType.KEK_SHA256: (
        "f761d1103ffdb5d44f719a968d2d9b0d960d6164d1148708ac7d4244b7ac7682",
        "3026eac931e283c83ec644405053aeed081023000000000000000054120000242ec5102df80b176ec857d81449a3fb7a528390fcfeb8"
        "08a76e628393f2463fb005000008000000010000000c010000000a000001",
    ),
    ack.AckType.KEK_SHA512: (
        "f37e5f06f0ab9ccc46a08b2253f4df9c6576bc7b2b717e1473fdd6206c82c94221b66e3f68c783194bca4b6d9c9106f96956f847db"
        "425182bff8765df5c28011",
        "3026eac931e283c83ec644405053aeed08102300000000000000007412000044e12c8d8c7226a3212332c24e6829b59549dec19461e8"
        "e98674dd73171a226f9fa4b11212c7696e3bee888714d9b4c3ea5f1f3b3a48e8fd8ba0feb1a36192024805000008000000010000000c"
        "010000000a000001",
    ),
}


@pytest.mark.parametrize("kind", list(ACKS))
def test_acknowledgements_are_those_of_the_reference(kind: ack.AckType) -> None:
    key, message = ACKS[kind]
    told = ack.Acknowledgement(KEK_SPI, 1, Identification(1, bytes((10, 0, 0, 1))))
    assert ack.ack_key(kind, KEK_KEY, KEK_SPI).hex() == key
    built = ack.build(kind, KEK_KEY, told)
    assert built == octets(message)
    assert ack.open_ack(built, kind, KEK_KEY) == told
    changed = bytearray(built)
    changed[-1] ^= 1
    with pytest.raises(InvalidHash):
        ack.open_ack(bytes(changed), kind, KEK_KEY)
