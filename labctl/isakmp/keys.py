"""The key schedule of IKEv1 phase 1 (RFC 2409 5, 5.1, 5.4, appendix B)."""

from __future__ import annotations

from dataclasses import dataclass, field

from labctl import crypto
from labctl.configuration import Encryption, Hash

CIPHERS = {Encryption.AES_CBC: crypto.BlockCipher.AES, Encryption.TRIPLE_DES: crypto.BlockCipher.TRIPLE_DES}

TRIPLE_DES_KEY_OCTETS = 24


@dataclass(frozen=True, slots=True)
class Phase1Keys:
    """What both sides share after messages 3 and 4. Never printed."""

    hash: Hash
    cipher: crypto.BlockCipher
    skeyid: bytes = field(repr=False)
    skeyid_d: bytes = field(repr=False)
    skeyid_a: bytes = field(repr=False)
    skeyid_e: bytes = field(repr=False)
    cipher_key: bytes = field(repr=False)

    @property
    def block(self) -> int:
        """Octets of a cipher block."""
        return crypto.block_size(self.cipher)


def skeyid_from_psk(name: Hash, psk: bytes, nonce_i: bytes, nonce_r: bytes) -> bytes:
    """SKEYID = prf(psk, Ni_b | Nr_b) (RFC 2409 5.4)."""
    return crypto.hmac(name, psk, nonce_i, nonce_r)


def skeyid_from_signatures(name: Hash, shared_secret: bytes, nonce_i: bytes, nonce_r: bytes) -> bytes:
    """SKEYID = prf(Ni_b | Nr_b, g^xy), where signatures prove who the peers are (RFC 2409 5.1)."""
    return crypto.hmac(name, nonce_i + nonce_r, shared_secret)


def expand_cipher_key(name: Hash, skeyid_e: bytes, octets: int) -> bytes:
    """The cipher key: the first octets of SKEYID_e, or of K1 | K2 | ... where that is too short (appendix B)."""
    if len(skeyid_e) >= octets:
        return skeyid_e[:octets]
    block = crypto.hmac(name, skeyid_e, b"\x00")
    key = block
    while len(key) < octets:
        block = crypto.hmac(name, skeyid_e, block)
        key += block
    return key[:octets]


def derive(
    name: Hash, cipher: crypto.BlockCipher, key_octets: int, skeyid: bytes, shared_secret: bytes, cookies: bytes
) -> Phase1Keys:
    """SKEYID_d, _a, _e and the cipher key. `cookies` is CKY-I | CKY-R."""
    skeyid_d = crypto.hmac(name, skeyid, shared_secret, cookies, b"\x00")
    skeyid_a = crypto.hmac(name, skeyid, skeyid_d, shared_secret, cookies, b"\x01")
    skeyid_e = crypto.hmac(name, skeyid, skeyid_a, shared_secret, cookies, b"\x02")
    cipher_key = expand_cipher_key(name, skeyid_e, key_octets)
    return Phase1Keys(name, cipher, skeyid, skeyid_d, skeyid_a, skeyid_e, cipher_key)


def hash_of_initiator(
    keys: Phase1Keys, public_i: bytes, public_r: bytes, cookies: bytes, offer_body: bytes, id_body: bytes
) -> bytes:
    """HASH_I. `offer_body` is the body of the SA payload of message 1 (RFC 2409 5)."""
    return crypto.hmac(keys.hash, keys.skeyid, public_i, public_r, cookies, offer_body, id_body)


def hash_of_responder(
    keys: Phase1Keys, public_i: bytes, public_r: bytes, cookies: bytes, offer_body: bytes, id_body: bytes
) -> bytes:
    """HASH_R: public values and cookies change places, the offer stays the initiator's."""
    return crypto.hmac(keys.hash, keys.skeyid, public_r, public_i, cookies[8:], cookies[:8], offer_body, id_body)


def phase1_iv(keys: Phase1Keys, public_i: bytes, public_r: bytes) -> bytes:
    """IV of message 5: hash(g^xi | g^xr), truncated (appendix B)."""
    return crypto.digest(keys.hash, public_i, public_r)[: keys.block]


def exchange_iv(keys: Phase1Keys, last_block: bytes, message_id: int) -> bytes:
    """First IV of a later exchange: hash(last phase-1 block | Message-ID), truncated (appendix B)."""
    return crypto.digest(keys.hash, last_block, message_id.to_bytes(4, "big"))[: keys.block]


def seal(keys: Phase1Keys, iv: bytes, plaintext: bytes) -> bytes:
    """Zero-pad to whole blocks and encrypt."""
    padding = -len(plaintext) % keys.block
    return crypto.cbc_encrypt(keys.cipher, keys.cipher_key, iv, plaintext + bytes(padding))


def unseal(keys: Phase1Keys, iv: bytes, ciphertext: bytes) -> bytes:
    """Decrypt; the padding stays. Raises ValueError unless there are whole blocks."""
    if not ciphertext or len(ciphertext) % keys.block:
        raise ValueError(f"{len(ciphertext)} octets are not whole blocks")
    return crypto.cbc_decrypt(keys.cipher, keys.cipher_key, iv, ciphertext)
