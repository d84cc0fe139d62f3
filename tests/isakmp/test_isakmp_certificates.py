"""Two real parties hold Main Mode with certificates in memory: every method, every refusal, on both sides."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from ipaddress import IPv4Address

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from isakmp_parties import MEMBER, QUICK, SERVER, Party, deliver, run
from pki_material import DAY, STARTED, Authority, Issued, key_pair, trustpoint, usage

from labctl.configuration import Authentication, DhGroup, Hash, IsakmpPolicy, Trustpoint
from labctl.isakmp import authentication
from labctl.isakmp.authentication import MAX_REQUESTS, Credentials, Method
from labctl.isakmp.datagram import Datagram, Endpoint
from labctl.isakmp.errors import LocalError, NotifyType
from labctl.isakmp.events import Cause, Phase1Hint
from labctl.isakmp.header import HEADER_OCTETS, ExchangeType, Header
from labctl.isakmp.main_mode import MAX_PROOFS, MainMode
from labctl.isakmp.payloads import (
    Certificate,
    CertificateRequest,
    Identification,
    IdType,
    Notification,
    Payload,
    Signature,
    parse_chain,
)
from labctl.isakmp.reader import Reader

RSA = replace(QUICK, authentication=Authentication.RSA_SIG)
ECDSA = replace(QUICK, authentication=Authentication.ECDSA_SIG)
CE1, KS1 = "ce1.lab.example", "ks1.lab.example"

CA = Authority()
OTHER = Authority("CN=OTHER-CA,O=elsewhere", number=1)


def member_certificate(authority: Authority = CA, **more: object) -> Issued:
    return authority.issue("CN=ce1,OU=members,O=lab", fqdns=(CE1,), **more)  # type: ignore[arg-type]  # the test's own


def server_certificate(authority: Authority = CA, **more: object) -> Issued:
    more = {"fqdns": (KS1,), "number": 1, **more}
    return authority.issue("CN=ks1,OU=key-servers,O=lab", **more)  # type: ignore[arg-type]  # as above


def member_with(*trustpoints: Trustpoint, policies: Sequence[IsakmpPolicy] = (RSA,), psk: bytes = b"") -> Party:
    return Party(MEMBER, policies, {SERVER: psk} if psk else {}, trustpoints=trustpoints, started=STARTED)


def server_with(*trustpoints: Trustpoint, policies: Sequence[IsakmpPolicy] = (RSA,), psk: bytes = b"") -> Party:
    return Party(SERVER, policies, {MEMBER: psk} if psk else {}, trustpoints=trustpoints, started=STARTED)


def good_member() -> Party:
    return member_with(trustpoint(CA, member_certificate(), fqdn=CE1))


def good_server() -> Party:
    return server_with(trustpoint(CA, server_certificate(), fqdn=KS1))


def hold(member: Party, server: Party, until: float = 60.0) -> None:
    member.isakmp.initiate(MEMBER, SERVER, 0)
    run([member, server], 0, until)


def established(member: Party, server: Party) -> bool:
    return bool(member.seen.established and server.seen.established)


# Who can come.


def test_rsa_signatures_establish_and_each_side_knows_the_other_by_its_certificate() -> None:
    member, server = good_member(), good_server()
    hold(member, server, 1)
    ours, theirs = member.seen.established[0], server.seen.established[0]
    assert ours.keys == theirs.keys and ours.last_block == theirs.last_block
    assert theirs.proven_identity == "CN=ce1,OU=members,O=lab"
    assert ours.proven_identity == "CN=ks1,OU=key-servers,O=lab"
    assert theirs.certificate is not None and theirs.certificate.domains == (CE1,)
    assert str(theirs.peer_identity) == CE1


def test_a_peer_whose_certificate_names_it_and_that_begins_anew_elsewhere_replaces_its_old_association() -> None:
    """INITIAL-CONTACT counts for the identity, which a certificate proves wherever its owner is."""
    member, server = good_member(), good_server()
    hold(member, server, 1)
    elsewhere = Endpoint(IPv4Address("172.16.99.2"))
    mine = trustpoint(CA, member_certificate(), fqdn=CE1)
    moved = Party(elsewhere, (RSA,), trustpoints=(mine,), started=STARTED)
    moved.isakmp.initiate(elsewhere, SERVER, 2)
    run([moved, server], 2, 3)
    assert [sa.peer for sa in server.isakmp.associations] == [elsewhere]


@pytest.mark.parametrize(("kind", "method"), [("256", 9), ("384", 10), ("521", 11)])
@pytest.mark.parametrize("negotiated", [Hash.SHA1, Hash.SHA512])
def test_ecdsa_signs_with_the_hash_of_its_curve_whatever_hash_is_negotiated(
    kind: str, method: int, negotiated: Hash
) -> None:
    policy = replace(ECDSA, hash=negotiated)
    member = member_with(trustpoint(CA, member_certificate(kind=kind), fqdn=CE1), policies=[policy])
    server = server_with(trustpoint(CA, server_certificate(kind=kind), fqdn=KS1), policies=[policy])
    offers: list[Datagram] = []

    def watch(datagram: Datagram) -> list[Datagram]:
        offers.append(datagram)
        return [datagram]

    member.isakmp.initiate(MEMBER, SERVER, 0)
    deliver([member, server], 0, watch)
    assert established(member, server)
    assert method.to_bytes(2, "big") in offers[1].data


@pytest.mark.parametrize("hash_name", list(Hash))
def test_rsa_signs_with_every_negotiated_hash(hash_name: Hash) -> None:
    policy = replace(RSA, hash=hash_name)
    member = member_with(trustpoint(CA, member_certificate(), fqdn=CE1), policies=[policy])
    server = server_with(trustpoint(CA, server_certificate(), fqdn=KS1), policies=[policy])
    hold(member, server, 1)
    assert established(member, server)


def test_an_identity_may_be_the_distinguished_name() -> None:
    member = member_with(trustpoint(CA, member_certificate(), fqdn=None))
    server = server_with(trustpoint(CA, server_certificate(), fqdn=None))
    hold(member, server, 1)
    identity = server.seen.established[0].peer_identity
    assert (identity.kind, str(identity)) == (IdType.DER_ASN1_DN, "CN=ce1,OU=members,O=lab")


def test_intermediate_authorities_travel_with_the_certificate() -> None:
    region = Authority("CN=REGION-CA,O=lab", number=2, parent=CA)
    city = Authority("CN=CITY-CA,O=lab", number=3, parent=region)
    crls = [CA.crl(), region.crl(), city.crl()]
    member = member_with(trustpoint(CA, member_certificate(city), fqdn=CE1, crls=crls))
    server = server_with(trustpoint(CA, server_certificate(), fqdn=KS1, crls=crls))
    hold(member, server, 1)
    names = [item.subject for item in server.seen.established[0].certificates]
    assert names == ["CN=ce1,OU=members,O=lab", "CN=CITY-CA,O=lab", "CN=REGION-CA,O=lab", "CN=LAB-CA,O=lab"]


def test_one_policy_list_serves_peers_with_keys_and_peers_with_certificates() -> None:
    psk = replace(QUICK, priority=20)
    for member in (
        member_with(trustpoint(CA, member_certificate(), fqdn=CE1)),
        Party(MEMBER, [QUICK], {SERVER: b"shared"}),
    ):
        server = server_with(trustpoint(CA, server_certificate(), fqdn=KS1), policies=[RSA, psk], psk=b"shared")
        hold(member, server, 1)
        assert established(member, server)
    assert server.seen.established[0].proven_identity == f"pre-shared key of {MEMBER.address}"


def test_a_side_offers_only_what_it_can_prove_itself_with() -> None:
    both = [RSA, replace(QUICK, priority=20)]
    member = member_with(policies=both, psk=b"shared")
    server = server_with(trustpoint(CA, server_certificate(), fqdn=KS1), policies=both, psk=b"shared")
    hold(member, server, 1)
    assert established(member, server)
    assert server.seen.established[0].certificate is None


def test_a_key_server_with_an_rsa_and_an_ecdsa_trustpoint_serves_members_of_both_kinds() -> None:
    points = (
        trustpoint(CA, server_certificate(), fqdn=KS1),
        trustpoint(CA, server_certificate(kind="384"), fqdn=KS1, name="LAB-CA_ECDSA"),
    )
    for kind, policy in (("rsa", RSA), ("384", ECDSA)):
        server = server_with(*points, policies=[RSA, replace(ECDSA, priority=20)])
        member = member_with(trustpoint(CA, member_certificate(kind=kind), fqdn=CE1), policies=[policy])
        hold(member, server, 1)
        assert established(member, server), kind


def test_of_two_trustpoints_the_one_whose_authority_the_peer_names_is_used() -> None:
    elsewhere = trustpoint(OTHER, server_certificate(OTHER), fqdn=KS1, name="OTHER-CA")
    ours = trustpoint(CA, server_certificate(), fqdn=KS1)
    member, server = good_member(), server_with(elsewhere, ours)
    hold(member, server, 1)
    assert member.seen.established[0].certificates[-1].subject == "CN=LAB-CA,O=lab"


def test_an_association_does_not_outlive_the_certificate_that_it_rests_on() -> None:
    member, server = member_with(trustpoint(CA, member_certificate(ends=600), fqdn=CE1)), good_server()
    hold(member, server, 1)
    assert server.seen.established[0].expires == 600
    run([member, server], 1, 700)
    assert server.isakmp.associations == []


# Who cannot.


def refused_by_server(member: Party, server: Party) -> tuple[str, str, str]:
    """Cause and reason that the server has, and the reason that the member has, which is refused."""
    hold(member, server)
    assert not member.seen.established and not server.seen.established
    assert member.isakmp.half_open_count == server.isakmp.half_open_count == 0
    (theirs,), (ours,) = server.seen.failures, member.seen.failures
    assert ours.cause == Cause.REFUSED, ours
    return theirs.cause, theirs.reason, ours.reason


TOO_LATE, TOO_EARLY = 60 * DAY, -60 * DAY
REGION = Authority("CN=REGION-CA,O=lab", number=2, parent=CA)
NO_CA = Authority("CN=NO-CA,O=lab", number=4, parent=CA, is_authority=False)
NOT_FOR_CERTIFICATES = Authority("CN=CRL-CA,O=lab", number=5, parent=CA, key_usage=usage(crl_sign=True))
NARROW = Authority("CN=NARROW-CA,O=lab", number=6, parent=CA, path_length=0)
BELOW_NARROW = Authority("CN=BELOW,O=lab", number=7, parent=NARROW)
REVOKED = member_certificate()

REFUSALS: dict[str, tuple[Issued, Sequence[bytes] | None, str, str]] = {
    "another CA": (
        member_certificate(OTHER),
        None,
        "is issued by CN=OTHER-CA,O=elsewhere, which is no CA of ours",
        "does not trust the CA of our certificate (INVALID-CERT-AUTHORITY): no such CA",
    ),
    "a name of the CA only": (
        member_certificate(signed_with=key_pair("rsa", 77)),
        None,
        "the signature on CN=ce1,OU=members,O=lab is not of CN=LAB-CA,O=lab",
        "(INVALID-CERTIFICATE): the signature on the certificate is wrong",
    ),
    "expired": (
        member_certificate(begins=-9 * DAY, ends=-2 * DAY),
        None,
        "has expired at 2029-12-30 00:00:00 UTC",
        "(INVALID-CERTIFICATE): the certificate has expired",
    ),
    "not yet valid": (
        member_certificate(begins=3 * DAY),
        None,
        "is not valid before 2030-01-04 00:00:00 UTC",
        "(INVALID-CERTIFICATE): the certificate is not yet valid",
    ),
    "revoked": (
        REVOKED,
        [CA.crl(REVOKED)],
        "CN=ce1,OU=members,O=lab is revoked by CN=LAB-CA,O=lab",
        "(INVALID-CERTIFICATE): the certificate is revoked",
    ),
    "revoked on an outdated list": (
        REVOKED,
        [CA.crl(REVOKED, updated=-9 * DAY, following=-DAY), CA.crl()],
        "CN=ce1,OU=members,O=lab is revoked by CN=LAB-CA,O=lab",
        "the certificate is revoked",
    ),
    "no CRL": (
        member_certificate(),
        [OTHER.crl()],
        "there is no CRL of CN=LAB-CA,O=lab",
        "(INVALID-CERTIFICATE): there is no CRL of the certificate's issuer",
    ),
    "no CRL of an intermediate authority": (
        member_certificate(REGION),
        [CA.crl()],
        "there is no CRL of CN=REGION-CA,O=lab",
        "there is no CRL",
    ),
    "a revoked authority": (
        member_certificate(REGION),
        [CA.crl(REGION), REGION.crl()],
        "CN=REGION-CA,O=lab is revoked by CN=LAB-CA,O=lab",
        "the certificate is revoked",
    ),
    "an outdated CRL": (
        member_certificate(),
        [CA.crl(updated=-9 * DAY, following=-DAY)],
        "the CRL of CN=LAB-CA,O=lab was to be renewed by 2029-12-31 00:00:00 UTC",
        "(INVALID-CERTIFICATE): the CRL is outdated",
    ),
    "a CRL of tomorrow": (
        member_certificate(),
        [CA.crl(updated=2 * DAY)],
        "the CRL of CN=LAB-CA,O=lab is not valid before 2030-01-03 00:00:00 UTC",
        "the CRL is not yet valid",
    ),
    "a CRL that somebody else signed": (
        member_certificate(),
        [CA.crl(signed_with=key_pair("rsa", 77))],
        "the signature on the CRL is not of CN=LAB-CA,O=lab",
        "the signature on the CRL is wrong",
    ),
    "an issuer that is no CA": (
        member_certificate(NO_CA),
        [CA.crl(), NO_CA.crl()],
        "CN=NO-CA,O=lab is not a CA",
        "the certificate's issuer is not a CA",
    ),
    "a CA that may not sign certificates": (
        member_certificate(NOT_FOR_CERTIFICATES),
        [CA.crl(), NOT_FOR_CERTIFICATES.crl()],
        "the key of CN=CRL-CA,O=lab is not for certificates",
        "the certificate's issuer is not a CA",
    ),
    "a CA below one that allows none": (
        member_certificate(BELOW_NARROW),
        [CA.crl(), NARROW.crl(), BELOW_NARROW.crl()],
        "CN=NARROW-CA,O=lab allows 0 CAs below it, there are 1",
        "the chain of CAs is longer than one of them allows",
    ),
    "a key that is not for signatures": (
        member_certificate(extensions=[(usage(key_encipherment=True), True)]),
        None,
        "the key of CN=ce1,OU=members,O=lab is not for signatures",
        "the certificate's key is not for signatures",
    ),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_a_certificate_that_is_not_believed_is_refused_and_both_sides_know_why(case: str) -> None:
    own, crls, says, hears = REFUSALS[case]
    server = server_with(trustpoint(CA, server_certificate(), fqdn=KS1, crls=crls))
    cause, reason, told = refused_by_server(member_with(trustpoint(CA, own, fqdn=CE1)), server)
    assert cause == Cause.CERTIFICATE
    assert says in reason
    assert hears in told


@pytest.mark.parametrize("case", REFUSALS)
def test_a_key_server_that_is_not_believed_hears_so_under_the_association_and_ends_it(case: str) -> None:
    """The initiator is the last to judge: by then its peer takes phase 1 for done."""
    own, crls, says, hears = REFUSALS[case]
    member = member_with(trustpoint(CA, member_certificate(), fqdn=CE1, crls=crls))
    server = server_with(trustpoint(CA, own, fqdn=CE1))
    hold(member, server)
    assert not member.seen.established and server.isakmp.associations == []
    assert [failure.cause for failure in member.seen.failures] == [Cause.CERTIFICATE]
    assert says in member.seen.failures[0].reason
    assert [failure.cause for failure in server.seen.failures] == [Cause.REFUSED]
    assert hears in server.seen.failures[0].reason


def test_without_revocation_check_no_crl_is_asked_for_and_none_is_believed() -> None:
    server = server_with(trustpoint(CA, server_certificate(), fqdn=KS1, crls=[CA.crl(REVOKED)], check_revocation=False))
    member = member_with(trustpoint(CA, REVOKED, fqdn=CE1))
    hold(member, server, 1)
    assert established(member, server)


@pytest.mark.parametrize(
    ("what", "own", "fqdn"),
    [
        ("another domain name", CA.issue("CN=ce1,O=lab", fqdns=("ce9.lab.example",)), CE1),
        ("no domain name at all", CA.issue("CN=ce1.lab.example,O=lab", fqdns=()), CE1),
        ("a wildcard", CA.issue("CN=ce1,O=lab", fqdns=("*.lab.example",)), CE1),
    ],
)
def test_an_identity_that_is_not_in_the_certificate_is_refused_on_both_sides(what: str, own: Issued, fqdn: str) -> None:
    cause, reason, told = refused_by_server(member_with(trustpoint(CA, own, fqdn=fqdn)), good_server())
    assert cause == Cause.CERTIFICATE
    assert f"the identity {fqdn} is not in the certificate of" in reason, what
    assert told.endswith("(INVALID-ID-INFORMATION): the identity is not in the certificate")


Change = Callable[[list[Payload]], list[Payload]]


def changing(monkeypatch: pytest.MonkeyPatch, change: Change) -> None:
    """Have the initiator's message 5 changed before it is sealed."""
    genuine = MainMode._proof

    def changed(self: MainMode) -> list[Payload]:
        return change(genuine(self)) if self.initiator else genuine(self)

    monkeypatch.setattr(MainMode, "_proof", changed)


