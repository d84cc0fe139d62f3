"""Agents with certificates: chains that IP has to fragment, revocation while they run, requests gone wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from node_getvpn import GROUP, key_server, key_server_place, member, member_address, member_place, site_address
from node_requests import agent, connected, run
from node_world import World
from pki_material import STARTED, Authority, Issued, trustpoint

from labctl.configuration import (
    Authentication,
    CertificateIdentity,
    DhGroup,
    IsakmpPolicy,
    NodeConfiguration,
    RekeyPolicy,
    RekeyTransport,
    RsaKeyPair,
    Trustpoint,
    to_json,
)
from labctl.crypto.authority import generate_key
from labctl.door import DoorError

RSA = (IsakmpPolicy(group=DhGroup.ECP256, authentication=Authentication.RSA_SIG),)
MEMBERS = [member_address(number) for number in (1, 2)]
PLACES = (key_server_place(), member_place(1), member_place(2))
CA = Authority()
# Two CAs between make a message that an Ethernet carries in two fragments.
BETWEEN = Authority("CN=CITY-CA,O=lab", number=3, parent=Authority("CN=REGION-CA,O=lab", number=2, parent=CA))


def own(name: str, number: int) -> Issued:
    return BETWEEN.issue(f"CN={name},OU=members,O=lab", fqdns=(f"{name}.lab.example",), number=number)


def point(issued: Issued, name: str, revoked: Sequence[Issued] = ()) -> Trustpoint:
    above = BETWEEN.parent
    assert above is not None
    crls = [CA.crl(), above.crl(), BETWEEN.crl(*revoked)]
    return trustpoint(CA, issued, fqdn=f"{name}.lab.example", crls=crls)


def signing(configuration: NodeConfiguration, trust: Trustpoint) -> NodeConfiguration:
    """The same node, with a certificate in place of keys."""
    groups = tuple(
        replace(
            group,
            authorized_identities=(CertificateIdentity(dn="OU=members"),),
            rekey=RekeyPolicy(transport=RekeyTransport.UNICAST),
        )
        for group in configuration.key_server_groups
    )
    return replace(
        configuration,
        isakmp_policies=RSA,
        pre_shared_keys=(),
        trustpoints=(trust,),
        key_server_groups=groups,
        started=STARTED,
    )


@pytest.mark.lab
def test_members_with_certificates_register_and_one_that_is_revoked_while_it_runs_is_out() -> None:
    serves, stays, goes = own("ks1", 9), own("gm1", 0), own("gm2", 1)
    assert sum(len(item) for item in stays.chain) > 1500, "one Ethernet frame would hold it"

    async def main(world: World) -> None:
        ks, gm1, gm2 = [await connected(world.door[name]) for name in ("ks", "gm1", "gm2")]
        serving = signing(key_server(MEMBERS, clock_scale=20), point(serves, "ks1"))
        await ks.boot(serving)
        await gm1.boot(signing(member(1, clock_scale=20), point(stays, "gm1")))
        await gm2.boot(signing(member(2, clock_scale=20), point(goes, "gm2")))
        for node in (gm1, gm2):
            await node.events.until(type="state", state="ready")
        answer = await gm1.call("probe", destination=site_address(2), count=3, interval=0.01)
        assert answer["received"] == 3
        [group] = (await ks.call("status"))["groups"]
        assert group["identities"] == {
            str(MEMBERS[0]): "CN=gm1,OU=members,O=lab",
            str(MEMBERS[1]): "CN=gm2,OU=members,O=lab",
        }
        revoking = point(serves, "ks1", [goes])
        assert await ks.call("trustpoints", trustpoints=[to_json(revoking)]) == {}
        event = await ks.events.until(type="log", mnemonic="KS_GM_REVOKED")
        assert f"GM {MEMBERS[1]} is let into the group {GROUP} no more" in event["text"]
        await gm2.events.until_reason("it refuses our certificate", "the certificate is revoked")
        await ks.boot(serving)  # a fabric that came back and knows nothing of it
        with pytest.raises(DoorError, match="trustpoint LAB-CA"):
            broken = replace(revoking, private_key=b"0")
            await ks.call("configure", configuration=to_json(replace(serving, trustpoints=(broken,))))
        await ks.call("configure", configuration=to_json(replace(serving, trustpoints=(revoking,))))
        [group] = (await ks.call("status"))["groups"]
        assert str(MEMBERS[1]) not in group["members"]
        for node in (ks, gm1, gm2):
            await node.connection.close()

    with World(PLACES) as world:
        run(main(world))


def refusal(args: dict[str, Any], op: str = "trustpoints") -> DoorError:
    """What an agent without a group answers."""
    found: list[DoorError] = []

    async def main() -> None:
        async with agent() as node:
            await node.boot()
            with pytest.raises(DoorError) as caught:
                await node.call(op, **args)
            found.append(caught.value)

    run(main())
    return found[0]


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ({}, "expected a list of trustpoints"),
        ({"trustpoints": {}}, "expected a list of trustpoints"),
        ({"trustpoints": [], "group": "x"}, "and nothing else"),
        ({"trustpoints": [{"name": "LAB-CA"}]}, "trustpoints[0].authorities: missing"),
        ({"trustpoints": [{"name": "LAB-CA", "authorities": ["zz"]}]}, "trustpoints[0].authorities[0]"),
    ],
)
def test_trustpoints_that_do_not_fit_are_refused_with_their_place(args: dict[str, Any], says: str) -> None:
    error = refusal(args)
    assert error.code == "bad-argument"
    assert says in error.message


def test_a_node_without_a_group_has_no_use_for_trustpoints() -> None:
    assert refusal({"trustpoints": []}).code == "not-served"


@pytest.mark.lab
def test_a_certificate_that_does_not_parse_fails_the_boot_with_a_reason_and_an_order_without_harm() -> None:
    good = point(own("gm1", 0), "gm1")

    async def main(world: World) -> None:
        node, broken = await connected(world.door["gm1"]), await connected(world.door["gm2"])
        await broken.boot(signing(member(2), replace(good, private_key=b"0")))
        event = await broken.events.until(type="state", state="failed")
        assert "trustpoint LAB-CA: no private key" in event["reason"]
        await node.boot(signing(member(1), good))
        with pytest.raises(DoorError, match="trustpoint LAB-CA: a CRL is malformed"):
            await node.call("trustpoints", trustpoints=[to_json(replace(good, crls=(b"0",)))])
        assert (await node.call("status"))["state"] == "booting"
        for item in (node, broken):
            await item.connection.close()

    with World(PLACES[1:]) as world:
        run(main(world))


def signing_with(configuration: NodeConfiguration, *pairs: RsaKeyPair) -> NodeConfiguration:
    """The same key server, with labelled pairs."""
    rekey = RekeyPolicy(transport=RekeyTransport.UNICAST, key_label="KS_KEY")
    groups = tuple(replace(group, rekey=rekey) for group in configuration.key_server_groups)
    return replace(configuration, key_server_groups=groups, rsa_keys=pairs)


@pytest.mark.lab
def test_a_key_server_without_its_pair_says_so_and_takes_one_while_it_runs() -> None:
    async def main(world: World) -> None:
        ks, gm1 = [await connected(world.door[name]) for name in ("ks", "gm1")]
        await ks.boot(signing_with(key_server(MEMBERS)))
        missing = await ks.events.until(type="log", mnemonic="KS_NO_RSA_KEYS")
        assert missing["text"] == f"RSA Key - KS_KEY : Not found, Required for group {GROUP}"
        await gm1.boot(member(1))
        await gm1.events.until(type="state", state="ready")
        [group] = (await gm1.call("status"))["groups"]
        assert group["kek_left"] is None, "a group without a pair has no rekeys"
        with pytest.raises(DoorError, match="private key"):
            await ks.call("rsa-keys", rsa_keys=[to_json(RsaKeyPair("KS_KEY", b"0"))])
        pair = RsaKeyPair("KS_KEY", generate_key("rsa", 2048))
        assert await ks.call("rsa-keys", rsa_keys=[to_json(pair)]) == {}
        await gm1.call("gdoi", action="reregister")
        await gm1.events.until(type="log", mnemonic="SA_KEK_UPDATED")
        for node in (ks, gm1):
            await node.connection.close()

    with World(PLACES) as world:
        run(main(world))


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        ({}, "bad-argument", "expected a list of rsa_keys"),
        ({"rsa_keys": [{"label": "KS_KEY"}]}, "bad-argument", "rsa_keys[0].private_key: missing"),
        ({"rsa_keys": []}, "not-served", "this node is no key server"),
    ],
)
def test_key_pairs_are_for_key_servers_and_must_fit(args: dict[str, Any], code: str, says: str) -> None:
    error = refusal(args, "rsa-keys")
    assert error.code == code
    assert says in error.message
