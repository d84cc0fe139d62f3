"""Published vectors: packets of RFC 3602 4, of draft-mcgrew-gcm-test-01 for GCM (RFC 4106) and GMAC (RFC 4543); MTUs.

RFC 2451 has none for 3DES: tshark and scapy judge it (test_esp_tshark, test_esp_packets).
"""

from __future__ import annotations

import hashlib
import hmac
from random import Random

import pytest
from esp_packets import CBC_PACKETS, GCM_PACKETS, CbcPacket, GcmPacket

from labctl import crypto
from labctl.configuration import Cipher, Integrity, TransformSet
from labctl.crypto import BlockCipher
from labctl.esp import DropPacket, SecurityAssociation
from labctl.esp.transforms import HEADROOM, TAILROOM, EspCipher, cipher_for

AES_CBC_KEY = bytes.fromhex("0123456789abcdef0123456789abcdef")
AES_CBC_IV = bytes.fromhex("f4e765244f6407adf13dc1380f673f37")
AES_CBC_PLAIN = bytes.fromhex(
    "45000054090400004001f988c0a87b03c0a87bc808009f76a90a0100b49c083d02a2040008090a0b0c0d0e0f"
    "101112131415161718191a1b1c1d1e1f202122232425262728292a2b2c2d2e2f303132333435363701020304"
    "05060708090a0a04"
)
AES_CBC_CIPHER = bytes.fromhex(
    "773b5241a4c449225e4f3ce5ed611b0c237ca96cf74a93013c1b0ea1a0cf70f8e4ecaec78ac53aad7a0f022b"
    "859243c647752e94a859352b8a4d4d2decd136e5c177f132ad3fbfb2201ac9904c74ee0a109e0ca1e4dfe9d5"
    "a100b842f1c22f0d"
)

GCM_KEY, GCM_PACKET = GCM_PACKETS[0].key, GCM_PACKETS[0].packet

GMAC_KEY = bytes.fromhex("4c80cdefbb5d10da906ac73c3613a63422433c64")
GMAC_PACKET = bytes.fromhex(
    "0000432100000007000000000000000045000030da3a00008001df3bc0a80005c0a800010800c6cd0200070061626364"
    "65666768696a6b6c6d6e6f707172737401020201f2a9a836e155106aa8dcd618e4099aaa"
)


def test_aes_cbc_of_rfc_3602_case_7() -> None:
    assert crypto.cbc_encrypt(BlockCipher.AES, AES_CBC_KEY, AES_CBC_IV, AES_CBC_PLAIN) == AES_CBC_CIPHER
    assert crypto.cbc_decrypt(BlockCipher.AES, AES_CBC_KEY, AES_CBC_IV, AES_CBC_CIPHER) == AES_CBC_PLAIN


def sealed(cipher: EspCipher, header: bytes, plain: bytes, iv: bytes) -> bytes:
    """SPI to ICV, as the cipher writes it between two buffers."""
    source, target = (memoryview(bytearray(HEADROOM + len(plain) + 2 * TAILROOM)) for _ in "st")
    source[HEADROOM : HEADROOM + len(plain)] = plain
    words = (int.from_bytes(octets, "big") for octets in (header[:4], header[4:], iv))
    end = cipher.seal_into(source, HEADROOM, HEADROOM + len(plain), target, HEADROOM, *words)
    return bytes(target[HEADROOM:end])


def opened(cipher: EspCipher, packet: bytes) -> bytes:
    target = memoryview(bytearray(HEADROOM + len(packet) + TAILROOM))
    end = cipher.open_into(memoryview(packet), 0, len(packet), target, HEADROOM)
    return bytes(target[HEADROOM:end])


def counter_mode(cipher: Cipher, key: bytes) -> EspCipher:
    return cipher_for(TransformSet(cipher, 128), key, b"", Random(1).randbytes)


@pytest.mark.parametrize("given", GCM_PACKETS, ids=lambda given: f"{given.bits} bits, {given.packet[:4].hex()}")
def test_a_gcm_packet_both_ways(given: GcmPacket) -> None:
    cipher = cipher_for(TransformSet(Cipher.AES_GCM, given.bits), given.key, b"", Random(1).randbytes)
    assert sealed(cipher, given.packet[:8], given.plain, given.packet[8:16]) == given.packet
    assert opened(cipher, given.packet) == given.plain


