"""Algorithms as text: `esp-gcm 256`, `esp-aes 256 esp-sha256-hmac`, `aes 256`.

Sources: Cisco's `crypto ipsec transform-set` and `crypto isakmp policy` command references; the list of what labctl
encrypts with is that of labctl/esp.
"""

from __future__ import annotations

from labctl.configuration.policy import Cipher, Encryption, Integrity, TransformSet
from labctl.configuration.words import Words, did_you_mean

_CIPHERS = {"esp-gcm": Cipher.AES_GCM, "esp-aes": Cipher.AES_CBC, "esp-3des": Cipher.TRIPLE_DES}
_KEY_BITS = {Cipher.AES_GCM: (128, 256), Cipher.AES_CBC: (128, 192, 256), Cipher.TRIPLE_DES: (192,)}
_INTEGRITY = {
    "esp-sha-hmac": Integrity.SHA1,
    "esp-sha256-hmac": Integrity.SHA256,
    "esp-sha384-hmac": Integrity.SHA384,
    "esp-sha512-hmac": Integrity.SHA512,
}

# What IOS knows and labctl refuses, with the reason.
_REFUSED = {
    "esp-des": "DES is broken and not offered",
    "esp-md5-hmac": "HMAC-MD5 is not offered",
    "esp-null": "a transform without encryption is not offered",
    "esp-gmac": "a transform without encryption is not offered",
    "esp-seal": "SEAL is not offered",
    "ah-sha-hmac": "AH cannot carry GETVPN's tunnel mode",
    "ah-md5-hmac": "AH cannot carry GETVPN's tunnel mode",
}
_EXAMPLES = "for example 'esp-gcm 256' or 'esp-aes 256 esp-sha256-hmac'"


def parse_transform_set(text: str) -> TransformSet:
    """The transform set that `text` says; without a size, AES is 128 bits as on IOS. Raises WordError."""
    words = Words(text)
    name = words.take("a cipher", _EXAMPLES).lower()
    if name in _REFUSED:
        words.fail(f"{name!r}: {_REFUSED[name]}", _EXAMPLES)
    if name in _INTEGRITY:
        words.fail(f"{name!r} comes after the cipher", _EXAMPLES)
    if name not in _CIPHERS:
        words.fail(f"{name!r} is not a cipher", did_you_mean(name, _CIPHERS))
    cipher = _CIPHERS[name]
    bits = _key_bits(words, name, _KEY_BITS[cipher])
    if cipher is Cipher.AES_GCM:
        words.finish("GCM brings its own integrity")
        return TransformSet(cipher, bits)
    word = words.take("an integrity algorithm", did_you_mean("", _INTEGRITY)).lower()
    if word in _REFUSED:
        words.fail(f"{word!r}: {_REFUSED[word]}", did_you_mean("", _INTEGRITY))
    if word not in _INTEGRITY:
        words.fail(f"{word!r} is not an integrity algorithm", did_you_mean(word, _INTEGRITY))
    words.finish(_EXAMPLES)
    return TransformSet(cipher, bits, _INTEGRITY[word])


def parse_encryption(text: str) -> tuple[Encryption, int]:
    """A phase 1 or KEK cipher and its key bits: `aes 256`, `aes`, `3des`. Raises WordError."""
    words = Words(text)
    name = words.take("a cipher", "for example 'aes 256'").lower()
    if name == "3des":
        words.finish("3des has one key size")
        return Encryption.TRIPLE_DES, 192
    if name != "aes":
        refused = "DES is broken and not offered" if name == "des" else "not a cipher of phase 1 or of a KEK"
        words.fail(f"{name!r}: {refused}", "one of: aes 128, aes 192, aes 256, 3des")
    bits = _key_bits(words, name, (128, 192, 256))
    words.finish("one of: aes 128, aes 192, aes 256, 3des")
    return Encryption.AES_CBC, bits


def _key_bits(words: Words, name: str, sizes: tuple[int, ...]) -> int:
    word = words.peek()
    if not (word.isascii() and word.isdigit()):
        return sizes[0]
    words.take("a size")
    if int(word) not in sizes or len(sizes) == 1:
        offered = f"{', '.join(map(str, sizes[:-1]))} or {sizes[-1]}"
        words.fail(
            f"{name} has no key of {word} bits", f"it takes {offered} bits" if len(sizes) > 1 else "leave it out"
        )
    return int(word)
