"""Keys of GDOI that Wireshark has no table for: lines of the key log's `gdoi_kek` and `gdoi_exchange`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from labctl import crypto
from labctl.configuration import Hash


class KeyLineError(ValueError):
    """A line that is no key."""


def _cipher_of(block: bytes) -> crypto.BlockCipher:
    """The cipher with blocks of this size."""
    aes = crypto.block_size(crypto.BlockCipher.AES)
    return crypto.BlockCipher.AES if len(block) == aes else crypto.BlockCipher.TRIPLE_DES


@dataclass(frozen=True, slots=True)
class RekeyKey:
    """A KEK: the cookies of its rekeys, the one IV of its messages (RFC 6407 5.6.2), the key."""

    spi: bytes
    iv: bytes = field(repr=False)
    key: bytes = field(repr=False)

    @property
    def cipher(self) -> crypto.BlockCipher:
        """By the size of the IV: keys of 24 octets are of both kinds."""
        return _cipher_of(self.iv)


def read_rekey_keys(lines: Iterable[str]) -> dict[bytes, RekeyKey]:
    """KEKs by SPI, of the key log's `gdoi_kek`. Raises KeyLineError with the number of the line."""
    found = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            spi, iv, key = (bytes.fromhex(word) for word in line.strip().split(","))
            if len(spi) != 16 or len(iv) not in (8, 16) or len(key) not in (16, 24, 32):
                raise ValueError
        except ValueError:
            raise KeyLineError(f"line {number} is not SPI, IV and key in hexadecimal digits") from None
        found[spi] = RekeyKey(spi, iv, key)
    return found


@dataclass(frozen=True, slots=True)
class ExchangeKey:
    """A phase 1: its cookies and cipher key, and where the IVs of its exchanges come from (RFC 2409 appendix B)."""

    cookies: bytes
    hash: Hash
    last_block: bytes = field(repr=False)
    key: bytes = field(repr=False)

    @property
    def cipher(self) -> crypto.BlockCipher:
        """By the size of its block."""
        return _cipher_of(self.last_block)

    def first_iv(self, message_id: int) -> bytes:
        """Of the first message of an exchange."""
        return crypto.digest(self.hash, self.last_block, message_id.to_bytes(4, "big"))[: len(self.last_block)]


def read_exchange_keys(lines: Iterable[str]) -> dict[bytes, ExchangeKey]:
    """Phase 1 by cookies, of the key log's `gdoi_exchange`. Raises KeyLineError with the number of the line."""
    found = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            first, name, *rest = line.strip().split(",")
            cookies, (block, key) = bytes.fromhex(first), (bytes.fromhex(word) for word in rest)
            if len(cookies) != 16 or len(block) not in (8, 16) or len(key) not in (16, 24, 32):
                raise ValueError
            found[cookies] = ExchangeKey(cookies, Hash(name), block, key)
        except ValueError:
            raise KeyLineError(f"line {number} is not cookies, hash, last block and key") from None
    return found