def test_an_identity_is_a_name_of_the_certificate_of_whatever_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    """HASH_I covers the identity, so each kind is signed as it is sent."""
    own = member_certificate(addresses=("172.16.11.2", "2001:db8::1"), mailboxes=("ops@lab.example",))
    names = [
        (Identification(IdType.IPV4_ADDR, bytes((172, 16, 11, 2))), True),
        (Identification(IdType.IPV4_ADDR, bytes((172, 16, 11, 3))), False),
        (Identification(IdType.IPV6_ADDR, bytes.fromhex("20010db8000000000000000000000001")), True),
        (Identification(IdType.USER_FQDN, b"ops@lab.example"), True),
        (Identification(IdType.USER_FQDN, b"root@lab.example"), False),
        (Identification(IdType.FQDN, b"CE1.Lab.Example"), True),
        (Identification(IdType.FQDN, b"ce1.lab.example\xff"), False),
        (Identification(IdType.DER_ASN1_DN, b"0\x00"), False),
        (Identification(IdType.DER_ASN1_DN, b"not a name"), False),
        (Identification(IdType.KEY_ID, b"ce1.lab.example"), False),
    ]
    for identity, good in names:
        server = good_server()
        with monkeypatch.context() as patch:
            patch.setattr(authentication, "_identity", lambda *_, identity=identity: identity)
            member = member_with(trustpoint(CA, own, fqdn=CE1))
        hold(member, server, 1)
        assert bool(server.seen.established) is good, identity


