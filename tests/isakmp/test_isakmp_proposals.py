"""The offer of phase 1 and the choice from it: what is taken, what is refused, and by which notification."""

from __future__ import annotations

from dataclasses import replace

import pytest

from labctl.configuration import Authentication, DhGroup, Encryption, Hash, IsakmpPolicy
from labctl.isakmp import proposals
from labctl.isakmp.attributes import Attribute
from labctl.isakmp.errors import NoProposalChosen, NotifyType, PeerError
from labctl.isakmp.header import Doi
from labctl.isakmp.payloads import Proposal, SecurityAssociation, Transform
from labctl.isakmp.proposals import GROUP, KEY_LENGTH, LIFE_DURATION, LIFE_TYPE, accepted, choose, offer, read_transform

AES = IsakmpPolicy(10, Encryption.AES_CBC, 256, Hash.SHA256, DhGroup.MODP2048, 3600)
TRIPLE = IsakmpPolicy(20, Encryption.TRIPLE_DES, 192, Hash.SHA1, DhGroup.MODP1024, 3600)

# The reference implementation's offer (appendix A): AES-128, SHA-1, group 2, 600 seconds as TV, transform number 0.
REFERENCE = Transform(
    0,
    1,
    tuple(Attribute.tv(kind, value) for kind, value in ((1, 7), (2, 2), (3, 1), (4, 2), (11, 1), (12, 600), (14, 128))),
)

KEY_192 = Attribute.tv(KEY_LENGTH, 192)


def transform(policy: IsakmpPolicy = AES) -> Transform:
    return offer([policy]).proposals[0].transforms[0]


def without(kind: int, *instead: Attribute) -> Transform:
    """The AES transform without an attribute, others in its place."""
    original = transform()
    rest = tuple(attribute for attribute in original.attributes if attribute.kind != kind)
    return replace(original, attributes=rest + instead)


def holding(*transforms: Transform) -> SecurityAssociation:
    return SecurityAssociation(Doi.GDOI, 0, (Proposal(1, 1, b"", transforms),))


@pytest.mark.parametrize("policy", [AES, TRIPLE])
def test_an_offer_reads_as_the_policy_that_it_was_made_of(policy: IsakmpPolicy) -> None:
    read = read_transform(transform(policy))
    assert read is not None
    assert replace(read, priority=policy.priority) == policy


def test_an_offer_follows_the_priorities() -> None:
    read = [read_transform(item) for item in offer([TRIPLE, AES]).proposals[0].transforms]
    assert [policy.encryption for policy in read if policy] == [Encryption.AES_CBC, Encryption.TRIPLE_DES]


@pytest.mark.parametrize(("doi", "situation"), [(Doi.GDOI, 0), (Doi.IPSEC, 1)])
def test_the_situation_goes_with_the_domain(doi: Doi, situation: int) -> None:
    assert offer([AES], doi).situation == situation


def test_the_offer_of_the_reference_implementation_is_read() -> None:
    read = read_transform(REFERENCE)
    assert read == IsakmpPolicy(0, Encryption.AES_CBC, 128, Hash.SHA1, DhGroup.MODP1024, 600)


@pytest.mark.parametrize(
    "duration", [Attribute.tv(LIFE_DURATION, 3600), Attribute.tlv(LIFE_DURATION, bytes.fromhex("00000e10"))]
)
def test_a_lifetime_is_read_in_either_form(duration: Attribute) -> None:
    read = read_transform(without(LIFE_DURATION, duration))
    assert read is not None and read.lifetime == 3600


def test_an_offer_that_says_nothing_of_its_lifetime_has_a_day() -> None:
    bare = replace(transform(), attributes=transform().attributes[:4] + transform().attributes[6:])
    read = read_transform(bare)
    assert read is not None and read.lifetime == 86400


@pytest.mark.parametrize(
    ("what", "hostile"),
    [
        ("AES without a key length", without(KEY_LENGTH)),
        ("3DES with a key length", replace(transform(TRIPLE), attributes=(*transform(TRIPLE).attributes, KEY_192))),
        ("a lifetime in kilobytes", without(LIFE_TYPE, Attribute.tv(LIFE_TYPE, 2))),
        ("a lifetime of nothing", without(LIFE_DURATION, Attribute.tv(LIFE_DURATION, 0))),
        ("DSS signatures", without(3, Attribute.tv(3, 2))),
        ("no authentication method", without(3)),
        ("RSA signatures, which no policy names", without(3, Attribute.tv(3, 3))),
        ("an unknown group", without(GROUP, Attribute.tv(GROUP, 22))),
        ("an attribute that is not known", without(0, Attribute.tv(99, 1))),
        ("an attribute twice", without(0, Attribute.tv(GROUP, 14))),
        ("a transform that is not KEY_IKE", replace(transform(), identifier=2)),
    ],
)
def test_a_transform_that_we_could_not_honour_is_not_chosen(what: str, hostile: Transform) -> None:
    read = read_transform(hostile)
    assert read is None or read.authentication is Authentication.RSA_SIG, what
    with pytest.raises(NoProposalChosen):
        choose([AES, TRIPLE], holding(hostile), relaxed_doi=True)
    chosen = choose([AES, TRIPLE], holding(hostile, transform()), relaxed_doi=True)
    assert chosen.transform == transform(), "the next transform is looked at all the same"


