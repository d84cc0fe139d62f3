"""Payloads: one frozen dataclass each, with `parse(reader)` and `pack()` of the body; chains of them.

A body is the payload without its generic header. `Chained` keeps the octets as received, because hashes are
computed over those.
"""

from labctl.isakmp.payloads.chain import (
    MAX_PAYLOADS,
    Chained,
    Payload,
    pack_chain,
    pack_payload,
    parse_chain,
    register,
)
from labctl.isakmp.payloads.control import INITIAL_CONTACT_DATA, Delete, Notification
from labctl.isakmp.payloads.encoded import Certificate, CertificateRequest, Configuration, NatOriginalAddress
from labctl.isakmp.payloads.identification import Identification, IdType
from labctl.isakmp.payloads.opaque import (
    HashPayload,
    KeyExchange,
    NatDiscovery,
    Nonce,
    ProofOfPossession,
    Signature,
    VendorId,
)
from labctl.isakmp.payloads.security_association import Proposal, SecurityAssociation, Transform

__all__ = [
    "INITIAL_CONTACT_DATA",
    "MAX_PAYLOADS",
    "Certificate",
    "CertificateRequest",
    "Chained",
    "Configuration",
    "Delete",
    "HashPayload",
    "IdType",
    "Identification",
    "KeyExchange",
    "NatDiscovery",
    "NatOriginalAddress",
    "Nonce",
    "Notification",
    "Payload",
    "ProofOfPossession",
    "Proposal",
    "SecurityAssociation",
    "Signature",
    "Transform",
    "VendorId",
    "pack_chain",
    "pack_payload",
    "parse_chain",
    "register",
]
