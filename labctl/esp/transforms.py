"""The ciphers of ESP (reference 6.1): from SPI to ICV, for one key, between buffers that the caller keeps.

Nothing is allocated a packet beyond what the library makes itself: plaintext is read where it came in and ciphertext
written where it goes out. For that the buffers give room around what counts: HEADROOM octets before it and TAILROOM
behind it may be overwritten, in `source` as in `target`.
"""

from __future__ import annotations

import struct
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

# A random block before the plaintext, and a time stamp of 16 octets between it and the packet; what ESP appends
# to the longest ciphertext, and what the library wants beyond it.
HEADROOM, TAILROOM = 32, 64

# Hash and ICV octets (RFC 2403, 2404, 4868).
INTEGRITY: dict[Integrity, tuple[Hash, int]] = {
    Integrity.MD5: (Hash.MD5, 12),
    Integrity.SHA1: (Hash.SHA1, 12),
    Integrity.SHA256: (Hash.SHA256, 16),
    Integrity.SHA384: (Hash.SHA384, 24),
    Integrity.SHA512: (Hash.SHA512, 32),
}

BLOCK_CIPHERS = {Cipher.AES_CBC: crypto.BlockCipher.AES, Cipher.TRIPLE_DES: crypto.BlockCipher.TRIPLE_DES}

# Blocks for IVs that are fetched from the source of randomness at once.
RANDOM_BLOCKS = 256

RandomSource = Callable[[int], bytes]

_HEADER = struct.Struct("!II")
_HEADER_AND_IV = struct.Struct("!IIQ")


class EspCipher(Protocol):
    """One key of one transform. `block`: what plaintext with trailer is a multiple of; sizes in octets."""

    block: int
    iv_octets: int
    icv_octets: int

    def seal_into(
        self, source: memoryview, start: int, end: int, target: memoryview, at: int, spi: int, sequence: int, iv: int
    ) -> int:
        """Padded plaintext source[start:end] to SPI | SN | IV | ciphertext | ICV at target[at:]. Returns its end.

        `iv` is the IV of a counter mode; the others draw their own.
        """

    def open_into(self, source: memoryview, start: int, end: int, target: memoryview, at: int) -> int:
        """SPI to ICV, source[start:end], to the padded plaintext at target[at:]. Returns its end. Raises DropPacket."""


class Gcm:
    """AES-GCM with an ICV of 16 octets (RFC 4106): AAD is SPI | SN."""

    __slots__ = ("_decrypt", "_encrypt", "_salt", "_salt_octets", "block", "icv_octets", "iv_octets")

    def __init__(self, key_and_salt: bytes) -> None:
        self.block = 4
        self.iv_octets = COUNTER_IV_OCTETS
        self.icv_octets = GCM_ICV_OCTETS
        aead = AESGCM(key_and_salt[:-SALT_OCTETS])
        self._encrypt, self._decrypt = aead.encrypt_into, aead.decrypt_into
        self._salt_octets = key_and_salt[-SALT_OCTETS:]
        self._salt = int.from_bytes(self._salt_octets, "big") << 64

    def seal_into(
        self, source: memoryview, start: int, end: int, target: memoryview, at: int, spi: int, sequence: int, iv: int
    ) -> int:
        _HEADER_AND_IV.pack_into(target, at, spi, sequence, iv)
        finish = at + end - start + 32
        nonce = (self._salt | iv).to_bytes(12, "big")
        self._encrypt(nonce, source[start:end], target[at : at + 8], target[at + 16 : finish])
        return finish

    def open_into(self, source: memoryview, start: int, end: int, target: memoryview, at: int) -> int:
        data = start + 16
        finish = at + end - data - 16
        nonce = self._salt_octets + source[start + 8 : data]
        try:
            self._decrypt(nonce, source[data:end], source[start : start + 8], target[at:finish])
        except InvalidTag:
            raise DropPacket(DropReason.MAC_ERROR) from None
        return finish


