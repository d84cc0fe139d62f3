"""Who gets keys: certificates, lists of addresses and of identities, and what a new CRL changes."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Network

import pytest
from gdoi_parties import KS1, POLICY, World, group, group_member, key_server, member_address
from pki_material import DAY, STARTED, Authority, Issued, trustpoint

from labctl.configuration import Authentication, CertificateIdentity, IsakmpPolicy, RekeyPolicy, RekeyTransport
from labctl.gdoi import GroupMember, KeyServer
from labctl.isakmp.errors import LocalError

RSA = replace(POLICY, authentication=Authentication.RSA_SIG)
CA = Authority()
GROUP = "GETVPN_LAB"
UNICAST = RekeyPolicy(transport=RekeyTransport.UNICAST)

Identities = tuple[CertificateIdentity, ...]


def dn(text: str) -> CertificateIdentity:
    return CertificateIdentity(dn=text)


def fqdn(text: str) -> CertificateIdentity:
    return CertificateIdentity(fqdn=text)


def certificate(number: int = 0, **more: float) -> Issued:
    name = f"ce{number + 1}"
    return CA.issue(f"CN={name},OU=members,O=lab", fqdns=(f"{name}.lab.example",), number=number, **more)  # type: ignore[arg-type]  # times


def server(
    identities: Identities | None = None, *, policies: tuple[IsakmpPolicy, ...] = (RSA,), authorized: str = ""
) -> KeyServer:
    own = CA.issue("CN=ks1,OU=key-servers,O=lab", fqdns=("ks1.lab.example",), number=9)
    networks = [IPv4Network(authorized)] if authorized else []
    configuration = group(authorized_identities=identities, authorized=networks)
    return key_server(
        replace(configuration, rekey=UNICAST),
        policies=policies,
        trustpoints=[trustpoint(CA, own, fqdn="ks1.lab.example")],
        started=STARTED,
    )


def member(own: Issued | None = None, number: int = 0, **more: str | None) -> GroupMember:
    point = trustpoint(CA, own or certificate(number), **{"fqdn": f"ce{number + 1}.lab.example", **more})  # type: ignore[arg-type]  # names
    return group_member(number, policies=[RSA], keys_for=[], trustpoints=[point], started=STARTED)


def registered(world: World, party: GroupMember, until: float = 1) -> bool:
    party.start(world.now)
    world.run(until)
    return party.registered


def test_a_member_with_a_certificate_registers() -> None:
    world = World({KS1: server()}, [joining := member()])
    assert registered(world, joining)
    (known,) = world.parties[KS1].group(GROUP).members.values()  # type: ignore[union-attr]  # a key server
    assert known.certificates[0].subject == "CN=ce1,OU=members,O=lab"


@pytest.mark.parametrize(
    ("identities", "welcome"),
    [
        (None, True),
        ((dn("OU=members"),), True),
        ((dn("O=LAB,OU=Members"),), True),
        ((dn("CN=ce1,OU=members,O=lab"),), True),
        ((dn("CN=ce2"), fqdn("ce1.lab.example")), True),
        ((fqdn("lab.example"),), True),
        ((fqdn("LAB.example"),), True),
        ((fqdn("b.example"),), False),
        ((fqdn("e1.lab.example"),), False),
        ((dn("OU=key-servers"),), False),
        ((dn("OU=members,O=elsewhere"),), False),
        ((dn("CN=ce1+OU=members,L=here"),), False),
        ((), False),
    ],
)
def test_authorization_identity_looks_at_the_subject_and_the_names(
    identities: Identities | None, welcome: bool
) -> None:
    world = World({KS1: server(identities)}, [joining := member()])
    assert registered(world, joining) is welcome
    assert ("UNAUTHORIZED_IDENTITY" in world.logs(KS1)) is not welcome


def test_an_identity_that_is_not_listed_gets_no_key_and_both_sides_say_so() -> None:
    world = World({KS1: server((dn("OU=staff"),))}, [joining := member()])
    assert not registered(world, joining)
    assert world.texts(KS1, "UNAUTHORIZED_IDENTITY") == [
        f"Group {GROUP} received registration from unauthorized identity: CN=ce1,OU=members,O=lab. "
        f"Peer Address: {member_address(0)}"
    ]
    assert world.texts(KS1, "KS_UNAUTHORIZED") == [
        f"Registration: GM {member_address(0)} (CN=ce1,OU=members,O=lab) is not authorized to join the group {GROUP}"
    ]
    assert joining.reason == (
        f"{KS1}: it does not authorize this member for group 1234: its identity is not authorized"
    )


def test_an_empty_identity_lets_nobody_in_as_a_router_puts_it() -> None:
    world = World({KS1: server(())}, [joining := member()])
    assert not registered(world, joining)
    assert world.texts(KS1, "UNAUTHORIZED_IDENTITY")[0].endswith(
        f"unauthorized identity: Dist. name parsing failed. Peer Address: {member_address(0)}"
    )


def test_a_pre_shared_key_has_no_identity_that_a_list_could_hold() -> None:
    policies = (RSA, replace(POLICY, priority=20))
    world = World({KS1: server((dn("OU=members"),), policies=policies)}, [joining := group_member()])
    assert not registered(world, joining)
    assert "Dist. name parsing failed" in world.texts(KS1, "UNAUTHORIZED_IDENTITY")[0]


def test_address_and_identity_are_both_looked_at() -> None:
    world = World({KS1: server((dn("OU=members"),), authorized="192.0.2.0/24")}, [joining := member()])
    assert not registered(world, joining)
    assert "UNAUTHORIZED_IPADDR" in world.logs(KS1) and "UNAUTHORIZED_IDENTITY" not in world.logs(KS1)
    assert joining.reason.endswith("its address is not authorized")


@pytest.mark.parametrize("line", [CertificateIdentity(), CertificateIdentity("CN=x", "y"), dn("no name"), dn("")])
def test_a_line_that_names_nobody_is_refused_when_the_group_is_made_or_changed(line: CertificateIdentity) -> None:
    with pytest.raises(LocalError, match=GROUP):
        server((line,))
    serving = server()
    with pytest.raises(LocalError, match=GROUP):
        serving.reconfigure(group(authorized_identities=[line]))


def test_a_member_that_is_not_believed_says_why_and_so_does_the_key_server() -> None:
    expired = certificate(begins=-9 * DAY, ends=-DAY)
    world = World({KS1: server()}, [joining := member(expired)])
    assert not registered(world, joining, 31)
    assert world.texts(KS1, "IKMP_INVAL_CERT") == [
        f"Certificate received from {member_address(0)} is bad: CN=ce1,OU=members,O=lab has expired at "
        "2029-12-31 00:00:00 UTC"
    ]
    assert joining.reason == (f"{KS1}: it refuses our certificate (INVALID-CERTIFICATE): the certificate has expired")
    assert joining.reason.removeprefix(f"{KS1}: ") in world.texts(member_address(0), "IKMP_MODE_FAILURE")[0]


def test_a_member_that_does_not_believe_its_key_server_says_why_and_so_does_the_key_server() -> None:
    other = Authority("CN=OTHER-CA,O=elsewhere", number=1)
    point = replace(trustpoint(CA, certificate(), fqdn="ce1.lab.example"), authorities=(other.der,))
    joining = group_member(0, policies=[RSA], keys_for=[], trustpoints=[point], started=STARTED)
    world = World({KS1: server()}, [joining])
    assert not registered(world, joining, 31)
    assert joining.reason == f"{KS1}: CN=ks1,OU=key-servers,O=lab is issued by CN=LAB-CA,O=lab, which is no CA of ours"
    assert "is bad: CN=ks1" in world.texts(member_address(0), "IKMP_INVAL_CERT")[0]
    assert "it does not trust the CA of our certificate" in world.texts(KS1, "IKMP_MODE_FAILURE")[0]


def test_a_new_crl_throws_a_member_out_and_gives_all_others_keys_that_it_does_not_know() -> None:
    serving, thrown = server(), certificate(1)
    stays, goes = member(number=0), member(thrown, number=1)
    world = World({KS1: serving}, [stays, goes])
    assert registered(world, stays) and registered(world, goes, 2)
    own = CA.issue("CN=ks1,OU=key-servers,O=lab", fqdns=("ks1.lab.example",), number=9)
    point = trustpoint(CA, own, fqdn="ks1.lab.example", crls=[CA.crl(thrown)])
    serving.set_trustpoints([point], world.now)
    assert [sa.peer.address for sa in serving.isakmp.associations] == [member_address(0)]
    world.run(2000)
    assert world.texts(KS1, "KS_GM_REVOKED") == [
        f"GM {member_address(1)} is let into the group {GROUP} no more: CN=ce2,OU=members,O=lab is revoked by "
        "CN=LAB-CA,O=lab"
    ]
    assert list(serving.group(GROUP).members) == [member_address(0)]
    assert "the certificate is revoked" in goes.reason
    assert stays.keys is not None
    fresh = set(stays.keys.teks) - set(goes.keys.teks if goes.keys is not None else ())
    assert fresh, "the others go on under keys that the revoked member does not have"
    world.run(8000)
    assert stays.registered and not goes.registered


def test_a_crl_that_revokes_nobody_here_changes_nothing() -> None:
    serving, joining = server(), member()
    world = World({KS1: serving}, [joining])
    assert registered(world, joining)
    before = world.logs(KS1)
    own = CA.issue("CN=ks1,OU=key-servers,O=lab", fqdns=("ks1.lab.example",), number=9)
    serving.set_trustpoints([trustpoint(CA, own, fqdn="ks1.lab.example", crls=[CA.crl(certificate(3))])], world.now)
    world.settle()
    assert world.logs(KS1) == before and len(serving.isakmp.associations) == 1


def test_a_member_can_be_given_another_certificate_while_it_runs() -> None:
    joining = member(certificate(begins=-9 * DAY, ends=-DAY))
    world = World({KS1: server()}, [joining])
    assert not registered(world, joining, 40)
    joining.set_trustpoints([trustpoint(CA, certificate(), fqdn="ce1.lab.example")], world.now)
    world.run(600)
    assert joining.registered


def test_a_member_that_was_refused_comes_at_once_with_a_new_certificate() -> None:
    expired = certificate(begins=-2 * DAY, ends=-DAY)
    world = World({KS1: server()}, [ce1 := member(expired)])
    assert not registered(world, ce1)
    ce1.set_trustpoints([trustpoint(CA, certificate(), fqdn="ce1.lab.example")], world.now)
    world.run(world.now + 1)
    assert ce1.registered
    assert ce1.attempts == 2
