"""Algorithms, transform sets and access-list entries: the words every room shares.

Names follow Cisco's command language (reference/cisco-getvpn.md 1.2-1.4); wire numbers belong to isakmp/ and gdoi/.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

Network = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address


class Action(Enum):
    """What an access-list entry says: PERMIT encrypts, DENY sends in clear."""

    PERMIT = "permit"
    DENY = "deny"


class Encryption(Enum):
    """IKEv1 phase-1 ciphers (RFC 2409 appendix A). AES takes a key length beside it."""

    TRIPLE_DES = "3des"
    AES_CBC = "aes"


class Authentication(Enum):
    """How peers prove in phase 1 who they are (RFC 2409 5, RFC 4754)."""

    PRE_SHARE = "pre-share"
    RSA_SIG = "rsa-sig"
    ECDSA_SIG = "ecdsa-sig"


class Hash(Enum):
    """Hashes of phase 1 and of rekey signatures. MD5 exists for the reference captures only."""

    MD5 = "md5"
    SHA1 = "sha"
    SHA256 = "sha256"
    SHA384 = "sha384"
    SHA512 = "sha512"


class DhGroup(Enum):
    """Diffie-Hellman groups by IANA number (RFC 2409 6, RFC 3526, RFC 5903)."""

    MODP768 = 1
    MODP1024 = 2
    MODP1536 = 5
    MODP2048 = 14
    MODP3072 = 15
    MODP4096 = 16
    ECP256 = 19
    ECP384 = 20
    ECP521 = 21


class Cipher(Enum):
    """ESP ciphers."""

    NULL = "null"
    TRIPLE_DES = "3des"
    AES_CBC = "aes"
    AES_GCM = "gcm"
    AES_GMAC = "gmac"


class Integrity(Enum):
    """ESP integrity algorithms; NONE goes with GCM and GMAC."""

    NONE = "none"
    MD5 = "md5"
    SHA1 = "sha"
    SHA256 = "sha256"
    SHA384 = "sha384"
    SHA512 = "sha512"


@dataclass(frozen=True, slots=True)
class TransformSet:
    """An IPsec transform set in tunnel mode.

    `key_bits` is the cipher key without salt: 128, 192 or 256 for AES, 192 for 3DES, 0 for NULL.
    """

    cipher: Cipher
    key_bits: int
    integrity: Integrity = Integrity.NONE

    def __str__(self) -> str:
        """The IOS spelling, for example `esp-aes 256 esp-sha256-hmac` or `esp-gcm 128`."""
        cipher = {
            Cipher.NULL: "esp-null",
            Cipher.TRIPLE_DES: "esp-3des",
            Cipher.AES_CBC: f"esp-aes {self.key_bits}",
            Cipher.AES_GCM: f"esp-gcm {self.key_bits}",
            Cipher.AES_GMAC: f"esp-gmac {self.key_bits}",
        }[self.cipher]
        return cipher if self.integrity is Integrity.NONE else f"{cipher} esp-{self.integrity.value}-hmac"

    @property
    def uses_counter_mode(self) -> bool:
        """True where a (key, nonce) pair must never repeat, so that senders need sender IDs (RFC 6054)."""
        return self.cipher in (Cipher.AES_GCM, Cipher.AES_GMAC)


# A GETVPN group has room for so many permit entries, all access lists together (reference/cisco-getvpn.md 2.6).
MOST_PERMITS = 100


@dataclass(frozen=True, slots=True)
class AccessListEntry:
    """One line of a crypto access list: `permit ip 10.1.0.0/16 10.2.0.0/16`.

    `protocol` is an IP protocol number, 0 = `ip` (any); a port of 0 is any. Source and destination are of one family.
    """

    action: Action
    protocol: int
    source: Network
    destination: Network
    source_port: int = 0
    destination_port: int = 0

    def mirrored(self) -> AccessListEntry:
        """The same entry seen from the other side."""
        return AccessListEntry(
            self.action, self.protocol, self.destination, self.source, self.destination_port, self.source_port
        )
