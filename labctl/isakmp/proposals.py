"""Phase-1 proposals: our policies as an offer, and the choice from a peer's offer (RFC 2409 5, appendix A)."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from labctl.configuration import Authentication, DhGroup, Encryption, Hash, IsakmpPolicy
from labctl.isakmp.attributes import Attribute, single
from labctl.isakmp.authentication import METHODS, Method
from labctl.isakmp.errors import NoProposalChosen, NotifyType, PeerError
from labctl.isakmp.header import Doi
from labctl.isakmp.payloads import Proposal, SecurityAssociation, Transform

PROTOCOL_ISAKMP = 1
KEY_IKE = 1
SITUATION_IDENTITY_ONLY = 1

# Attribute types (RFC 2409 appendix A).
ENCRYPTION, HASH, AUTHENTICATION, GROUP, LIFE_TYPE, LIFE_DURATION, KEY_LENGTH = 1, 2, 3, 4, 11, 12, 14

LIFE_SECONDS = 1

# Methods that a test or a tool may take for granted: those that need no certificate.
WITHOUT_CERTIFICATES = frozenset({Method.PRE_SHARED_KEY})

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
    """An accepted transform: the policy and method that it matched, the lifetime, and the offer's own payloads."""

    policy: IsakmpPolicy
    method: Method
    lifetime: int
    proposal: Proposal
    transform: Transform
    doi: int


class CannotProve(Exception):
    """There would be a common policy, but nothing to prove oneself with. `wanted`: what it takes."""

    def __init__(self, wanted: Collection[Authentication]) -> None:
        super().__init__(", ".join(item.value for item in wanted))
        self.wanted = frozenset(wanted)


# A member makes the same offer at every phase 1 of its life.
@lru_cache(maxsize=64)
def _offer(
    policies: tuple[IsakmpPolicy, ...], doi: int, usable: frozenset[Method]
) -> tuple[SecurityAssociation, bytes]:
    ordered = sorted(policies, key=lambda policy: policy.priority)
    offered = [(policy, method) for policy in ordered for method in METHODS[policy.authentication] if method in usable]
    if not offered:
        raise CannotProve({policy.authentication for policy in policies})
    transforms = tuple(
        Transform(number, KEY_IKE, attributes_of(policy, method))
        for number, (policy, method) in enumerate(offered, start=1)
    )
    proposal = Proposal(1, PROTOCOL_ISAKMP, b"", transforms)
    made = SecurityAssociation(doi, SITUATION_IDENTITY_ONLY if doi == Doi.IPSEC else 0, (proposal,))
    return made, made.pack()


def offer(
    policies: Sequence[IsakmpPolicy], doi: int = Doi.GDOI, usable: Collection[Method] = WITHOUT_CERTIFICATES
) -> SecurityAssociation:
    """Our policies by priority: one proposal, a transform for each method that we can prove ourselves with.

    Raises CannotProve where that leaves nothing.
    """
    return packed_offer(policies, doi, usable)[0]


def packed_offer(
    policies: Sequence[IsakmpPolicy], doi: int = Doi.GDOI, usable: Collection[Method] = WITHOUT_CERTIFICATES
) -> tuple[SecurityAssociation, bytes]:
    """`offer`, and its octets, the body of the SA payload."""
    return _offer(tuple(policies), doi, frozenset(usable))


def attributes_of(policy: IsakmpPolicy, method: Method) -> tuple[Attribute, ...]:
    """A policy as transform attributes."""
    attributes = [
        Attribute.tv(ENCRYPTION, ENCRYPTIONS[policy.encryption]),
        Attribute.tv(HASH, HASHES[policy.hash]),
        Attribute.tv(AUTHENTICATION, method),
        Attribute.tv(GROUP, policy.group.value),
        *life(policy.lifetime),
    ]
    if policy.encryption is Encryption.AES_CBC:
        attributes.append(Attribute.tv(KEY_LENGTH, policy.key_bits))
    return tuple(attributes)


def method_of(transform: Transform) -> Method | None:
    """The authentication method of a peer's transform; None for one that we do not know."""
    numbers = [attribute.number for attribute in transform.attributes if attribute.kind == AUTHENTICATION]
    return next((known for known in Method if numbers == [known]), None)


def life(seconds: int) -> tuple[Attribute, ...]:
    """A lifetime as attributes, of a transform or of RESPONDER-LIFETIME (RFC 2407 4.6.3.1)."""
    return Attribute.tv(LIFE_TYPE, LIFE_SECONDS), Attribute.tlv(LIFE_DURATION, seconds.to_bytes(4, "big"))


