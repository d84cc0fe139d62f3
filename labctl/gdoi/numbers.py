"""GDOI's numbers (RFC 6407 5; reference sections 3 and 12). Private ones go only to peers that announced them."""

from __future__ import annotations

from enum import IntEnum

from labctl.configuration import Cipher, Encryption, Hash, Integrity, ReplayMethod, TransformSet


class SaProtocol(IntEnum):
    """Protocol-ID of SAT and of GDOI's Delete. Delete's 0 is the KEK. BYPASS is ours (reference 3.6)."""

    KEK = 0
    ESP = 1
    AH = 2
    BYPASS = 128


class KekAttribute(IntEnum):
    """Attributes of SAK (RFC 6407 5.3; 9: RFC 8263)."""

    MANAGEMENT_ALGORITHM = 1
    ALGORITHM = 2
    KEY_LENGTH = 3
    KEY_LIFETIME = 4
    SIG_HASH_ALGORITHM = 5
    SIG_ALGORITHM = 6
    SIG_KEY_LENGTH = 7
    ACK_REQUESTED = 9


class GapAttribute(IntEnum):
    """Attributes of GAP (RFC 6407 5.4)."""

    ACTIVATION_TIME_DELAY = 1
    DEACTIVATION_TIME_DELAY = 2
    SENDER_ID_REQUEST = 3


class SaAttribute(IntEnum):
    """IPsec SA attributes of SAT (RFC 2407 4.5; 14 and 15: RFC 6407 8.2; from 32001 on ours)."""

    LIFE_TYPE = 1
    LIFE_DURATION = 2
    GROUP_DESCRIPTION = 3
    ENCAPSULATION_MODE = 4
    AUTHENTICATION_ALGORITHM = 5
    KEY_LENGTH = 6
    ADDRESS_PRESERVATION = 14
    SA_DIRECTION = 15
    REPLAY_MODE = 32001
    REPLAY_WINDOW = 32002
    PSEUDOTIME = 32003
    POLICY_ORDER = 32010


class KdType(IntEnum):
    """Types of key packets (RFC 6407 5.6)."""

    TEK = 1
    KEK = 2
    LKH = 3
    SID = 4


class TekKey(IntEnum):
    """Attributes of a TEK packet."""

    ALGORITHM_KEY = 1
    INTEGRITY_KEY = 2
    SOURCE_AUTH_KEY = 3


class KekKey(IntEnum):
    """Attributes of a KEK packet."""

    ALGORITHM_KEY = 1
    SIG_ALGORITHM_KEY = 2


class LkhAttribute(IntEnum):
    """Attributes of an LKH packet (RFC 6407 5.6.3)."""

    DOWNLOAD_ARRAY = 1
    UPDATE_ARRAY = 2
    SIG_ALGORITHM_KEY = 3


class SidKey(IntEnum):
    """Attributes of a SID packet."""

    NUMBER_OF_SID_BITS = 1
    SID_VALUE = 2


LIFE_SECONDS = 1
TUNNEL_MODE = 1
PRESERVE_BOTH = 4
SENDER_ONLY, RECEIVER_ONLY, SYMMETRIC = 1, 2, 3

# Seconds where a SAT says nothing of its life (RFC 2407 4.5).
DEFAULT_LIFE_SECONDS = 28800

SIGNATURE_RSA = 1

# KEK_MANAGEMENT_ALGORITHM: the new KEK of a rekey comes in arrays of a key tree (RFC 6407 5.3.1).
MANAGEMENT_LKH = 1

# REPLAY_MODE (reference 7.3).
REPLAY_MODES = {ReplayMethod.NONE: 0, ReplayMethod.COUNTER: 1, ReplayMethod.TIME: 2}

# Encryption of the KEK: number, and octets of IV.
KEK_ALGORITHMS = {Encryption.TRIPLE_DES: 2, Encryption.AES_CBC: 3}
SIGNATURE_HASHES = {Hash.MD5: 1, Hash.SHA1: 2, Hash.SHA256: 3, Hash.SHA384: 4, Hash.SHA512: 5}

# ESP transforms (reference 3.6). GMAC's 23 is what a deployed IKEv1 implementation uses.
TRANSFORMS = {Cipher.TRIPLE_DES: 3, Cipher.NULL: 11, Cipher.AES_CBC: 12, Cipher.AES_GCM: 20, Cipher.AES_GMAC: 23}
AUTHENTICATIONS = {
    Integrity.MD5: 1,
    Integrity.SHA1: 2,
    Integrity.SHA256: 5,
    Integrity.SHA384: 6,
    Integrity.SHA512: 7,
}

# RFC 4106 8.1: a counter-mode key travels with a salt of four octets behind it.
SALT_OCTETS = 4
INTEGRITY_OCTETS = {
    Integrity.NONE: 0,
    Integrity.MD5: 16,
    Integrity.SHA1: 20,
    Integrity.SHA256: 32,
    Integrity.SHA384: 48,
    Integrity.SHA512: 64,
}

# Widths of sender IDs that fit the IV's eight octets and leave room to count (RFC 6054 4).
SENDER_ID_BITS = range(1, 33)

# Lifetimes are numbers of 32 bits.
LONGEST_LIFE_SECONDS = 0xFFFFFFFF

# Ciphers whose key length must be said.
SIZED_CIPHERS = (Cipher.AES_CBC, Cipher.AES_GCM, Cipher.AES_GMAC)
AES_KEY_BITS = (128, 192, 256)


def encryption_key_octets(transform: TransformSet) -> int:
    """Octets of cipher key and salt that KD carries for a transform set."""
    if transform.cipher is Cipher.NULL:
        return 0
    salt = SALT_OCTETS if transform.uses_counter_mode else 0
    return transform.key_bits // 8 + salt
