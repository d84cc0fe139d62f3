"""The certificates and RSA keys that a lab needs, and what was made of that. Pure data, like `plan.py`.

`plan()` says in `Plan.pki` what is needed; `lab/` makes it once, keeps it with the lab, and hands it to `plan()` as
Credentials. So a plan stays a function of its inputs, though no key pair can be derived from a secret.
Words of reference/cisco-getvpn.md 1.2 (`crypto pki trustpoint`, `crypto key generate rsa label`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from labctl.configuration import RsaKeyPair, Trustpoint


class KeyType(Enum):
    """The kind of a certificate's key: RSA signs for `rsa-sig`, ECDSA for `ecdsa-sig` (RFC 2409 5.1, RFC 4754)."""

    RSA = "rsa"
    ECDSA = "ecdsa"


@dataclass(frozen=True, slots=True)
class PlannedAuthority:
    """A CA. `key_bits` is RSA's modulus or ECDSA's curve (256, 384), here and below."""

    name: str
    key_type: KeyType
    key_bits: int


@dataclass(frozen=True, slots=True)
class PlannedCertificate:
    """One trustpoint of one node: its certificate, and whom it believes.

    `authority` issues it and is the only one that the node trusts. `subject` is an RFC 4514 name, `fqdns` its
    subjectAltNames. `identity` is what the node calls itself in phase 1: its domain name, which a certificate that
    was made wrong does not have, or None for the subject. `expired` ends before the lab begins; `revoked` is on the
    authority's CRL from the start.
    """

    node: str
    trustpoint: str
    authority: str
    subject: str
    fqdns: tuple[str, ...]
    identity: str | None
    key_type: KeyType
    key_bits: int
    expired: bool = False
    revoked: bool = False


@dataclass(frozen=True, slots=True)
class PlannedRsaKey:
    """`crypto key generate rsa label LABEL`: one pair for every key server in `nodes`, to sign rekeys with."""

    label: str
    nodes: tuple[str, ...]
    bits: int = 2048
    exportable: bool = True


@dataclass(frozen=True, slots=True)
class PkiPlan:
    """Everything of a lab that takes a key pair. The lab's own CA is the first; `validity_days` holds for all."""

    authorities: tuple[PlannedAuthority, ...] = ()
    certificates: tuple[PlannedCertificate, ...] = ()
    rsa_keys: tuple[PlannedRsaKey, ...] = ()
    validity_days: int = 365
    check_revocation: bool = True


@dataclass(frozen=True, slots=True)
class Credentials:
    """What was made of a PkiPlan, by node. `started` is `NodeConfiguration.started` for all of them."""

    trustpoints: Mapping[str, tuple[Trustpoint, ...]] = field(default_factory=dict)
    rsa_keys: Mapping[str, tuple[RsaKeyPair, ...]] = field(default_factory=dict)
    started: float | None = None