@pytest.mark.parametrize(
    ("what", "change", "notify", "says"),
    [
        (
            "no certificate",
            lambda payloads: [item for item in payloads if not isinstance(item, Certificate)],
            NotifyType.CERTIFICATE_UNAVAILABLE,
            "no certificate was sent",
        ),
        (
            "a PGP certificate",
            lambda payloads: [
                Certificate(2, item.data) if isinstance(item, Certificate) else item for item in payloads
            ],
            NotifyType.CERT_TYPE_UNSUPPORTED,
            "a certificate of encoding 2",
        ),
        (
            "a certificate that is none",
            lambda payloads: [Certificate(4, b"?") if isinstance(item, Certificate) else item for item in payloads],
            NotifyType.INVALID_CERTIFICATE,
            "a certificate is malformed",
        ),
        (
            "a chain of nine",
            lambda payloads: [*payloads, *[Certificate(4, CA.der)] * 8],
            NotifyType.INVALID_CERTIFICATE,
            "a chain of 9 certificates",
        ),
        (
            "a signature of nobody",
            lambda payloads: [Signature(bytes(256)) if isinstance(item, Signature) else item for item in payloads],
            NotifyType.INVALID_SIGNATURE,
            "the signature that proves the identity of CN=ce1,OU=members,O=lab is wrong",
        ),
        (
            "the certificate of another key",
            lambda payloads: [
                Certificate(4, server_certificate().chain[0]) if isinstance(item, Certificate) else item
                for item in payloads
            ],
            NotifyType.INVALID_SIGNATURE,
            "the signature that proves the identity of CN=ks1,OU=key-servers,O=lab is wrong",
        ),
        (
            "a certificate of another kind of key",
            lambda payloads: [
                Certificate(4, member_certificate(kind="256").chain[0]) if isinstance(item, Certificate) else item
                for item in payloads
            ],
            NotifyType.CERT_TYPE_UNSUPPORTED,
            "is for ECDSA_256, agreed is RSA_SIGNATURE",
        ),
    ],
)
def test_a_proof_that_is_none_is_refused_with_a_type_of_its_own(
    monkeypatch: pytest.MonkeyPatch, what: str, change: Change, notify: NotifyType, says: str
) -> None:
    changing(monkeypatch, change)
    member, server = good_member(), good_server()
    member.isakmp.initiate(MEMBER, SERVER, 0)
    answers: list[Datagram] = []

    def watch(datagram: Datagram) -> list[Datagram]:
        answers.append(datagram)
        return [datagram]

    deliver([member, server], 0, watch)
    run([member, server], 0, 60)
    assert [failure.cause for failure in server.seen.failures] == [Cause.CERTIFICATE], what
    assert says in server.seen.failures[0].reason
    header = Header.parse(answers[-1].data)
    assert header.exchange == ExchangeType.INFORMATIONAL
    told = parse_chain(header.next_payload, Reader(answers[-1].data, HEADER_OCTETS))[0].payload
    assert isinstance(told, Notification) and told.kind == notify
    assert b"ce1" not in told.data and b"CN=" not in told.data, "what travels in clear names nobody"
    assert [failure.cause for failure in member.seen.failures] == [Cause.REFUSED]


