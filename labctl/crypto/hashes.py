"""Hashes and HMAC by the names of `configuration.Hash`.

Python's own `hashlib` and `hmac` (OpenSSL underneath) have one call for a whole digest: every datagram is hashed, and
setting up a context costs more than hashing a kilobyte.
"""

from __future__ import annotations

import hashlib
import hmac as library
from collections.abc import Callable
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.hmac import HMAC

from labctl.configuration import Hash

ALGORITHMS: dict[Hash, hashes.HashAlgorithm] = {
    Hash.MD5: hashes.MD5(),
    Hash.SHA1: hashes.SHA1(),
    Hash.SHA256: hashes.SHA256(),
    Hash.SHA384: hashes.SHA384(),
    Hash.SHA512: hashes.SHA512(),
}


_CONSTRUCTORS: dict[Hash, Callable[[bytes], Any]] = {
    Hash.MD5: lambda data: hashlib.md5(data, usedforsecurity=False),
    Hash.SHA1: lambda data: hashlib.sha1(data, usedforsecurity=False),
    Hash.SHA256: hashlib.sha256,
    Hash.SHA384: hashlib.sha384,
    Hash.SHA512: hashlib.sha512,
}
_NAMES = {Hash.MD5: "md5", Hash.SHA1: "sha1", Hash.SHA256: "sha256", Hash.SHA384: "sha384", Hash.SHA512: "sha512"}


def size(name: Hash) -> int:
    """Octets of a digest."""
    return ALGORITHMS[name].digest_size


def digest(name: Hash, *parts: bytes) -> bytes:
    """Hash of the parts, one after the other."""
    found: bytes = _CONSTRUCTORS[name](b"".join(parts)).digest()
    return found


def hmac(name: Hash, key: bytes, *parts: bytes) -> bytes:
    """HMAC of the parts, full length (RFC 2104); this is IKEv1's prf (RFC 2409 section 4)."""
    return library.digest(key, b"".join(parts), _NAMES[name])


def equal(left: bytes, right: bytes) -> bool:
    """Compare in a time that does not depend on the content."""
    return library.compare_digest(left, right)


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
