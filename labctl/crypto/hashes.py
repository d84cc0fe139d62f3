"""Hashes and HMAC by the names of `configuration.Hash`."""

from __future__ import annotations

from cryptography.hazmat.primitives import constant_time, hashes
from cryptography.hazmat.primitives.hmac import HMAC

from labctl.configuration import Hash

ALGORITHMS: dict[Hash, hashes.HashAlgorithm] = {
    Hash.MD5: hashes.MD5(),
    Hash.SHA1: hashes.SHA1(),
    Hash.SHA256: hashes.SHA256(),
    Hash.SHA384: hashes.SHA384(),
    Hash.SHA512: hashes.SHA512(),
}


def size(name: Hash) -> int:
    """Octets of a digest."""
    return ALGORITHMS[name].digest_size


def digest(name: Hash, *parts: bytes) -> bytes:
    """Hash of the parts, one after the other."""
    context = hashes.Hash(ALGORITHMS[name])
    for part in parts:
        context.update(part)
    return context.finalize()


def hmac(name: Hash, key: bytes, *parts: bytes) -> bytes:
    """HMAC of the parts, full length (RFC 2104); this is IKEv1's prf (RFC 2409 section 4)."""
    context = HMAC(key, ALGORITHMS[name])
    for part in parts:
        context.update(part)
    return context.finalize()


def equal(left: bytes, right: bytes) -> bool:
    """Compare in a time that does not depend on the content."""
    return constant_time.bytes_eq(left, right)


class HmacKey:
    """HMAC of many messages under one key (RFC 2104): what the key costs is paid once."""

    __slots__ = ("_keyed",)

    def __init__(self, name: Hash, key: bytes) -> None:
        self._keyed = HMAC(key, ALGORITHMS[name])

    def of(self, message: bytes | memoryview) -> bytes:
        """The HMAC, full length."""
        context = self._keyed.copy()
        context.update(message)
        return context.finalize()
