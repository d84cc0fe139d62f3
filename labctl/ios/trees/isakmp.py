"""Phase 1: `crypto isakmp`, `crypto call admission` (reference/cisco-getvpn.md 1.3)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from labctl.configuration import (
    Authentication,
    DhGroup,
    Encryption,
    Hash,
    IsakmpPolicy,
    IsakmpSettings,
    Keepalive,
    NodeConfiguration,
    PreSharedKey,
)
from labctl.ios.grammar.arguments import Address, Integer, Word
from labctl.ios.grammar.command import Command
from labctl.ios.grammar.language import GLOBAL, Tree
from labctl.ios.meaning import Notes, Part
from labctl.ios.running import Section

POLICY_MODE = "isakmp-policy"

# What a policy is that says nothing of it: those of newer releases, as far as labctl has them.
OMITTED = IsakmpPolicy(
    encryption=Encryption.AES_CBC,
    key_bits=128,
    hash=Hash.SHA1,
    group=DhGroup.MODP1536,
    authentication=Authentication.RSA_SIG,
)

_CRYPTO = {"crypto": "Encryption module", "isakmp": "Configure ISAKMP policy"}

POLICY = Command(
    "crypto isakmp policy {priority}",
    {"priority": Integer(1, 10000, "Priority of protection suite")},
    key=("priority",),
    mode=POLICY_MODE,
    sort=True,
    helps={**_CRYPTO, "policy": "Set policy for an ISAKMP protection suite"},
)
KEY = Command(
    "crypto isakmp key [0:_] {secret} address {address}",
    {"secret": Word("The UNENCRYPTED (cleartext) user password"), "address": Address("Peer IP address")},
    key=("address",),
    helps={
        **_CRYPTO,
        "key": "Set pre-shared key for remote peer",
        "0": "Specifies an UNENCRYPTED password will follow",
        "address": "Define shared key with IP address",
    },
)
ENCRYPTED_KEY = Command(
    "crypto isakmp key 6 {secret} address {address}",
    KEY.arguments,
    key=("address",),
    helps={"6": "Specifies an ENCRYPTED password will follow"},
    unsupported=True,
)
KEEPALIVE = Command(
    "crypto isakmp keepalive {interval} [{retry}] [periodic | on-demand]",
    {
        "interval": Integer(10, 3600, "Number of seconds between keep alives"),
        "retry": Integer(2, 60, "Number of seconds between retries if keepalive fails"),
    },
    helps={
        **_CRYPTO,
        "keepalive": "Set a keepalive interval for use with IOS peers",
        "periodic": "Send keepalive messages periodically",
        "on-demand": "Send keepalive messages when there is something to send",
    },
)
ADMISSION = Command(
    "crypto call admission limit ike in-negotiation-sa {number}",
    {"number": Integer(10, 99999, "Number of exchanges under way")},
    default={"number": IsakmpSettings().admission},
    helps={
        "crypto": "Encryption module",
        "call": "Configure crypto call admission control",
        "admission": "Configure crypto call admission control",
        "limit": "Configure limits",
        "ike": "Configure limits of IKE",
        "in-negotiation-sa": "Limit exchanges under way",
    },
)
ENCRYPTION = Command(
    "encryption (aes:aes [128:_ | 192 | 256] | 3des)",
    default={"aes": True},
    helps={
        "encryption": "Set encryption algorithm for protection suite",
        "aes": "AES - Advanced Encryption Standard.",
        "3des": "Three key triple DES",
        "128": "128 bit keys.",
        "192": "192 bit keys.",
        "256": "256 bit keys.",
    },
)
HASH = Command(
    "hash (sha | sha256 | sha384 | sha512)",
    default={"sha": True},
    helps={
        "hash": "Set hash algorithm for protection suite",
        "sha": "Secure Hash Standard",
        "sha256": "Secure Hash Standard 2 (256 bit)",
        "sha384": "Secure Hash Standard 2 (384 bit)",
        "sha512": "Secure Hash Standard 2 (512 bit)",
    },
)
AUTHENTICATION = Command(
    "authentication (pre-share | rsa-sig | ecdsa-sig)",
    default={"rsa-sig": True},
    helps={
        "authentication": "Set authentication method for protection suite",
        "pre-share": "Pre-Shared Key",
        "rsa-sig": "Rivest-Shamir-Adleman Signature",
        "ecdsa-sig": "ECDSA Signature",
    },
)
_GROUPS = {group.value: group for group in DhGroup if group is not DhGroup.MODP768}
GROUP = Command(
    f"group ({' | '.join(map(str, _GROUPS))})",
    default={str(OMITTED.group.value): True},
    helps={
        "group": "Set the Diffie-Hellman group",
        **{str(number): f"Diffie-Hellman group {number}" for number in _GROUPS},
    },
)
LIFETIME = Command(
    "lifetime {seconds}",
    {"seconds": Integer(60, 86400, "Lifetime in seconds")},
    default={"seconds": OMITTED.lifetime},
    helps={"lifetime": "Set lifetime for ISAKMP security association"},
)

TREE = Tree(
    {
        GLOBAL: (POLICY, KEY, ENCRYPTED_KEY, KEEPALIVE, ADMISSION),
        POLICY_MODE: (ENCRYPTION, HASH, AUTHENTICATION, GROUP, LIFETIME),
    },
    {POLICY_MODE: "config-isakmp"},
)


def write(node: NodeConfiguration) -> Iterator[str]:
    """Its lines."""
    for policy in node.isakmp_policies:
        yield f"crypto isakmp policy {policy.priority}"
        yield f" encryption {encryption(policy.encryption, policy.key_bits)}"
        yield f" hash {policy.hash.value}"
        yield f" authentication {policy.authentication.value}"
        yield f" group {policy.group.value}"
        yield f" lifetime {policy.lifetime}"
    for key in node.pre_shared_keys:
        yield f"crypto isakmp key {key.secret.decode()} address {key.peer}"
    if (keepalive := node.isakmp.keepalive) is not None:
        periodic = " periodic" if keepalive.periodic else ""
        yield f"crypto isakmp keepalive {keepalive.interval} {keepalive.retry}{periodic}"
    yield f"crypto call admission limit ike in-negotiation-sa {node.isakmp.admission}"


def read(root: Section, node: NodeConfiguration, notes: Notes) -> NodeConfiguration:
    """What it says."""
    keys = [PreSharedKey(item.values["address"], item.values["secret"].encode()) for item in root.all(KEY)]
    keepalive = root.one(KEEPALIVE)
    admission = root.one(ADMISSION)
    return replace(
        node,
        isakmp_policies=tuple(
            _policy(item.values["priority"], item.section)
            for item in sorted(root.all(POLICY), key=lambda item: int(item.values["priority"]))
            if item.section is not None
        ),
        pre_shared_keys=tuple(keys),
        isakmp=IsakmpSettings(
            keepalive=None
            if keepalive is None
            else Keepalive(keepalive["interval"], keepalive.get("retry", 2), "periodic" in keepalive),
            admission=IsakmpSettings().admission if admission is None else admission["number"],
        ),
    )


PART = Part(TREE, write, read)


def encryption(cipher: Encryption, bits: int) -> str:
    """`aes 256`, `3des`."""
    return f"aes {bits}" if cipher is Encryption.AES_CBC else cipher.value


def cipher_of(values: dict[str, object]) -> tuple[Encryption, int]:
    """The values of ENCRYPTION's shape: cipher and key bits."""
    if "3des" in values:
        return Encryption.TRIPLE_DES, 192
    return Encryption.AES_CBC, next((bits for bits in (192, 256) if str(bits) in values), 128)


def _policy(priority: int, section: Section) -> IsakmpPolicy:
    cipher, bits = cipher_of(section.one(ENCRYPTION) or {})
    authentication = section.one(AUTHENTICATION) or {OMITTED.authentication.value: True}
    group = section.one(GROUP) or {str(OMITTED.group.value): True}
    lifetime = section.one(LIFETIME)
    hashes = section.one(HASH) or {OMITTED.hash.value: True}
    return IsakmpPolicy(
        priority=priority,
        encryption=cipher,
        key_bits=bits,
        hash=Hash(next(iter(hashes))),
        group=_GROUPS[int(next(iter(group)))],
        lifetime=OMITTED.lifetime if lifetime is None else lifetime["seconds"],
        authentication=Authentication(next(iter(authentication))),
    )
