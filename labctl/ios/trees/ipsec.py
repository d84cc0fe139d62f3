"""`crypto ipsec`: transform sets and profiles, which give a key server its transforms and the life of its TEKs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from labctl.configuration import DfBit, Fragmentation, NodeConfiguration, TransformSet, TunnelSettings
from labctl.configuration.transform_set import parse_transform_set
from labctl.ios.grammar.arguments import Integer, Word
from labctl.ios.grammar.command import Command
from labctl.ios.grammar.language import GLOBAL, Tree
from labctl.ios.meaning import Notes, Part
from labctl.ios.running import Section

TRANSFORM_MODE, PROFILE_MODE = "transform-set", "ipsec-profile"

TEK_LIFETIME = 3600

_INTEGRITY = "(esp-sha-hmac | esp-sha256-hmac | esp-sha384-hmac | esp-sha512-hmac)"
_IPSEC = {"crypto": "Encryption module", "ipsec": "Configure IPSEC policy"}

TRANSFORM_SET = Command(
    "crypto ipsec transform-set {name} (esp-gcm:gcm [128:_ | 256:gcm-256] | "
    f"esp-aes:aes [128:_ | 192 | 256] {_INTEGRITY} | esp-3des:3des {_INTEGRITY})",
    {"name": Word("Transform set tag")},
    key=("name",),
    mode=TRANSFORM_MODE,
    helps={
        **_IPSEC,
        "transform-set": "Define transform and settings",
        "esp-gcm": "ESP transform using GCM cipher",
        "esp-aes": "ESP transform using AES cipher",
        "esp-3des": "ESP transform using 3DES(EDE) cipher (168 bits)",
        "128": "128 bit keys.",
        "192": "192 bit keys.",
        "256": "256 bit keys.",
        "esp-sha-hmac": "ESP transform using HMAC-SHA auth",
        "esp-sha256-hmac": "ESP transform using HMAC-SHA256 auth",
        "esp-sha384-hmac": "ESP transform using HMAC-SHA384 auth",
        "esp-sha512-hmac": "ESP transform using HMAC-SHA512 auth",
    },
)
TUNNEL = Command(
    "mode tunnel",
    default={},
    helps={"mode": "encapsulation mode description", "tunnel": "tunnel (datagram encapsulation) mode"},
)
TRANSPORT = Command("mode transport", helps={"transport": "transport (payload encapsulation) mode"}, unsupported=True)
PROFILE = Command(
    "crypto ipsec profile {name}",
    {"name": Word("Name of profile")},
    key=("name",),
    mode=PROFILE_MODE,
    helps={**_IPSEC, "profile": "Configure an ipsec policy profile"},
)
_SET = {"set": "Set values for encryption/decryption"}
LIFETIME = Command(
    "set security-association lifetime seconds {seconds}",
    {"seconds": Integer(120, 2592000, "Security association duration in seconds")},
    default={"seconds": TEK_LIFETIME},
    helps={
        **_SET,
        "security-association": "Security association parameters",
        "lifetime": "security association lifetime",
        "seconds": "Time-based key duration",
    },
)
SET_TRANSFORM_SET = Command(
    "set transform-set {name}",
    {"name": Word("Proposal tag")},
    helps={**_SET, "transform-set": "Specify list of transform sets in priority order"},
)

FRAGMENTATION = Command(
    "crypto ipsec fragmentation (before-encryption:before | after-encryption:after)",
    default={"before": True},
    helps={
        **_IPSEC,
        "fragmentation": "Handle fragmentation of near-MTU sized packets",
        "before-encryption": "Perform fragmentation before encryption",
        "after-encryption": "Perform fragmentation after encryption",
    },
)
DF_BIT = Command(
    "crypto ipsec df-bit (copy | clear | set)",
    default={"copy": True},
    helps={
        **_IPSEC,
        "df-bit": "Handling of encapsulated DF bit.",
        "copy": "Copy DF bit from inner to outer header",
        "clear": "Clear DF bit for encapsulated tunnel",
        "set": "Set DF bit for encapsulated tunnel",
    },
)
PATH_MTU = Command(
    "crypto ipsec path-mtu learn",
    helps={**_IPSEC, "path-mtu": "Length of what passes the provider", "learn": "Believe the provider's routers"},
)

TREE = Tree(
    {
        GLOBAL: (TRANSFORM_SET, FRAGMENTATION, DF_BIT, PATH_MTU, PROFILE),
        TRANSFORM_MODE: (TUNNEL, TRANSPORT),
        PROFILE_MODE: (LIFETIME, SET_TRANSFORM_SET),
    },
    {TRANSFORM_MODE: "cfg-crypto-trans", PROFILE_MODE: "ipsec-profile"},
)


@dataclass(frozen=True, slots=True)
class Profile:
    """What a profile gives: transform set, and life of TEKs in seconds."""

    transform: TransformSet
    lifetime: int


def profiles_of(node: NodeConfiguration) -> dict[Profile, str]:
    """Every profile that a key server's groups need, with a name."""
    found: dict[Profile, str] = {}
    for group in node.key_server_groups:
        for sa in group.sas:
            profile = Profile(sa.transform, sa.tek_lifetime)
            found.setdefault(profile, numbered("GET_PROF", len(found)))
    return found


def profile(root: Section, name: str) -> Profile | None:
    """A profile that is complete, by name."""
    section = root.section(PROFILE, name=name)
    chosen = None if section is None else section.one(SET_TRANSFORM_SET)
    if section is None or chosen is None:
        return None
    said = root.find(TRANSFORM_SET, chosen)
    if said is None:
        return None
    lifetime = section.one(LIFETIME)
    transform = parse_transform_set(said.text.split(maxsplit=4)[-1])
    return Profile(transform, TEK_LIFETIME if lifetime is None else lifetime["seconds"])


def numbered(name: str, number: int) -> str:
    """NAME, NAME_2, NAME_3."""
    return name if not number else f"{name}_{number + 1}"


def write(node: NodeConfiguration) -> Iterator[str]:
    """Its lines."""
    yield f"crypto ipsec fragmentation {node.tunnel.fragmentation.value}-encryption"
    yield f"crypto ipsec df-bit {node.tunnel.df_bit.value}"
    if node.tunnel.learn_path_mtu:
        yield "crypto ipsec path-mtu learn"
    profiles = profiles_of(node)
    names = {
        transform: numbered("GET_TS", number)
        for number, transform in enumerate(dict.fromkeys(item.transform for item in profiles))
    }
    for transform, name in names.items():
        yield f"crypto ipsec transform-set {name} {transform}"
    for item, name in profiles.items():
        yield f"crypto ipsec profile {name}"
        yield f" set security-association lifetime seconds {item.lifetime}"
        yield f" set transform-set {names[item.transform]}"


def read(root: Section, node: NodeConfiguration, _: Notes) -> NodeConfiguration:
    """How packets fit the way; profiles are looked up by groups."""
    fragmentation = root.one(FRAGMENTATION) or {"before": True}
    df_bit = root.one(DF_BIT) or {"copy": True}
    tunnel = TunnelSettings(
        Fragmentation(next(iter(fragmentation))), DfBit(next(iter(df_bit))), root.one(PATH_MTU) is not None
    )
    return replace(node, tunnel=tunnel)


PART = Part(TREE, write, read)
