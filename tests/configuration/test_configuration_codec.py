"""A node configuration survives the door: to JSON and back it is the same, and misfits are named by their place."""

from __future__ import annotations

import json
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Interface

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labctl.configuration import (
    AccessListEntry,
    Action,
    Cipher,
    ConfigurationError,
    GroupIdentity,
    GroupMembership,
    Integrity,
    Interface,
    IsakmpPolicy,
    KeyServerGroup,
    NodeConfiguration,
    NodeKind,
    PreSharedKey,
    Route,
    SaIpsec,
    TransformSet,
    from_json,
    to_json,
)

FULL = NodeConfiguration(
    name="ks1",
    kind=NodeKind.KS,
    interfaces=(
        Interface("eth0", "02:00:00:00:00:01", (IPv4Interface("10.0.0.1/30"), IPv6Interface("2001:db8::1/64")), 1400),
        Interface("eth1", "02:00:00:00:00:02", crypto_map=True),
    ),
    routes=(Route(IPv4Network("0.0.0.0/0"), IPv4Address("10.0.0.2")),),
    isakmp_policies=(IsakmpPolicy(),),
    pre_shared_keys=(PreSharedKey(IPv4Address("10.0.0.9"), b"\x00\xffsecret"),),
    key_server_groups=(
        KeyServerGroup(
            "G",
            GroupIdentity(1234),
            IPv4Address("10.0.0.1"),
            (
                SaIpsec(
                    (AccessListEntry(Action.PERMIT, 0, IPv4Network("10.0.0.0/8"), IPv4Network("10.0.0.0/8")),),
                    TransformSet(Cipher.AES_GCM, 256),
                ),
            ),
        ),
    ),
    memberships=(
        GroupMembership(
            "H",
            GroupIdentity(address=IPv4Address("239.1.1.1")),
            (IPv4Address("10.0.0.5"),),
            "eth1",
            IPv4Address("10.0.0.1"),
        ),
    ),
    hosts={"h1": "10.1.1.10"},
)

networks = st.ip_addresses(v=4).map(lambda address: IPv4Network(f"{address}/24", strict=False))
entries = st.builds(
    AccessListEntry,
    st.sampled_from(Action),
    st.integers(0, 255),
    networks,
    networks,
    st.integers(0, 65535),
    st.integers(0, 65535),
)


def test_a_full_configuration_goes_through_json_unchanged() -> None:
    assert from_json(NodeConfiguration, json.loads(json.dumps(to_json(FULL)))) == FULL


@given(entries)
def test_every_access_list_entry_goes_through_json_unchanged(entry: AccessListEntry) -> None:
    assert from_json(AccessListEntry, json.loads(json.dumps(to_json(entry)))) == entry


@given(entries)
def test_mirroring_an_entry_twice_gives_it_back(entry: AccessListEntry) -> None:
    assert entry.mirrored().mirrored() == entry


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"kind": "router"}, "$.kind"),
        ({"name": 7}, "$.name"),
        ({"colour": "red"}, "$.colour"),
        ({"clock_scale": "fast"}, "$.clock_scale"),
        ({"interfaces": [{"name": "eth0"}]}, "$.interfaces[0].mac"),
        ({"interfaces": {}}, "$.interfaces"),
        ({"routes": [{"prefix": "10.0.0.1/8", "next_hop": "10.0.0.1"}]}, "$.routes[0].prefix"),
        ({"routes": [{"prefix": "10.0.0.0/8", "next_hop": "2001:db8::g"}]}, "$.routes[0].next_hop"),
        ({"pre_shared_keys": [{"peer": "10.0.0.1", "secret": "zz"}]}, "$.pre_shared_keys[0].secret"),
        ({"keylog": 1}, "$.keylog"),
    ],
)
def test_a_misfit_is_named_by_its_place(change: dict[str, object], path: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        from_json(NodeConfiguration, to_json(FULL) | change)
    assert caught.value.path == path


def test_a_missing_name_is_named() -> None:
    with pytest.raises(ConfigurationError, match=r"\$\.name: missing"):
        from_json(NodeConfiguration, {"kind": "host"})


@pytest.mark.parametrize(
    ("transform", "text"),
    [
        (TransformSet(Cipher.AES_GCM, 128), "esp-gcm 128"),
        (TransformSet(Cipher.AES_CBC, 256, Integrity.SHA256), "esp-aes 256 esp-sha256-hmac"),
        (TransformSet(Cipher.TRIPLE_DES, 192, Integrity.SHA1), "esp-3des esp-sha-hmac"),
    ],
)
def test_a_transform_set_prints_as_ios_spells_it(transform: TransformSet, text: str) -> None:
    assert str(transform) == text
