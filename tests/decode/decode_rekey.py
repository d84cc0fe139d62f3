"""A rekey, for what reads one."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from random import Random

from labctl import crypto
from labctl.configuration import (
    AccessListEntry,
    Action,
    Cipher,
    Encryption,
    GroupIdentity,
    Integrity,
    KeyServerGroup,
    RekeyPolicy,
    SaIpsec,
    TransformSet,
)
from labctl.decode import RekeyKey
from labctl.gdoi import push
from labctl.gdoi.group import Group
from labctl.gdoi.payloads import KeyDownload
from labctl.gdoi.timing import Timing

KS, GM = IPv4Address("10.0.0.1"), IPv4Address("10.0.0.2")
POLICY = (
    AccessListEntry(Action.DENY, 6, IPv4Network("0.0.0.0/0"), IPv4Network("0.0.0.0/0"), 0, 179),
    AccessListEntry(Action.PERMIT, 0, IPv4Network("10.1.0.0/16"), IPv4Network("10.1.0.0/16")),
)


def rekey(encryption: Encryption = Encryption.AES_CBC, key_bits: int = 256) -> tuple[bytes, RekeyKey]:
    """A rekey as a key server sends it, and its key as the key log has it."""
    policy = RekeyPolicy(encryption=encryption, key_bits=key_bits)
    transform = TransformSet(Cipher.AES_CBC, 256, Integrity.SHA256)
    configuration = KeyServerGroup("G", GroupIdentity(1234), KS, (SaIpsec(POLICY, transform),), rekey=policy)
    signing_key = crypto.generate_rsa_key()
    group = Group(configuration, Random(3).randbytes, signing_key, Timing())
    group.renew(0)
    kek = group.kek
    assert kek is not None
    told = push.Push(7, (), group.sa_payload(0, private=True), KeyDownload(group.key_packets()))
    return push.build(told, kek, signing_key), RekeyKey(kek.spi, kek.iv, kek.key)
