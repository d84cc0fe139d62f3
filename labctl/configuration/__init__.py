"""The node configuration: the one model an agent boots from.

Topology YAML and IOS-like text are two front ends of it (design decision 7).
It is the lowest room of the house: plain data, no I/O, no library beyond the standard one, so that an
agent can import it in a few milliseconds. Times are seconds, keys are octets, addresses are `ipaddress` objects.
"""

from labctl.configuration.codec import ConfigurationError, from_json, to_json
from labctl.configuration.impairment import Impairment
from labctl.configuration.live import changes_live
from labctl.configuration.node import (
    Acknowledgement,
    CertificateIdentity,
    GroupIdentity,
    GroupMembership,
    Interface,
    IsakmpPolicy,
    IsakmpSettings,
    Keepalive,
    KeyServerGroup,
    NodeConfiguration,
    NodeKind,
    PreSharedKey,
    RekeyPolicy,
    RekeyTransport,
    Route,
    RsaKeyPair,
    SaDirection,
    SaIpsec,
    Trustpoint,
)
from labctl.configuration.policy import (
    MOST_PERMITS,
    AccessListEntry,
    Action,
    Authentication,
    Cipher,
    DhGroup,
    Encryption,
    Hash,
    Integrity,
    TransformSet,
)
from labctl.configuration.replay import NO_REPLAY, Replay, ReplayMethod
from labctl.configuration.translation import (
    AddressTranslation,
    Marking,
    MarkingRule,
    Overload,
    StaticTranslation,
)
from labctl.configuration.tunnel import DfBit, Fragmentation, MssAdjustment, TunnelSettings

__all__ = [
    "MOST_PERMITS",
    "NO_REPLAY",
    "AccessListEntry",
    "Acknowledgement",
    "Action",
    "AddressTranslation",
    "Authentication",
    "CertificateIdentity",
    "Cipher",
    "ConfigurationError",
    "DfBit",
    "DhGroup",
    "Encryption",
    "Fragmentation",
    "GroupIdentity",
    "GroupMembership",
    "Hash",
    "Impairment",
    "Integrity",
    "Interface",
    "IsakmpPolicy",
    "IsakmpSettings",
    "Keepalive",
    "KeyServerGroup",
    "Marking",
    "MarkingRule",
    "MssAdjustment",
    "NodeConfiguration",
    "NodeKind",
    "Overload",
    "PreSharedKey",
    "RekeyPolicy",
    "RekeyTransport",
    "Replay",
    "ReplayMethod",
    "Route",
    "RsaKeyPair",
    "SaDirection",
    "SaIpsec",
    "StaticTranslation",
    "TransformSet",
    "Trustpoint",
    "TunnelSettings",
    "changes_live",
    "from_json",
    "to_json",
]