def test_a_crl_beside_the_certificate_is_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    changing(monkeypatch, lambda payloads: [*payloads, Certificate(7, b"whatever it is")])
    member, server = good_member(), good_server()
    hold(member, server, 1)
    assert established(member, server)


def test_without_a_certificate_we_neither_begin_nor_answer_and_say_why() -> None:
    member, server = member_with(), good_server()
    assert not member.isakmp.initiate(MEMBER, SERVER, 0)
    assert member.seen.failures[0].reason == "no certificate for rsa-sig is configured here"
    member, server = good_member(), server_with()
    hold(member, server)
    assert [(item.cause, item.reason) for item in server.seen.failures] == [
        (Cause.NO_KEY, "no certificate for rsa-sig is configured here")
    ]
    assert [item.reason for item in member.seen.failures] == ["a certificate is missing (CERTIFICATE-UNAVAILABLE)"]


def test_curves_that_differ_are_no_common_ground() -> None:
    member = member_with(trustpoint(CA, member_certificate(kind="256"), fqdn=CE1), policies=[ECDSA])
    server = server_with(trustpoint(CA, server_certificate(kind="384"), fqdn=KS1), policies=[ECDSA])
    hold(member, server)
    assert server.seen.failures[0].reason == "no certificate for ecdsa-sig is configured here"
    assert member.seen.failures[0].reason == "a certificate is missing (CERTIFICATE-UNAVAILABLE)"