def test_md5_is_taken_only_where_a_policy_names_it() -> None:
    weak = IsakmpPolicy(10, Encryption.AES_CBC, 128, Hash.MD5, DhGroup.MODP1024)
    with pytest.raises(NoProposalChosen):
        choose([AES, TRIPLE], offer([weak]), relaxed_doi=True)
    assert choose([weak], offer([weak]), relaxed_doi=True).policy is weak


def test_the_choice_is_our_best_policy_not_the_peers_first() -> None:
    chosen = choose([AES, TRIPLE], holding(transform(TRIPLE), transform(AES)), relaxed_doi=True)
    assert chosen.policy is AES


def test_the_same_algorithms_with_another_key_length_are_not_the_same() -> None:
    with pytest.raises(NoProposalChosen):
        choose([AES], offer([replace(AES, key_bits=128)]), relaxed_doi=True)


@pytest.mark.parametrize(("ours", "theirs", "counts"), [(100, 500, 100), (500, 100, 100), (300, 300, 300)])
def test_the_shorter_lifetime_counts_on_both_sides(ours: int, theirs: int, counts: int) -> None:
    responder, initiator = replace(AES, lifetime=ours), replace(AES, lifetime=theirs)
    offered = offer([initiator])
    assert choose([responder], offered, relaxed_doi=True).lifetime == counts
    assert accepted([initiator], offered, offer([replace(initiator, lifetime=ours)]))[2] == counts


@pytest.mark.parametrize(
    ("what", "offered", "notify"),
    [
        ("no domain of ours", replace(offer([AES]), doi=7), NotifyType.DOI_NOT_SUPPORTED),
        ("GDOI with a situation", replace(offer([AES]), situation=1), NotifyType.SITUATION_NOT_SUPPORTED),
        ("IPsec without one", replace(offer([AES], Doi.IPSEC), situation=0), NotifyType.SITUATION_NOT_SUPPORTED),
        ("two proposals", replace(offer([AES]), proposals=offer([AES]).proposals * 2), NotifyType.BAD_PROPOSAL_SYNTAX),
        (
            "a proposal of ESP",
            replace(offer([AES]), proposals=(replace(offer([AES]).proposals[0], protocol=3),)),
            NotifyType.BAD_PROPOSAL_SYNTAX,
        ),
        (
            "an SPI longer than cookies",
            replace(offer([AES]), proposals=(replace(offer([AES]).proposals[0], spi=bytes(17)),)),
            NotifyType.BAD_PROPOSAL_SYNTAX,
        ),
    ],
)
def test_an_offer_that_breaks_the_rules_is_refused_by_name(
    what: str, offered: SecurityAssociation, notify: NotifyType
) -> None:
    with pytest.raises(PeerError) as refusal:
        choose([AES], offered, relaxed_doi=True)
    assert refusal.value.notify == notify, what


def test_an_spi_in_the_proposal_is_ignored() -> None:
    """RFC 2408 3.5: from zero to sixteen octets, of no meaning."""
    cookies = replace(offer([AES]), proposals=(replace(offer([AES]).proposals[0], spi=bytes(16)),))
    assert choose([AES], cookies, relaxed_doi=True).policy is AES


def test_the_ipsec_domain_is_for_the_relaxed_only() -> None:
    assert choose([AES], offer([AES], Doi.IPSEC), relaxed_doi=True).doi == Doi.IPSEC
    with pytest.raises(PeerError, match="domain of interpretation 1"):
        choose([AES], offer([AES], Doi.IPSEC), relaxed_doi=False)


@pytest.mark.parametrize(
    ("what", "answer"),
    [
        ("a transform that was not offered", offer([TRIPLE])),
        ("two transforms", holding(transform(AES), transform(AES))),
        ("two proposals", replace(offer([AES]), proposals=offer([AES]).proposals * 2)),
        ("another domain", offer([AES], Doi.IPSEC)),
    ],
)
def test_an_answer_that_is_not_of_the_offer_is_refused(what: str, answer: SecurityAssociation) -> None:
    with pytest.raises(PeerError) as refusal:
        accepted([AES], offer([AES]), answer)
    assert refusal.value.notify == NotifyType.BAD_PROPOSAL_SYNTAX, what


def test_every_algorithm_of_a_policy_has_a_wire_number() -> None:
    assert set(proposals.ENCRYPTIONS) == set(Encryption)
    assert set(proposals.HASHES) == set(Hash)
