"""CBC mode of AES and 3DES, without padding: ISAKMP and ESP pad by rules of their own."""

from __future__ import annotations

from enum import Enum

from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives.ciphers import Cipher, modes
from cryptography.hazmat.primitives.ciphers.algorithms import AES


class BlockCipher(Enum):
    """Block ciphers that protect ISAKMP, rekeys and ESP."""

    AES = "aes"
    TRIPLE_DES = "3des"


def block_size(cipher: BlockCipher) -> int:
    """Octets of a block, which is also the size of an IV."""
    return 16 if cipher is BlockCipher.AES else 8


def _context(cipher: BlockCipher, key: bytes, iv: bytes) -> Cipher[modes.CBC]:
    algorithm = AES(key) if cipher is BlockCipher.AES else TripleDES(key)
    return Cipher(algorithm, modes.CBC(iv))


def cbc_encrypt(cipher: BlockCipher, key: bytes, iv: bytes, plaintext: bytes) -> bytes:
    """Encrypt whole blocks. Raises ValueError where key, IV or data have the wrong size."""
    context = _context(cipher, key, iv).encryptor()
    return context.update(plaintext) + context.finalize()


def cbc_decrypt(cipher: BlockCipher, key: bytes, iv: bytes, ciphertext: bytes) -> bytes:
    """Decrypt whole blocks. Raises ValueError where key, IV or data have the wrong size."""
    context = _context(cipher, key, iv).decryptor()
    return context.update(ciphertext) + context.finalize()