class Gmac:
    """NULL encryption with AES-GMAC (RFC 4543): AAD is SPI | SN | IV | payload."""

    __slots__ = ("_decrypt", "_encrypt", "_salt", "_salt_octets", "block", "icv_octets", "iv_octets")

    def __init__(self, key_and_salt: bytes) -> None:
        self.block = 4
        self.iv_octets = COUNTER_IV_OCTETS
        self.icv_octets = GCM_ICV_OCTETS
        aead = AESGCM(key_and_salt[:-SALT_OCTETS])
        self._encrypt, self._decrypt = aead.encrypt_into, aead.decrypt_into
        self._salt_octets = key_and_salt[-SALT_OCTETS:]
        self._salt = int.from_bytes(self._salt_octets, "big") << 64

    def seal_into(
        self, source: memoryview, start: int, end: int, target: memoryview, at: int, spi: int, sequence: int, iv: int
    ) -> int:
        _HEADER_AND_IV.pack_into(target, at, spi, sequence, iv)
        behind = at + 16 + end - start
        target[at + 16 : behind] = source[start:end]
        nonce = (self._salt | iv).to_bytes(12, "big")
        self._encrypt(nonce, b"", target[at:behind], target[behind : behind + 16])
        return behind + 16

    def open_into(self, source: memoryview, start: int, end: int, target: memoryview, at: int) -> int:
        data, behind = start + 16, end - 16
        nonce = self._salt_octets + source[start + 8 : data]
        try:
            self._decrypt(nonce, source[behind:end], source[start:behind], target[at:at])
        except InvalidTag:
            raise DropPacket(DropReason.MAC_ERROR) from None
        finish = at + behind - data
        target[at:finish] = source[data:behind]
        return finish


class Cbc:
    """AES-CBC or 3DES-CBC, then HMAC over SPI to NextHeader (RFC 3602, 2451, 2404, 4868)."""

    __slots__ = ("_mac", "_pool", "_pooled", "_random", "_stream", "block", "icv_octets", "iv_octets")

    def __init__(self, transform: TransformSet, key: bytes, integrity_key: bytes, random: RandomSource) -> None:
        name, self.icv_octets = INTEGRITY[transform.integrity]
        self._mac = crypto.HmacKey(name, integrity_key).of
        self._stream = crypto.CbcStream(BLOCK_CIPHERS[transform.cipher], key)
        self.block = self.iv_octets = self._stream.block
        self._random = random
        self._pool, self._pooled = b"", 0

    def seal_into(
        self, source: memoryview, start: int, end: int, target: memoryview, at: int, spi: int, sequence: int, iv: int
    ) -> int:
        block = self.block
        if self._pooled == len(self._pool):
            self._pool, self._pooled = self._random(RANDOM_BLOCKS * block), 0
        behind = self._pooled + block
        first = start - block
        source[first:start] = self._pool[self._pooled : behind]
        self._pooled = behind
        _HEADER.pack_into(target, at, spi, sequence)
        covered = at + 8 + end - first
        self._stream.encrypt_into(source[first:end], target[at + 8 : covered + block - 1])
        return _append_icv(self._mac, target, at, covered, self.icv_octets)

    def open_into(self, source: memoryview, start: int, end: int, target: memoryview, at: int) -> int:
        block = self.block
        covered = end - self.icv_octets
        _check_icv(self._mac, source, start, covered, end)
        size = covered - start - 8
        if size % block:
            raise DropPacket(DropReason.MALFORMED, "the ciphertext is not whole blocks")
        first = at - block
        self._stream.decrypt_into(source[start + 8 : covered], target[first : first + size + block - 1])
        return first + size


class NullCipher:
    """No encryption, and HMAC over SPI to NextHeader (RFC 2410)."""

    __slots__ = ("_mac", "block", "icv_octets", "iv_octets")

    def __init__(self, transform: TransformSet, integrity_key: bytes) -> None:
        name, self.icv_octets = INTEGRITY[transform.integrity]
        self._mac = crypto.HmacKey(name, integrity_key).of
        self.block, self.iv_octets = 4, 0

    def seal_into(
        self, source: memoryview, start: int, end: int, target: memoryview, at: int, spi: int, sequence: int, iv: int
    ) -> int:
        _HEADER.pack_into(target, at, spi, sequence)
        covered = at + 8 + end - start
        target[at + 8 : covered] = source[start:end]
        return _append_icv(self._mac, target, at, covered, self.icv_octets)

    def open_into(self, source: memoryview, start: int, end: int, target: memoryview, at: int) -> int:
        covered = end - self.icv_octets
        _check_icv(self._mac, source, start, covered, end)
        finish = at + covered - start - 8
        target[at:finish] = source[start + 8 : covered]
        return finish


_Mac = Callable[[memoryview], bytes]


def _append_icv(mac: _Mac, target: memoryview, at: int, covered: int, octets: int) -> int:
    finish = covered + octets
    target[covered:finish] = mac(target[at:covered])[:octets]
    return finish


def _check_icv(mac: _Mac, source: memoryview, start: int, covered: int, end: int) -> None:
    if not crypto.equal(mac(source[start:covered])[: end - covered], bytes(source[covered:end])):
        raise DropPacket(DropReason.MAC_ERROR)


def cipher_for(transform: TransformSet, encryption_key: bytes, integrity_key: bytes, random: RandomSource) -> EspCipher:
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
    if transform.cipher is Cipher.NULL:
        return NullCipher(transform, integrity_key)
    return Cbc(transform, encryption_key, integrity_key, random)
