"""Diffie-Hellman groups of IKEv1: MODP (RFC 2409 6, RFC 3526) and ECP (RFC 5903).

The one seam for finite-field Diffie-Hellman, which `cryptography` announces to drop.
The library draws private values from its own random source: the one exception to injected randomness, since a weak
source would be a hole that no test shows. Tests import private values instead.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Protocol

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import dh, ec
from cryptography.utils import CryptographyDeprecationWarning

from labctl.configuration import DhGroup

# The announcement is known and the release range is pinned; users of labctl can do nothing about it.
warnings.filterwarnings("ignore", "Diffie-Hellman over finite fields", CryptographyDeprecationWarning)

# Bits and the constant c of p = 2^n - 2^(n-64) - 1 + 2^64 * (floor(2^(n-130) * pi) + c).
_MODP: dict[DhGroup, tuple[int, int]] = {
    DhGroup.MODP768: (768, 149686),
    DhGroup.MODP1024: (1024, 129093),
    DhGroup.MODP1536: (1536, 741804),
    DhGroup.MODP2048: (2048, 124476),
    DhGroup.MODP3072: (3072, 1690314),
    DhGroup.MODP4096: (4096, 240904),
}

_ECP: dict[DhGroup, tuple[ec.EllipticCurve, int]] = {
    DhGroup.ECP256: (ec.SECP256R1(), 32),
    DhGroup.ECP384: (ec.SECP384R1(), 48),
    DhGroup.ECP521: (ec.SECP521R1(), 66),
}

_GENERATOR = 2

# OpenSSL refuses moduli under 1024 bits; group 1 is computed with Python's own pow, for old captures only.
_SMALLEST_LIBRARY_MODULUS = 1024


class DiffieHellmanError(ValueError):
    """A peer's public value is not one of the group."""


class PrivateValue(Protocol):
    """Our half of one exchange: `public` as KE carries it, `exchange` gives g^xy at its fixed length."""

    @property
    def public(self) -> bytes:
        """KE octets."""

    def exchange(self, peer_public: bytes) -> bytes:
        """g^xy. Raises DiffieHellmanError for a value that is not of the group."""


_primes: dict[DhGroup, int] = {}


def _floor_of_pi(bits: int) -> int:
    """floor(2^bits * pi) by Machin's formula in integers, with guard bits."""
    guard = 64
    one = 1 << (bits + guard)

    def arctangent_of_inverse(x: int) -> int:
        total = term = one // x
        square, divisor, sign = x * x, 3, -1
        while term:
            term //= square
            total += sign * (term // divisor)
            sign, divisor = -sign, divisor + 2
        return total

    return 4 * (4 * arctangent_of_inverse(5) - arctangent_of_inverse(239)) >> guard


def prime(group: DhGroup) -> int:
    """The prime of a MODP group, from its definition (RFC 2409 6, RFC 3526)."""
    if group not in _primes:
        bits, constant = _MODP[group]
        _primes[group] = (1 << bits) - (1 << (bits - 64)) - 1 + (_floor_of_pi(bits - 130) + constant << 64)
    return _primes[group]


def public_length(group: DhGroup) -> int:
    """Octets of a KE payload's body."""
    return _MODP[group][0] // 8 if group in _MODP else 2 * _ECP[group][1]


def secret_length(group: DhGroup) -> int:
    """Octets of g^xy as it enters the key schedule: MODP left-padded, ECP the x coordinate (RFC 5903 9)."""
    return _MODP[group][0] // 8 if group in _MODP else _ECP[group][1]


def _checked(group: DhGroup, public: bytes) -> int:
    if len(public) != public_length(group):
        raise DiffieHellmanError(f"a public value of group {group.value} has {public_length(group)} octets")
    value = int.from_bytes(public, "big")
    if not 1 < value < prime(group) - 1:
        raise DiffieHellmanError("the public value is trivial")
    return value


@dataclass(frozen=True, slots=True)
class _Modp:
    group: DhGroup
    key: dh.DHPrivateKey

    @property
    def public(self) -> bytes:
        return self.key.public_key().public_numbers().y.to_bytes(public_length(self.group), "big")

    def exchange(self, peer_public: bytes) -> bytes:
        value = _checked(self.group, peer_public)
        numbers = dh.DHPublicNumbers(value, dh.DHParameterNumbers(prime(self.group), _GENERATOR))
        try:
            secret = self.key.exchange(numbers.public_key())
        except (ValueError, UnsupportedAlgorithm) as error:
            raise DiffieHellmanError(str(error)) from None
        return secret.rjust(secret_length(self.group), b"\x00")


@dataclass(frozen=True, slots=True)
class _SmallModp:
    group: DhGroup
    exponent: int

    @property
    def public(self) -> bytes:
        return pow(_GENERATOR, self.exponent, prime(self.group)).to_bytes(public_length(self.group), "big")

    def exchange(self, peer_public: bytes) -> bytes:
        value = _checked(self.group, peer_public)
        return pow(value, self.exponent, prime(self.group)).to_bytes(secret_length(self.group), "big")


@dataclass(frozen=True, slots=True)
class _Ecp:
    group: DhGroup
    key: ec.EllipticCurvePrivateKey

    @property
    def public(self) -> bytes:
        numbers = self.key.public_key().public_numbers()
        octets = _ECP[self.group][1]
        return numbers.x.to_bytes(octets, "big") + numbers.y.to_bytes(octets, "big")

    def exchange(self, peer_public: bytes) -> bytes:
        curve, octets = _ECP[self.group]
        if len(peer_public) != 2 * octets:
            raise DiffieHellmanError(f"a public value of group {self.group.value} has {2 * octets} octets")
        x = int.from_bytes(peer_public[:octets], "big")
        y = int.from_bytes(peer_public[octets:], "big")
        try:
            return self.key.exchange(ec.ECDH(), ec.EllipticCurvePublicNumbers(x, y, curve).public_key())
        except ValueError as error:
            raise DiffieHellmanError(f"not a point of the curve: {error}") from None


def generate_private_value(group: DhGroup) -> PrivateValue:
    """A new private value, from the library's random source."""
    if group in _ECP:
        return _Ecp(group, ec.generate_private_key(_ECP[group][0]))
    if _MODP[group][0] < _SMALLEST_LIBRARY_MODULUS:
        exponent = ec.generate_private_key(ec.SECP521R1()).private_numbers().private_value
        return _SmallModp(group, exponent)
    parameters = dh.DHParameterNumbers(prime(group), _GENERATOR).parameters()
    return _Modp(group, parameters.generate_private_key())


def load_private_value(group: DhGroup, exponent: int) -> PrivateValue:
    """A private value that is known: for test vectors. Raises DiffieHellmanError if it is not of the group."""
    try:
        if group in _ECP:
            return _Ecp(group, ec.derive_private_key(exponent, _ECP[group][0]))
        if _MODP[group][0] < _SMALLEST_LIBRARY_MODULUS:
            return _SmallModp(group, exponent)
        parameters = dh.DHParameterNumbers(prime(group), _GENERATOR)
        public = dh.DHPublicNumbers(pow(_GENERATOR, exponent, parameters.p), parameters)
        return _Modp(group, dh.DHPrivateNumbers(exponent, public).private_key())
    except ValueError as error:
        raise DiffieHellmanError(str(error)) from None
