"""Phase-1 proposals: our policies as an offer, and the choice from a peer's offer (RFC 2409 5, appendix A)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from labctl.configuration import DhGroup, Encryption, Hash, IsakmpPolicy
from labctl.isakmp.attributes import Attribute
from labctl.isakmp.errors import NoProposalChosen, NotifyType, PeerError
from labctl.isakmp.header import Doi
from labctl.isakmp.payloads import Proposal, SecurityAssociation, Transform

PROTOCOL_ISAKMP = 1
KEY_IKE = 1
SITUATION_IDENTITY_ONLY = 1

# Attribute types (RFC 2409 appendix A).
ENCRYPTION, HASH, AUTHENTICATION, GROUP, LIFE_TYPE, LIFE_DURATION, KEY_LENGTH = 1, 2, 3, 4, 11, 12, 14

AUTHENTICATION_PSK = 1
LIFE_SECONDS = 1

ENCRYPTIONS = {Encryption.TRIPLE_DES: 5, Encryption.AES_CBC: 7}
HASHES = {Hash.MD5: 1, Hash.SHA1: 2, Hash.SHA256: 4, Hash.SHA384: 5, Hash.SHA512: 6}

# Where an offer says nothing of its lifetime (reference 2.2).
DEFAULT_LIFETIME = 86400

# An SPI of the proposal has at most as many octets as both cookies, and no meaning (RFC 2408 3.5).
MAX_SPI_OCTETS = 16

# Attributes that a transform may hold for us to accept it.
UNDERSTOOD = {ENCRYPTION, HASH, AUTHENTICATION, GROUP, LIFE_TYPE, LIFE_DURATION, KEY_LENGTH}


@dataclass(frozen=True, slots=True)
class Choice:
    """An accepted transform: the policy that it matched, the lifetime in force, and the offer's own payloads."""

    policy: IsakmpPolicy
    lifetime: int
    proposal: Proposal
    transform: Transform
    doi: int


def offer(policies: Sequence[IsakmpPolicy], doi: int = Doi.GDOI) -> SecurityAssociation:
    """Our policies by priority: one proposal, a transform each."""
    ordered = sorted(policies, key=lambda policy: policy.priority)
    transforms = tuple(
        Transform(number, KEY_IKE, attributes_of(policy)) for number, policy in enumerate(ordered, start=1)
    )
    proposal = Proposal(1, PROTOCOL_ISAKMP, b"", transforms)
    return SecurityAssociation(doi, SITUATION_IDENTITY_ONLY if doi == Doi.IPSEC else 0, (proposal,))


def attributes_of(policy: IsakmpPolicy) -> tuple[Attribute, ...]:
    """A policy as transform attributes."""
    attributes = [
        Attribute.tv(ENCRYPTION, ENCRYPTIONS[policy.encryption]),
        Attribute.tv(HASH, HASHES[policy.hash]),
        Attribute.tv(AUTHENTICATION, AUTHENTICATION_PSK),
        Attribute.tv(GROUP, policy.group.value),
        Attribute.tv(LIFE_TYPE, LIFE_SECONDS),
        Attribute.tlv(LIFE_DURATION, policy.lifetime.to_bytes(4, "big")),
    ]
    if policy.encryption is Encryption.AES_CBC:
        attributes.append(Attribute.tv(KEY_LENGTH, policy.key_bits))
    return tuple(attributes)


def read_transform(transform: Transform) -> IsakmpPolicy | None:
    """A peer's transform as a policy; None where it holds what we do not understand."""
    values: dict[int, int] = {}
    for attribute in transform.attributes:
        if attribute.kind not in UNDERSTOOD or attribute.kind in values:
            return None
        values[attribute.kind] = attribute.number
    encryption = next((name for name, number in ENCRYPTIONS.items() if number == values.get(ENCRYPTION)), None)
    hash_name = next((name for name, number in HASHES.items() if number == values.get(HASH)), None)
    group = next((known for known in DhGroup if known.value == values.get(GROUP)), None)
    if transform.identifier != KEY_IKE or encryption is None or hash_name is None or group is None:
        return None
    if values.get(AUTHENTICATION) != AUTHENTICATION_PSK or values.get(LIFE_TYPE, LIFE_SECONDS) != LIFE_SECONDS:
        return None
    # Key length is mandatory for AES and forbidden for ciphers of one size (RFC 2409 appendix A).
    if (encryption is Encryption.AES_CBC) != (KEY_LENGTH in values):
        return None
    lifetime = values.get(LIFE_DURATION, DEFAULT_LIFETIME)
    if not lifetime:
        return None
    return IsakmpPolicy(0, encryption, values.get(KEY_LENGTH, 192), hash_name, group, lifetime)