# What is asked for, and what it costs.


def clear_payloads(member: Party, server: Party) -> list[Payload]:
    found: list[Payload] = []

    def watch(datagram: Datagram) -> list[Datagram]:
        header = Header.parse(datagram.data)
        if not header.encrypted:
            chain = parse_chain(header.next_payload, Reader(datagram.data, HEADER_OCTETS))
            found.extend(item.payload for item in chain)
        return [datagram]

    member.isakmp.initiate(MEMBER, SERVER, 0)
    deliver([member, server], 0, watch)
    return found


def test_each_side_names_its_authorities_once_and_only_where_certificates_are_agreed() -> None:
    both = [RSA, replace(QUICK, priority=20)]
    points = [trustpoint(CA, server_certificate(), fqdn=KS1), trustpoint(CA, server_certificate(kind="384"), fqdn=KS1)]
    payloads = clear_payloads(good_member(), server_with(*points, policies=both))
    asked = [item.authority for item in payloads if isinstance(item, CertificateRequest)]
    assert asked == [CA.certificate.subject.public_bytes()] * 2
    member = member_with(policies=[QUICK], psk=b"shared")
    payloads = clear_payloads(member, server_with(*points, policies=both, psk=b"shared"))
    assert member.seen.established
    assert [item for item in payloads if isinstance(item, CertificateRequest)] == []


