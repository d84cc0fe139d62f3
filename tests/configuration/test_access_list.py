"""IOS access-list entries and transform sets, as text and back."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labctl.configuration import AccessListEntry, Action, Cipher, Encryption, Integrity, TransformSet
from labctl.configuration.access_list import describe_access_list_entry, parse_access_list_entry
from labctl.configuration.transform_set import parse_encryption, parse_transform_set
from labctl.configuration.words import WordError

ANY = IPv4Network("0.0.0.0/0")


def network(text: str) -> IPv4Network:
    return IPv4Network(text)


@pytest.mark.parametrize(
    ("line", "entry"),
    [
        ("permit ip any any", AccessListEntry(Action.PERMIT, 0, ANY, ANY)),
        ("deny tcp any eq bgp any", AccessListEntry(Action.DENY, 6, ANY, ANY, 179, 0)),
        ("deny tcp any any eq bgp", AccessListEntry(Action.DENY, 6, ANY, ANY, 0, 179)),
        ("deny udp any eq 848 any eq gdoi", AccessListEntry(Action.DENY, 17, ANY, ANY, 848, 848)),
        (
            "permit ip 10.1.0.0 0.0.255.255 host 10.2.0.1",
            AccessListEntry(Action.PERMIT, 0, network("10.1.0.0/16"), network("10.2.0.1/32")),
        ),
        (
            "PERMIT IP 10.1.0.0/16  10.1.0.0/16 ",
            AccessListEntry(Action.PERMIT, 0, network("10.1.0.0/16"), network("10.1.0.0/16")),
        ),
        ("permit 47 any any", AccessListEntry(Action.PERMIT, 47, ANY, ANY)),
        ("deny ospf any any", AccessListEntry(Action.DENY, 89, ANY, ANY)),
        ("permit ip 0.0.0.0 255.255.255.255 any", AccessListEntry(Action.PERMIT, 0, ANY, ANY)),
    ],
)
def test_an_entry_reads_as_ios_reads_it(line: str, entry: AccessListEntry) -> None:
    assert parse_access_list_entry(line) == entry


networks = st.builds(
    lambda address, length: IPv4Network((address >> (32 - length) << (32 - length) if length else 0, length)),
    st.integers(0, 2**32 - 1),
    st.integers(0, 32),
)


@given(
    st.sampled_from(Action),
    st.sampled_from([0, 1, 6, 17, 89, 200]),
    networks,
    networks,
    st.integers(0, 65535),
    st.integers(0, 65535),
)
def test_an_entry_survives_its_own_text(
    action: Action, protocol: int, source: IPv4Network, destination: IPv4Network, source_port: int, other_port: int
) -> None:
    ports = (source_port, other_port) if protocol in (6, 17) else (0, 0)
    entry = AccessListEntry(action, protocol, source, destination, *ports)
    assert parse_access_list_entry(describe_access_list_entry(entry)) == entry


ANY6 = IPv6Network("::/0")
ipv6_networks = st.builds(
    lambda address, length: IPv6Network((address >> (128 - length) << (128 - length), length)),
    st.integers(0, 2**128 - 1),
    st.integers(0, 128),
)


@pytest.mark.parametrize(
    ("line", "entry"),
    [
        ("permit ipv6 any any", AccessListEntry(Action.PERMIT, 0, ANY6, ANY6)),
        ("deny icmp any any", AccessListEntry(Action.DENY, 58, ANY6, ANY6)),
        (
            "permit tcp 2001:DB8:1::/48 host 2001:db8:2::1 eq www",
            AccessListEntry(Action.PERMIT, 6, IPv6Network("2001:db8:1::/48"), IPv6Network("2001:db8:2::1/128"), 0, 80),
        ),
        ("permit 41 ::/0 any", AccessListEntry(Action.PERMIT, 41, ANY6, ANY6)),
        ("deny ospf any any", AccessListEntry(Action.DENY, 89, ANY6, ANY6)),
    ],
)
def test_an_entry_of_an_ipv6_list_reads_as_ios_reads_it(line: str, entry: AccessListEntry) -> None:
    assert parse_access_list_entry(line, ipv6=True) == entry


@given(
    st.sampled_from(Action),
    st.sampled_from([0, 6, 17, 58, 89, 200]),
    ipv6_networks,
    ipv6_networks,
    st.integers(0, 65535),
)
def test_an_ipv6_entry_survives_its_own_text(
    action: Action, protocol: int, source: IPv6Network, destination: IPv6Network, port: int
) -> None:
    entry = AccessListEntry(action, protocol, source, destination, 0, port if protocol in (6, 17) else 0)
    assert parse_access_list_entry(describe_access_list_entry(entry), ipv6=True) == entry


@given(st.text(max_size=60), st.booleans())
def test_any_text_is_an_entry_or_a_word_error(text: str, ipv6: bool) -> None:
    try:
        parse_access_list_entry(text, ipv6=ipv6)
    except WordError as error:
        assert 0 <= error.column <= len(text)


@pytest.mark.parametrize(
    ("text", "transform"),
    [
        ("esp-gcm 256", TransformSet(Cipher.AES_GCM, 256)),
        ("esp-gcm", TransformSet(Cipher.AES_GCM, 128)),
        ("esp-aes 192 esp-sha512-hmac", TransformSet(Cipher.AES_CBC, 192, Integrity.SHA512)),
        ("esp-aes esp-sha-hmac", TransformSet(Cipher.AES_CBC, 128, Integrity.SHA1)),
        ("esp-3des esp-sha256-hmac", TransformSet(Cipher.TRIPLE_DES, 192, Integrity.SHA256)),
    ],
)
def test_a_transform_set_reads_as_ios_reads_it(text: str, transform: TransformSet) -> None:
    assert parse_transform_set(text) == transform
    assert parse_transform_set(str(transform)) == transform


@pytest.mark.parametrize(
    "text", ["", "esp-gcm 192", "esp-gcm 256 esp-sha-hmac", "esp-aes 256", "esp-null esp-sha-hmac"]
)
def test_a_transform_set_that_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(WordError):
        parse_transform_set(text)


def test_phase_1_ciphers() -> None:
    assert parse_encryption("aes 256") == (Encryption.AES_CBC, 256)
    assert parse_encryption("aes") == (Encryption.AES_CBC, 128)
    assert parse_encryption("3des") == (Encryption.TRIPLE_DES, 192)
    with pytest.raises(WordError):
        parse_encryption("des")