def choose(policies: Sequence[IsakmpPolicy], offered: SecurityAssociation, *, relaxed_doi: bool) -> Choice:
    """The responder's choice: our best policy that any offered transform matches; the shorter lifetime counts.

    Raises PeerError: wrong DOI or situation, several proposals, or nothing in common.
    """
    check_domain(offered, relaxed_doi=relaxed_doi)
    if len(offered.proposals) != 1 or offered.proposals[0].protocol != PROTOCOL_ISAKMP:
        raise PeerError("phase 1 takes exactly one proposal, of ISAKMP", NotifyType.BAD_PROPOSAL_SYNTAX)
    proposal = offered.proposals[0]
    if len(proposal.spi) > MAX_SPI_OCTETS:
        raise PeerError(f"an SPI of {len(proposal.spi)} octets", NotifyType.BAD_PROPOSAL_SYNTAX)
    readable = [(transform, read_transform(transform)) for transform in proposal.transforms]
    for policy in sorted(policies, key=lambda policy: policy.priority):
        for transform, read in readable:
            if read is not None and same_algorithms(policy, read):
                return Choice(policy, min(policy.lifetime, read.lifetime), proposal, transform, offered.doi)
    raise NoProposalChosen("no common ISAKMP policy")


def check_domain(offered: SecurityAssociation, *, relaxed_doi: bool) -> None:
    """DOI 2 with situation 0 (RFC 6407 2.1); relaxed, also DOI 1 with identity-only. Raises PeerError."""
    if offered.doi not in ((Doi.GDOI, Doi.IPSEC) if relaxed_doi else (Doi.GDOI,)):
        raise PeerError(f"domain of interpretation {offered.doi}", NotifyType.DOI_NOT_SUPPORTED)
    if offered.situation != (SITUATION_IDENTITY_ONLY if offered.doi == Doi.IPSEC else 0):
        raise PeerError(f"situation {offered.situation}", NotifyType.SITUATION_NOT_SUPPORTED)


def same_algorithms(ours: IsakmpPolicy, theirs: IsakmpPolicy) -> bool:
    """True where two policies differ in priority and lifetime at most."""
    aes = ours.encryption is Encryption.AES_CBC
    return (ours.encryption, ours.hash, ours.group) == (theirs.encryption, theirs.hash, theirs.group) and (
        not aes or ours.key_bits == theirs.key_bits
    )


def accepted(
    policies: Sequence[IsakmpPolicy], ours: SecurityAssociation, answer: SecurityAssociation
) -> tuple[IsakmpPolicy, int]:
    """The initiator's check of message 2: exactly one transform, and one of our offer's. Raises PeerError.

    What counts is what the attributes say: responders of today write them anew, in an order of their own, and may
    lower the lifetime. Returns the policy and the lifetime in force.
    """
    if answer.doi != ours.doi or len(answer.proposals) != 1 or len(answer.proposals[0].transforms) != 1:
        raise PeerError("the answer does not hold exactly one transform of the offer", NotifyType.BAD_PROPOSAL_SYNTAX)
    chosen = read_transform(answer.proposals[0].transforms[0])
    for policy in sorted(policies, key=lambda policy: policy.priority):
        if chosen is not None and same_algorithms(policy, chosen):
            return policy, min(policy.lifetime, chosen.lifetime)
    raise PeerError("the answer holds a transform that was not offered", NotifyType.BAD_PROPOSAL_SYNTAX)