def test_requests_beyond_the_limit_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    flood = [CertificateRequest(4, bytes((0x30, 1, number))) for number in range(50)]
    monkeypatch.setattr(Credentials, "requests", lambda self: flood)
    kept: list[int] = []
    genuine = MainMode._proof

    def count(self: MainMode) -> list[Payload]:
        kept.append(len(self._requested))
        return genuine(self)

    monkeypatch.setattr(MainMode, "_proof", count)
    member, server = good_member(), good_server()
    hold(member, server, 1)
    assert established(member, server)
    assert kept == [MAX_REQUESTS, MAX_REQUESTS]


def test_one_exchange_costs_a_few_proofs_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever holds the keys of an exchange can send any number of messages 5."""
    looked: list[Method] = []
    genuine = Credentials.verify

    def count(self: Credentials, method: Method, *rest: object) -> object:
        looked.append(method)
        return genuine(self, method, *rest)  # type: ignore[arg-type]  # passed through

    monkeypatch.setattr(Credentials, "verify", count)
    changing(
        monkeypatch,
        lambda payloads: [Signature(bytes(256)) if isinstance(item, Signature) else item for item in payloads],
    )
    member, server = good_member(), good_server()
    member.isakmp.initiate(MEMBER, SERVER, 0)
    sent: list[Datagram] = []

    def watch(datagram: Datagram) -> list[Datagram]:
        sent.append(datagram)
        return [datagram]

    deliver([member, server], 0, watch)
    fifth = next(item for item in sent if Header.parse(item.data).encrypted)
    for number in range(20):
        # Another pad behind the last payload: the same message, but no duplicate.
        flipped = fifth.data[:-1] + bytes((fifth.data[-1] ^ (number + 1),))
        server.isakmp.receive(replace(fifth, data=flipped), 1)
    assert len(looked) <= MAX_PROOFS
    assert len(server.seen.failures) == 1


# What changes while it runs.


def test_a_new_crl_ends_the_association_of_the_revoked_member_and_keeps_it_out() -> None:
    own, stays = member_certificate(), member_certificate()
    point = trustpoint(CA, server_certificate(), fqdn=KS1)
    member, server = member_with(trustpoint(CA, own, fqdn=CE1)), server_with(point)
    hold(member, server, 1)
    server.isakmp.set_trustpoints([replace(point, crls=(CA.crl(stays),))], 2)
    assert len(server.isakmp.associations) == 1, "somebody else was revoked"
    server.isakmp.set_trustpoints([replace(point, crls=(CA.crl(own),))], 3)
    deliver([member, server], 3)
    assert server.isakmp.associations == member.isakmp.associations == []
    assert server.seen.deleted[0][1] == "CN=ce1,OU=members,O=lab is revoked by CN=LAB-CA,O=lab"
    member.isakmp.initiate(MEMBER, SERVER, 4)
    run([member, server], 4, 60)
    assert len(server.seen.established) == 1
    assert "the certificate is revoked" in member.seen.failures[0].reason


@pytest.mark.parametrize("crls", [[], [CA.crl(updated=-9 * DAY, following=-DAY)], [CA.crl(updated=9 * DAY)]])
def test_a_list_that_says_nothing_ends_no_association_but_lets_nobody_in_anew(crls: list[bytes]) -> None:
    point = trustpoint(CA, server_certificate(), fqdn=KS1)
    member, server = good_member(), server_with(point)
    hold(member, server, 1)
    server.isakmp.set_trustpoints([replace(point, crls=tuple(crls))], 2)
    assert len(server.isakmp.associations) == 1
    member.isakmp.initiate(MEMBER, SERVER, 3)
    run([member, server], 3, 60)
    assert len(server.seen.established) == 1
    assert [failure.cause for failure in server.seen.failures] == [Cause.CERTIFICATE]


def test_an_authority_that_is_trusted_no_more_takes_its_members_along() -> None:
    point = trustpoint(CA, server_certificate(), fqdn=KS1)
    member, server = good_member(), server_with(point)
    hold(member, server, 1)
    server.isakmp.set_trustpoints([replace(point, authorities=(OTHER.der,))], 2)
    assert server.isakmp.associations == []


def test_trustpoints_that_do_not_parse_change_nothing() -> None:
    point = trustpoint(CA, server_certificate(), fqdn=KS1)
    member, server = good_member(), server_with(point)
    for broken, says in (
        (replace(point, authorities=(b"0",)), "LAB-CA: a certificate is malformed"),
        (replace(point, crls=(b"0",)), "LAB-CA: a CRL is malformed"),
        (replace(point, private_key=b"0"), "LAB-CA: no private key"),
        (replace(point, private_key=trustpoint(CA, member_certificate(number=5)).private_key), "is not that of CN=ks1"),
    ):
        with pytest.raises(LocalError, match=says):
            server.isakmp.set_trustpoints([broken], 0)
    hold(member, server, 1)
    assert established(member, server)


def test_time_on_the_parties_clock_is_time_on_the_wall() -> None:
    """A certificate that is good now is none after its end, and an agent that has run for a while knows."""
    member, server = good_member(), good_server()
    member.isakmp.initiate(MEMBER, SERVER, 301 * DAY)
    run([member, server], 301 * DAY, 301 * DAY + 60)
    assert "has expired at" in server.seen.failures[0].reason


def test_a_message_5_that_is_lost_or_doubled_changes_nothing() -> None:
    for copies in (0, 2):
        member, server = good_member(), good_server()
        seen = 0

        def network(datagram: Datagram, copies: int = copies) -> list[Datagram]:
            nonlocal seen
            if Header.parse(datagram.data).encrypted:
                seen += 1
                return [datagram] * (copies if seen == 1 else 1)
            return [datagram]

        member.isakmp.initiate(MEMBER, SERVER, 0)
        run([member, server], 0, 60, network)
        assert established(member, server)
        assert len(server.seen.established) == 1


def test_a_hint_in_clear_shows_at_once_and_shows_nothing_that_cannot_be_printed() -> None:
    own = member_certificate(begins=-9 * DAY, ends=-2 * DAY)
    member, server = member_with(trustpoint(CA, own, fqdn=CE1)), good_server()
    member.isakmp.initiate(MEMBER, SERVER, 0)
    deliver([member, server], 0)
    hints = [event for event in iter(member.isakmp.next_event, None) if isinstance(event, Phase1Hint)]
    assert [hint.reason for hint in hints] == [
        "it refuses our certificate (INVALID-CERTIFICATE): the certificate has expired"
    ]


def test_a_group_of_members_with_large_keys_still_fits_one_datagram() -> None:
    """IP fragments what is too long for a link; UDP has room for the longest chain."""
    links = [CA]
    for number in range(6):
        links.append(Authority(f"CN=CA-{number},O=lab", number=20 + number, parent=links[-1]))
    crls = [item.crl() for item in links]
    member = member_with(trustpoint(CA, member_certificate(links[-1]), fqdn=CE1, crls=crls))
    server = server_with(trustpoint(CA, server_certificate(), fqdn=KS1, crls=crls))
    hold(member, server, 1)
    assert established(member, server)


@pytest.mark.parametrize("group", [DhGroup.MODP2048, DhGroup.ECP384])
def test_signatures_go_with_either_kind_of_group(group: DhGroup) -> None:
    policy = replace(RSA, group=group)
    member = member_with(trustpoint(CA, member_certificate(), fqdn=CE1), policies=[policy])
    server = server_with(trustpoint(CA, server_certificate(), fqdn=KS1), policies=[policy])
    hold(member, server, 1)
    assert established(member, server)


PLAIN = trustpoint(CA, member_certificate(), fqdn=CE1)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_mutated_message_5_lets_nobody_in_and_raises_nothing(
    monkeypatch: pytest.MonkeyPatch, data: st.DataObject
) -> None:
    """Whoever holds the keys of an exchange can put anything into CERT, ID and SIG."""

    def mutate(octets: bytes) -> bytes:
        changed = bytearray(octets)
        for _ in range(data.draw(st.integers(1, 3))):
            changed[data.draw(st.integers(0, len(changed) - 1))] ^= data.draw(st.integers(1, 255))
        return bytes(changed[: data.draw(st.integers(len(changed) - 3, len(changed)))])

    def change(payloads: list[Payload]) -> list[Payload]:
        place = data.draw(st.integers(0, len(payloads) - 1))
        item = payloads[place]
        if isinstance(item, Certificate):
            payloads[place] = Certificate(item.encoding, mutate(item.data))
        elif isinstance(item, Identification):
            payloads[place] = Identification(data.draw(st.integers(0, 15)), mutate(item.data))
        elif isinstance(item, Signature):
            payloads[place] = Signature(mutate(item.data))
        return payloads

    with monkeypatch.context() as patch:
        changing(patch, change)
        member, server = member_with(PLAIN), good_server()
        member.isakmp.initiate(MEMBER, SERVER, 0)
        deliver([member, server], 0)
        assert server.seen.established == []
        assert len(server.seen.failures) == 1
        run([member, server], 0, 60)
        assert server.isakmp.half_open_count == 0
