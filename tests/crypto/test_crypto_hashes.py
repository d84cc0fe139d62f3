"""Hashes and HMAC against FIPS 180-4's examples, RFC 1321, RFC 2202 and RFC 4231."""

from __future__ import annotations

import pytest

from labctl import crypto
from labctl.configuration import Hash

# RFC 1321 A.5 and FIPS 180-4: the digest of "abc".
DIGESTS = {
    Hash.MD5: "900150983cd24fb0d6963f7d28e17f72",
    Hash.SHA1: "a9993e364706816aba3e25717850c26c9cd0d89d",
    Hash.SHA256: "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
    Hash.SHA384: "cb00753f45a35e8bb5a03d699ac65007272c32ab0eded1631a8b605a43ff5bed8086072ba1e7cc2358baeca134c825a7",
    Hash.SHA512: "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a"
    "2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f",
}

# (hash, key, data, HMAC): RFC 2202 2 and 3, RFC 4231 4.2 to 4.7.
HMACS = [
    (Hash.MD5, b"\x0b" * 16, b"Hi There", "9294727a3638bb1c13f48ef8158bfc9d"),
    (
        Hash.MD5,
        b"\xaa" * 80,
        b"Test Using Larger Than Block-Size Key - Hash Key First",
        "6b1ab7fe4bd7bf8f0b62e6ce61b9d0cd",
    ),
    (Hash.SHA1, b"\x0b" * 20, b"Hi There", "b617318655057264e28bc0b6fb378c8ef146be00"),
    (Hash.SHA1, b"Jefe", b"what do ya want for nothing?", "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79"),
    (
        Hash.SHA1,
        b"\xaa" * 80,
        b"Test Using Larger Than Block-Size Key - Hash Key First",
        "aa4ae5e15272d00e95705637ce8a3b55ed402112",
    ),
    (
        Hash.SHA256,
        b"\x0b" * 20,
        b"Hi There",
        "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7",
    ),
    (
        Hash.SHA256,
        b"Jefe",
        b"what do ya want for nothing?",
        "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
    ),
    (
        Hash.SHA256,
        b"\xaa" * 131,
        b"Test Using Larger Than Block-Size Key - Hash Key First",
        "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
    ),
    (
        Hash.SHA384,
        b"Jefe",
        b"what do ya want for nothing?",
        "af45d2e376484031617f78d2b58a6b1b9c7ef464f5a01b47e42ec3736322445e8e2240ca5e69e2c78b3239ecfab21649",
    ),
    (
        Hash.SHA384,
        b"\xaa" * 131,
        b"Test Using Larger Than Block-Size Key - Hash Key First",
        "4ece084485813e9088d2c63a041bc5b44f9ef1012a2b588f3cd11f05033ac4c60c2ef6ab4030fe8296248df163f44952",
    ),
    (
        Hash.SHA512,
        b"Jefe",
        b"what do ya want for nothing?",
        "164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea250554"
        "9758bf75c05a994a6d034f65f8f0e6fdcaeab1a34d4a6b4b636e070a38bce737",
    ),
    (
        Hash.SHA512,
        b"\xaa" * 131,
        b"Test Using Larger Than Block-Size Key - Hash Key First",
        "80b24263c7c1a3ebb71493c1dd7be8b49b46d1f41b4aeec1121b013783f8f352"
        "6b56d037e05f2598bd0fd2215d6a1e5295e64f73f63f0aec8b915a985d786598",
    ),
]


@pytest.mark.parametrize("name", Hash)
def test_digests_are_those_of_the_standards(name: Hash) -> None:
    assert crypto.digest(name, b"abc").hex() == DIGESTS[name]
    assert crypto.size(name) == len(DIGESTS[name]) // 2


@pytest.mark.parametrize(("name", "key", "data", "expected"), HMACS)
def test_hmacs_are_those_of_the_standards(name: Hash, key: bytes, data: bytes, expected: str) -> None:
    assert crypto.hmac(name, key, data).hex() == expected


@pytest.mark.parametrize("name", Hash)
def test_parts_count_as_if_they_stood_in_one_piece(name: Hash) -> None:
    assert crypto.digest(name, b"a", b"", b"bc") == crypto.digest(name, b"abc")
    assert crypto.hmac(name, b"key", b"a", b"", b"bc") == crypto.hmac(name, b"key", b"abc")


def test_only_equal_octets_are_equal() -> None:
    assert crypto.equal(b"abc", b"abc")
    assert not crypto.equal(b"abc", b"abd")
    assert not crypto.equal(b"abc", b"abcd")