def read_life(attributes: Iterable[Attribute]) -> int | None:
    """The seconds that a RESPONDER-LIFETIME says; None where it speaks of something else. Raises MalformedMessage."""
    found = tuple(attributes)
    kind, duration = single(found, LIFE_TYPE), single(found, LIFE_DURATION)
    if kind is None or duration is None or kind.number != LIFE_SECONDS:
        return None
    return duration.number


# A key server reads the same offers all the time.
@lru_cache(maxsize=256)
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
    method = method_of(transform)
    authentication = next((name for name, methods in METHODS.items() if method in methods), None)
    if transform.identifier != KEY_IKE or encryption is None or hash_name is None or group is None:
        return None
    if authentication is None or values.get(LIFE_TYPE, LIFE_SECONDS) != LIFE_SECONDS:
        return None
    # Key length is mandatory for AES and forbidden for ciphers of one size (RFC 2409 appendix A).
    if (encryption is Encryption.AES_CBC) != (KEY_LENGTH in values):
        return None
    lifetime = values.get(LIFE_DURATION, DEFAULT_LIFETIME)
    if not lifetime:
        return None
    return IsakmpPolicy(0, encryption, values.get(KEY_LENGTH, 192), hash_name, group, lifetime, authentication)


def choose(
    policies: Sequence[IsakmpPolicy],
    offered: SecurityAssociation,
    *,
    relaxed_doi: bool,
    usable: Collection[Method] = WITHOUT_CERTIFICATES,
) -> Choice:
    """The responder's choice: our best policy that any offered transform matches; the shorter lifetime counts.

    Raises PeerError: wrong DOI or situation, several proposals, or nothing in common; CannotProve where what is in
    common takes a method that is not `usable`.
    """
    check_domain(offered, relaxed_doi=relaxed_doi)
    if len(offered.proposals) != 1 or offered.proposals[0].protocol != PROTOCOL_ISAKMP:
        raise PeerError("phase 1 takes exactly one proposal, of ISAKMP", NotifyType.BAD_PROPOSAL_SYNTAX)
    proposal = offered.proposals[0]
    if len(proposal.spi) > MAX_SPI_OCTETS:
        raise PeerError(f"an SPI of {len(proposal.spi)} octets", NotifyType.BAD_PROPOSAL_SYNTAX)
    readable = [(transform, read_transform(transform)) for transform in proposal.transforms]
    wanted = []
    for policy in sorted(policies, key=lambda policy: policy.priority):
        for transform, read in readable:
            if read is None or not same_algorithms(policy, read):
                continue
            method = method_of(transform)
            if method is not None and method in usable:
                return Choice(policy, method, min(policy.lifetime, read.lifetime), proposal, transform, offered.doi)
            wanted.append(policy.authentication)
    if wanted:
        raise CannotProve(wanted)
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
    return (ours.encryption, ours.hash, ours.group, ours.authentication) == (
        theirs.encryption,
        theirs.hash,
        theirs.group,
        theirs.authentication,
    ) and (not aes or ours.key_bits == theirs.key_bits)


def accepted(
    policies: Sequence[IsakmpPolicy],
    ours: SecurityAssociation,
    answer: SecurityAssociation,
    usable: Collection[Method] = WITHOUT_CERTIFICATES,
) -> tuple[IsakmpPolicy, Method, int]:
    """The initiator's check of message 2: exactly one transform, and one of our offer's. Raises PeerError.

    What counts is what the attributes say: responders of today write them anew, in an order of their own, and may
    lower the lifetime. Returns the policy, the method and the lifetime in force.
    """
    if answer.doi != ours.doi or len(answer.proposals) != 1 or len(answer.proposals[0].transforms) != 1:
        raise PeerError("the answer does not hold exactly one transform of the offer", NotifyType.BAD_PROPOSAL_SYNTAX)
    transform = answer.proposals[0].transforms[0]
    chosen, method = read_transform(transform), method_of(transform)
    for policy in sorted(policies, key=lambda policy: policy.priority):
        if chosen is not None and method is not None and method in usable and same_algorithms(policy, chosen):
            return policy, method, min(policy.lifetime, chosen.lifetime)
    raise PeerError("the answer holds a transform that was not offered", NotifyType.BAD_PROPOSAL_SYNTAX)
