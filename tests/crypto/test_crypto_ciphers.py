"""CBC and GCM against NIST SP 800-38A, RFC 3602, FIPS 81 and the GCM specification's test cases."""

from __future__ import annotations

import pytest

from labctl.crypto import BlockCipher, block_size, cbc_decrypt, cbc_encrypt
from labctl.crypto.aead import AESGCM, InvalidTag

# SP 800-38A F.2: one plaintext and IV, three keys.
PLAINTEXT = bytes.fromhex(
    "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51"
    "30c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710"
)
IV = bytes(range(16))
AES = [
    (
        "2b7e151628aed2a6abf7158809cf4f3c",
        "7649abac8119b246cee98e9b12e9197d5086cb9b507219ee95db113a917678b2"
        "73bed6b8e3c1743b7116e69e222295163ff1caa1681fac09120eca307586e1a7",
    ),
    (
        "8e73b0f7da0e6452c810f32b809079e562f8ead2522c6b7b",
        "4f021db243bc633d7178183a9fa071e8b4d9ada9ad7dedf4e5e738763f69145a"
        "571b242012fb7ae07fa9baac3df102e008b0e27988598881d920a9e64f5615cd",
    ),
    (
        "603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4",
        "f58c4c04d6e5f1ba779eabfb5f7bfbd69cfc4e967edb808d679f777bc6702c7d"
        "39f23369a9d9bacfa530e26304231461b2eb05e2c39be9fcda6c19078c6a9d1b",
    ),
]


@pytest.mark.parametrize(("key", "ciphertext"), AES)
def test_aes_cbc_of_sp_800_38a(key: str, ciphertext: str) -> None:
    assert cbc_encrypt(BlockCipher.AES, bytes.fromhex(key), IV, PLAINTEXT).hex() == ciphertext
    assert cbc_decrypt(BlockCipher.AES, bytes.fromhex(key), IV, bytes.fromhex(ciphertext)) == PLAINTEXT


def test_aes_cbc_of_rfc_3602() -> None:
    """RFC 3602 4, case 1."""
    key = bytes.fromhex("06a9214036b8a15b512e03d534120006")
    iv = bytes.fromhex("3dafba429d9eb430b422da802c9fac41")
    assert cbc_encrypt(BlockCipher.AES, key, iv, b"Single block msg").hex() == "e353779c1079aeb82708942dbe77181a"


def test_3des_cbc_with_three_equal_keys_is_the_des_of_fips_81() -> None:
    """FIPS 81, table C1: three equal keys make 3DES the DES that the standard prints."""
    key = bytes.fromhex("0123456789abcdef") * 3
    iv = bytes.fromhex("1234567890abcdef")
    ciphertext = bytes.fromhex("e5c7cdde872bf27c43e934008c389c0f683788499a7c05f6")
    assert cbc_encrypt(BlockCipher.TRIPLE_DES, key, iv, b"Now is the time for all ") == ciphertext
    assert cbc_decrypt(BlockCipher.TRIPLE_DES, key, iv, ciphertext) == b"Now is the time for all "


@pytest.mark.parametrize(("cipher", "key_octets"), [(BlockCipher.AES, 32), (BlockCipher.TRIPLE_DES, 24)])
def test_what_does_not_fit_the_cipher_is_a_value_error(cipher: BlockCipher, key_octets: int) -> None:
    key, iv = bytes(range(key_octets)), bytes(block_size(cipher))
    for bad_key, bad_iv, bad_data in (
        (key[:-1], iv, bytes(16)),
        (key, iv[:-1], bytes(16)),
        (key, iv, bytes(15)),
    ):
        with pytest.raises(ValueError):
            cbc_encrypt(cipher, bad_key, bad_iv, bad_data)
        with pytest.raises(ValueError):
            cbc_decrypt(cipher, bad_key, bad_iv, bad_data)


# The GCM specification (McGrew and Viega), test cases 4 and 16: AES-128 and AES-256 with associated data.
GCM_PLAINTEXT = bytes.fromhex(
    "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72"
    "1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39"
)
GCM_ASSOCIATED = bytes.fromhex("feedfacedeadbeeffeedfacedeadbeefabaddad2")
GCM_NONCE = bytes.fromhex("cafebabefacedbaddecaf888")
GCM = [
    (
        "feffe9928665731c6d6a8f9467308308",
        "42831ec2217774244b7221b784d0d49ce3aa212f2c02a4e035c17e2329aca12e"
        "21d514b25466931c7d8f6a5aac84aa051ba30b396a0aac973d58e091",
        "5bc94fbc3221a5db94fae95ae7121a47",
    ),
    (
        "feffe9928665731c6d6a8f9467308308" * 2,
        "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa"
        "8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662",
        "76fc6ece0f4e1768cddf8853bb2d551b",
    ),
]


@pytest.mark.parametrize(("key", "ciphertext", "tag"), GCM)
def test_aes_gcm_of_its_specification(key: str, ciphertext: str, tag: str) -> None:
    cipher = AESGCM(bytes.fromhex(key))
    assert cipher.encrypt(GCM_NONCE, GCM_PLAINTEXT, GCM_ASSOCIATED).hex() == ciphertext + tag
    with pytest.raises(InvalidTag):
        cipher.decrypt(GCM_NONCE, bytes.fromhex(ciphertext + tag), GCM_ASSOCIATED[:-1])