@pytest.mark.parametrize("integrity", [Integrity.SHA1, Integrity.SHA256, Integrity.SHA384, Integrity.SHA512], ids=str)
@pytest.mark.parametrize("given", CBC_PACKETS, ids=lambda given: f"case {given.case}")
def test_a_cbc_packet_of_rfc_3602_opens_with_each_integrity(given: CbcPacket, integrity: Integrity) -> None:
    name, octets = {
        Integrity.SHA1: ("sha1", 12),
        Integrity.SHA256: ("sha256", 16),
        Integrity.SHA384: ("sha384", 24),
        Integrity.SHA512: ("sha512", 32),
    }[integrity]
    key = bytes(range(hashlib.new(name).digest_size))
    # The RFC's packets have no ICV; RFC 2404 and 4868 say what it covers, and where it is cut.
    packet = given.packet + hmac.digest(key, given.packet, name)[:octets]
    cipher = cipher_for(TransformSet(Cipher.AES_CBC, 128, integrity), given.key, key, Random(1).randbytes)
    assert opened(cipher, packet) == given.plain
    for place in (0, 7, 8, len(given.packet) - 1, len(packet) - 1):
        changed = bytearray(packet)
        changed[place] ^= 0x80
        with pytest.raises(DropPacket):
            opened(cipher, bytes(changed))


def test_a_gmac_packet_both_ways() -> None:
    cipher = counter_mode(Cipher.AES_GMAC, GMAC_KEY)
    plain = GMAC_PACKET[16:-16]
    assert sealed(cipher, GMAC_PACKET[:8], plain, GMAC_PACKET[8:16]) == GMAC_PACKET
    assert opened(cipher, GMAC_PACKET) == plain


@pytest.mark.parametrize("position", range(0, len(GCM_PACKET), 7))
def test_a_changed_gcm_packet_is_dropped(position: int) -> None:
    changed = bytearray(GCM_PACKET)
    changed[position] ^= 1
    with pytest.raises(DropPacket):
        opened(counter_mode(Cipher.AES_GCM, GCM_KEY), bytes(changed))


def test_a_stream_of_cbc_messages_has_ivs_of_its_own_and_each_message_opens_by_itself() -> None:
    stream = crypto.CbcStream(BlockCipher.AES, AES_CBC_KEY)
    messages, ivs = [], []
    for _ in range(4):
        target = memoryview(bytearray(16 + len(AES_CBC_PLAIN) + 15))
        stream.encrypt_into(memoryview(bytes(16) + AES_CBC_PLAIN), target)
        messages.append(bytes(target[16:-15]))
        ivs.append(bytes(target[:16]))
    assert len(set(ivs)) == 4
    for iv, message in zip(ivs, messages, strict=True):
        assert crypto.cbc_decrypt(BlockCipher.AES, AES_CBC_KEY, iv, message) == AES_CBC_PLAIN
    for iv, message in zip(reversed(ivs), reversed(messages), strict=True):
        target = memoryview(bytearray(16 + len(message) + 15))
        stream.decrypt_into(memoryview(iv + message), target)
        assert bytes(target[16:-15]) == AES_CBC_PLAIN


def association(transform: TransformSet) -> SecurityAssociation:
    sizes = {Cipher.NULL: 0, Cipher.TRIPLE_DES: 24}
    key = bytes(sizes.get(transform.cipher, transform.key_bits // 8 + 4 * transform.uses_counter_mode))
    return SecurityAssociation(
        0x1001, transform, key, bytes(64), random=Random(1).randbytes, sender_id=0, sender_id_bits=24
    )


@pytest.mark.parametrize(
    ("transform", "octets"),
    [
        (TransformSet(Cipher.AES_CBC, 128, Integrity.SHA1), 1464),
        (TransformSet(Cipher.AES_GCM, 256), 1456),
    ],
    ids=str,
)
def test_a_packet_of_1400_octets_grows_as_the_reference_computes(transform: TransformSet, octets: int) -> None:
    assert 1400 + association(transform).overhead(1400) == octets


@pytest.mark.parametrize(
    ("transform", "octets"),
    [
        (TransformSet(Cipher.AES_CBC, 128, Integrity.SHA1), 1438),
        (TransformSet(Cipher.AES_CBC, 256, Integrity.SHA256), 1438),
    ],
    ids=str,
)
def test_the_plain_text_mtu_is_what_a_router_prints(transform: TransformSet, octets: int) -> None:
    assert association(transform).plaintext_mtu(1500) == octets


@pytest.mark.parametrize("cipher", [Cipher.AES_CBC, Cipher.AES_GCM, Cipher.AES_GMAC])
@pytest.mark.parametrize("mtu", [1500, 1400, 576])
def test_the_plain_text_mtu_is_exact(cipher: Cipher, mtu: int) -> None:
    integrity = Integrity.SHA1 if cipher is Cipher.AES_CBC else Integrity.NONE
    sa = association(TransformSet(cipher, 128, integrity))
    room = sa.plaintext_mtu(mtu)
    assert room + sa.overhead(room) <= mtu < room + 1 + sa.overhead(room + 1)
