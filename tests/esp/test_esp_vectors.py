"""Published vectors: RFC 3602 case 7, the GCM and GMAC packets of draft-mcgrew-gcm-test-01, plain-text MTU figures."""

from __future__ import annotations

from random import Random

import pytest

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

GCM_KEY = bytes.fromhex("feffe9928665731c6d6a8f9467308308cafebabe")
GCM_PLAIN = bytes.fromhex(
    "4500003e698f000080114dccc0a80102c0a801010a980035002a2343b2d0010000010000000000000373697009637962"
    "65726369747902646b00000100010001"
)
GCM_PACKET = bytes.fromhex(
    "0000a5f80000000afacedbaddecaf888deb22cd9b07c72c16e3a65beeb8df304a5a5897d33ae530f1ba76d5d114d2a5c"
    "3de81827c10e9a4f51330d0eec416642cfbb85a5b47e48a4ec3b9ba95d918bd183b70d3aa8bc6ee4c309e9d85a41ad4a"
)

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


def test_a_gcm_packet_both_ways() -> None:
    cipher = counter_mode(Cipher.AES_GCM, GCM_KEY)
    assert sealed(cipher, GCM_PACKET[:8], GCM_PLAIN, GCM_PACKET[8:16]) == GCM_PACKET
    assert opened(cipher, GCM_PACKET) == GCM_PLAIN


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
