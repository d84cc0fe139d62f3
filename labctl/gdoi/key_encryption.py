"""The KEK that a configuration asks for: making one, and telling whether one is still what is asked for.

RFC 6407 5.3, 5.6.3; reference 3.4, 3.7.
"""

from __future__ import annotations

from labctl import crypto
from labctl.configuration import Encryption, KeyServerGroup, RekeyTransport
from labctl.gdoi.payloads.sa_kek import KEK_SPI_OCTETS
from labctl.gdoi.policy import KeyEncryptionKey
from labctl.gdoi.rekeying import ack_type
from labctl.isakmp.main_mode import RandomSource


def new_kek(
    configuration: KeyServerGroup, signing_key: crypto.RsaPrivateKey, random: RandomSource, now: float
) -> KeyEncryptionKey:
    """A KEK for the group, whose rekeys `signing_key` signs."""
    rekey = configuration.rekey
    iv_octets = 16 if rekey.encryption is Encryption.AES_CBC else 8
    key_octets = rekey.key_bits // 8 if rekey.encryption is Encryption.AES_CBC else 24
    return KeyEncryptionKey(
        random(KEK_SPI_OCTETS),
        rekey.encryption,
        random(iv_octets),
        random(key_octets),
        rekey.signature_hash,
        signing_key.public.der,
        rekey.lifetime,
        now + rekey.lifetime,
        source=configuration.address,
        address=rekey.address if rekey.transport is RekeyTransport.MULTICAST else None,
        acknowledgement=ack_type(rekey),
    )


def outdated(kek: KeyEncryptionKey, configuration: KeyServerGroup) -> bool:
    """Does the configuration ask for another KEK than this?"""
    rekey = configuration.rekey
    address = rekey.address if rekey.transport is RekeyTransport.MULTICAST else None
    bits = rekey.key_bits if rekey.encryption is Encryption.AES_CBC else 192
    wanted = (rekey.encryption, bits, rekey.signature_hash, address, ack_type(rekey), rekey.lifetime)
    there = (kek.encryption, len(kek.key) * 8, kek.signature_hash, kek.address, kek.acknowledgement, kek.lifetime)
    return wanted != there
