"""The shape of a lab's own certification authority."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from labctl.topology.raw_shape import RawShape

# Days: beyond it, dates of certificates would need another form than UTCTime soon (RFC 5280 4.1.2.5).
LONGEST_VALIDITY = 3650


class RawFault(RawShape):
    """What is wrong with a node's certificate, on purpose."""

    authority: str | None = Field(default=None, description="Another CA issued it; the node trusts that one alone.")
    fqdn: str | None = Field(default=None, description="It was issued to this name, not to the node's own.")
    expired: bool = Field(default=False, description="It ended before the lab began.")
    revoked: bool = Field(default=False, description="It is on its CA's revocation list from the start.")


class RawPki(RawShape):
    """The lab's own certification authority."""

    authority: str = Field(default="LAB_CA", description="Name of the CA, and of the nodes' trustpoints.")
    domain: str = Field(default="lab.example", description="Domain of the nodes: ce1 is ce1.lab.example.")
    rsa_bits: Literal[2048, 3072, 4096] = Field(default=2048, description="Modulus of RSA keys.")
    ecdsa_bits: Literal[256, 384] = Field(default=256, description="Curve of ECDSA keys.")
    identity: Literal["fqdn", "dn"] = Field(
        default="fqdn", description="What nodes call themselves in phase 1: domain name, or subject of the certificate."
    )
    revocation_check: Literal["crl", "none"] = Field(default="crl", description="Refuse revoked certificates, or not.")
    validity: int = Field(
        default=365, ge=1, le=LONGEST_VALIDITY, description="Days for which certificates and CRLs are valid."
    )
    faults: dict[str, RawFault] = Field(default={}, description="Node -> what is wrong with its certificate.")
