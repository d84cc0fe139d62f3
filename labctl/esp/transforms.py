"""The ciphers of ESP (reference 6.1): from SPI to ICV, for one key.

`seal(header, plaintext, iv)` takes SPI | SN and the padded plaintext, and returns everything behind SPI | SN;
`open(packet, start)` takes a whole packet and where ESP begins, and returns the padded plaintext.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from labctl import crypto
from labctl.configuration import Cipher, Hash, Integrity, TransformSet
from labctl.crypto.aead import AESGCM, InvalidTag
from labctl.esp.errors import DropPacket, DropReason

ESP_HEADER = 8
SALT_OCTETS = 4
COUNTER_IV_OCTETS = 8
GCM_ICV_OCTETS = 16

# Hash and ICV octets (RFC 2403, 2404, 4868).
INTEGRITY: dict[Integrity, tuple[Hash, int]] = {
    Integrity.MD5: (Hash.MD5, 12),
    Integrity.SHA1: (Hash.SHA1, 12),
    Integrity.SHA256: (Hash.SHA256, 16),
    Integrity.SHA384: (Hash.SHA384, 24),
    Integrity.SHA512: (Hash.SHA512, 32),
}

BLOCK_CIPHERS = {Cipher.AES_CBC: crypto.BlockCipher.AES, Cipher.TRIPLE_DES: crypto.BlockCipher.TRIPLE_DES}

RandomSource = Callable[[int], bytes]


class EspCipher(Protocol):
    """One key of one transform. `block`: what plaintext with trailer is a multiple of; sizes in octets."""

    block: int
    iv_octets: int
    icv_octets: int

    def seal(self, header: bytes, plaintext: bytes, iv: bytes) -> bytes:
        """IV | ciphertext | ICV."""

    def open(self, packet: memoryview, start: int) -> bytes:
        """The plaintext with its trailer. Raises DropPacket."""


class Gcm:
    """AES-GCM with an ICV of 16 octets (RFC 4106): AAD is SPI | SN."""

    __slots__ = ("_aead", "_salt", "block", "icv_octets", "iv_octets")

    def __init__(self, key_and_salt: bytes) -> None:
        self.block = 4
        self.iv_octets = COUNTER_IV_OCTETS
        self.icv_octets = GCM_ICV_OCTETS
        self._aead = AESGCM(key_and_salt[:-SALT_OCTETS])
        self._salt = key_and_salt[-SALT_OCTETS:]

    def seal(self, header: bytes, plaintext: bytes, iv: bytes) -> bytes:
        return iv + self._aead.encrypt(self._salt + iv, plaintext, header)

    def open(self, packet: memoryview, start: int) -> bytes:
        nonce = self._salt + bytes(packet[start + 8 : start + 16])
        try:
            return self._aead.decrypt(nonce, packet[start + 16 :], bytes(packet[start : start + 8]))
        except InvalidTag:
            raise DropPacket(DropReason.MAC_ERROR) from None


class Gmac:
    """NULL encryption with AES-GMAC (RFC 4543): AAD is SPI | SN | IV | payload."""

    __slots__ = ("_aead", "_salt", "block", "icv_octets", "iv_octets")

    def __init__(self, key_and_salt: bytes) -> None:
        self.block = 4
        self.iv_octets = COUNTER_IV_OCTETS
        self.icv_octets = GCM_ICV_OCTETS
        self._aead = AESGCM(key_and_salt[:-SALT_OCTETS])
        self._salt = key_and_salt[-SALT_OCTETS:]

    def seal(self, header: bytes, plaintext: bytes, iv: bytes) -> bytes:
        return iv + plaintext + self._aead.encrypt(self._salt + iv, b"", header + iv + plaintext)

    def open(self, packet: memoryview, start: int) -> bytes:
        nonce = self._salt + bytes(packet[start + 8 : start + 16])
        try:
            self._aead.decrypt(nonce, packet[-GCM_ICV_OCTETS:], bytes(packet[start:-GCM_ICV_OCTETS]))
        except InvalidTag:
            raise DropPacket(DropReason.MAC_ERROR) from None
        return bytes(packet[start + 16 : -GCM_ICV_OCTETS])


class CbcHmac:
    """AES-CBC or 3DES-CBC, or NULL, then HMAC over SPI to NextHeader (RFC 3602, 2451, 2410, 2404, 4868)."""

    __slots__ = ("_cipher", "_hash", "_integrity_key", "_key", "block", "icv_octets", "iv_octets")

    def __init__(self, transform: TransformSet, key: bytes, integrity_key: bytes) -> None:
        self._cipher = BLOCK_CIPHERS.get(transform.cipher)
        self._key = key
        self._integrity_key = integrity_key
        self._hash, self.icv_octets = INTEGRITY[transform.integrity]
        self.iv_octets = 0 if self._cipher is None else crypto.block_size(self._cipher)
        self.block = max(4, self.iv_octets)

    def seal(self, header: bytes, plaintext: bytes, iv: bytes) -> bytes:
        if self._cipher is not None:
            plaintext = iv + crypto.cbc_encrypt(self._cipher, self._key, iv, plaintext)
        return plaintext + crypto.hmac(self._hash, self._integrity_key, header, plaintext)[: self.icv_octets]

    def open(self, packet: memoryview, start: int) -> bytes:
        end = len(packet) - self.icv_octets
        covered = bytes(packet[start:end])
        icv = crypto.hmac(self._hash, self._integrity_key, covered)[: self.icv_octets]
        if not crypto.equal(icv, bytes(packet[end:])):
            raise DropPacket(DropReason.MAC_ERROR)
        data = covered[ESP_HEADER + self.iv_octets :]
        if self._cipher is None:
            return data
        if not data or len(data) % self.iv_octets:
            raise DropPacket(DropReason.MALFORMED, "the ciphertext is not whole blocks")
        return crypto.cbc_decrypt(self._cipher, self._key, covered[ESP_HEADER : ESP_HEADER + self.iv_octets], data)


def cipher_for(transform: TransformSet, encryption_key: bytes, integrity_key: bytes) -> EspCipher:
    """The cipher of a transform set under its keys (counter modes: key | salt). Raises ValueError for wrong sizes."""
    expected = transform.key_bits // 8 + (SALT_OCTETS if transform.uses_counter_mode else 0)
    if len(encryption_key) != expected:
        raise ValueError(f"{transform} takes a key of {expected} octets, not {len(encryption_key)}")
    if transform.cipher is Cipher.AES_GCM:
        return Gcm(encryption_key)
    if transform.cipher is Cipher.AES_GMAC:
        return Gmac(encryption_key)
    if transform.integrity is Integrity.NONE:
        raise ValueError(f"{transform} has no integrity")
    return CbcHmac(transform, encryption_key, integrity_key)
