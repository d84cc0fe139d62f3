"""One key of a key tree, and how it travels (RFC 6407 5.6.3; reference 5).

The RFC leaves open how a key is encrypted under another: here in CBC mode with the other's own IV, over IV | key, which
must be whole blocks. So an AES key of 192 bits (40 octets with its IV) is in no tree.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from labctl import crypto
from labctl.configuration import Encryption
from labctl.gdoi import numbers
from labctl.gdoi.payloads.lkh_key import LkhKey
from labctl.gdoi.payloads.lkh_update import LkhUpdateArray
from labctl.isakmp.errors import MalformedMessage

# Nodes are numbered as in a heap: the children of node n are 2n and 2n + 1 (reference 5, choice).
ROOT = 1

HANDLE_OCTETS = 4

CIPHERS = {Encryption.AES_CBC: crypto.BlockCipher.AES, Encryption.TRIPLE_DES: crypto.BlockCipher.TRIPLE_DES}


def iv_octets(encryption: Encryption) -> int:
    """Octets of the IV in front of a key."""
    return crypto.block_size(CIPHERS[encryption])


def fits_tree(encryption: Encryption, key_bits: int) -> bool:
    """Are an IV and a key of this size whole blocks, so that one key can be encrypted under another?"""
    return encryption is Encryption.TRIPLE_DES or key_bits % (8 * iv_octets(encryption)) == 0


@dataclass(frozen=True, slots=True)
class TreeKey:
    """The key of node `lkh_id`. `handle` is another for each key that the node ever has."""

    lkh_id: int
    handle: int
    encryption: Encryption
    iv: bytes = field(repr=False)
    key: bytes = field(repr=False)

    @classmethod
    def of_root(cls, spi: bytes, encryption: Encryption, octets: bytes) -> TreeKey:
        """The group's KEK, IV | key, as the root of its tree. Its SPI is random, so a part of it serves as handle."""
        handle, size = int.from_bytes(spi[:HANDLE_OCTETS], "big"), iv_octets(encryption)
        return cls(ROOT, handle, encryption, octets[:size], octets[size:])

    @property
    def octets(self) -> bytes:
        """IV | key, as it travels in clear."""
        return self.iv + self.key

    def in_clear(self) -> LkhKey:
        """An entry of a registration."""
        return LkhKey(self.lkh_id, numbers.KEK_ALGORITHMS[self.encryption], self.handle, self.octets)

    def wrapped(self, under: TreeKey) -> LkhKey:
        """An entry of an update: encrypted under another key."""
        data = crypto.cbc_encrypt(CIPHERS[under.encryption], under.key, under.iv, self.octets)
        return LkhKey(self.lkh_id, numbers.KEK_ALGORITHMS[self.encryption], self.handle, data)


def read_key(entry: LkhKey, encryption: Encryption, under: TreeKey | None = None) -> TreeKey:
    """The key in an entry, decrypted where it is `under` another. Raises MalformedMessage for another key type, and for
    what is not whole blocks."""
    if entry.kind != numbers.KEK_ALGORITHMS[encryption]:
        raise MalformedMessage(f"an LKH key of type {entry.kind} under a KEK of another")
    data = entry.data
    if under is not None:
        if len(data) % iv_octets(under.encryption):
            raise MalformedMessage(f"an encrypted LKH key of {len(data)} octets, which are not whole blocks")
        data = crypto.cbc_decrypt(CIPHERS[under.encryption], under.key, under.iv, data)
    size = iv_octets(encryption)
    return TreeKey(entry.lkh_id, entry.handle, encryption, data[:size], data[size:])


def update_array(header: TreeKey, keys: Iterable[TreeKey]) -> LkhUpdateArray:
    """New keys, each encrypted under the one before it, the first under `header`."""
    entries, under = [], header
    for key in keys:
        entries.append(key.wrapped(under))
        under = key
    return LkhUpdateArray(header.lkh_id, header.handle, tuple(entries))
