"""IOS text and node configurations are two forms of one thing."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labctl.configuration import (
    NO_REPLAY,
    AccessListEntry,
    Acknowledgement,
    Action,
    Authentication,
    Cipher,
    DhGroup,
    Encryption,
    GroupIdentity,
    GroupMembership,
    Hash,
    Integrity,
    Interface,
    IsakmpPolicy,
    Keepalive,
    KeyServerGroup,
    MssAdjustment,
    NodeConfiguration,
    NodeKind,
    PreSharedKey,
    RekeyPolicy,
    RekeyTransport,
    Replay,
    ReplayMethod,
    SaIpsec,
    TransformSet,
    TunnelSettings,
)
from labctl.ios.reference import reference_page
from labctl.ios.running import LoadError, Running
from labctl.ios.text import LANGUAGE, parse, running, text_of
from labctl.topology import load
from labctl.topology.planner import plan

TOPOLOGIES = sorted((Path(__file__).parent.parent.parent / "topologies").glob("*.yml"))

# The complete key server and member of reference/cisco-getvpn.md 1.2 and 1.4, as an engineer pastes them, without the
# commands that make keys and cooperative key servers.
KEY_SERVER = """
ip domain name lab.example
!
crypto isakmp policy 10
 encryption aes 256
 hash sha256
 authentication pre-share
 group 14
 lifetime 86400
crypto isakmp key LabPsk1 address 172.16.11.2
crypto isakmp key LabPsk1 address 172.16.12.2
crypto isakmp keepalive 15 periodic
!
crypto ipsec transform-set GET_TS esp-aes 256 esp-sha256-hmac
 mode tunnel
crypto ipsec profile GET_PROF
 set security-association lifetime seconds 3600
 set transform-set GET_TS
!
ip access-list extended ENC_POLICY
 deny   udp any eq 848 any eq 848
 deny   tcp any any eq bgp
 deny   tcp any eq bgp any
 deny   ospf any any
 deny   pim any any
 permit ip 10.0.0.0 0.255.255.255 10.0.0.0 0.255.255.255
ip access-list standard GM_AUTH
 permit 172.16.11.2
 permit 172.16.12.2
!
crypto gdoi group GETVPN_LAB
 identity number 1234
 server local
  rekey algorithm aes 256
  rekey sig-hash algorithm sha256
  rekey lifetime seconds 86400
  rekey retransmit 10 number 2
  rekey authentication mypubkey rsa KS_REKEY_KEY
  rekey transport unicast
  authorization address ipv4 GM_AUTH
  sa ipsec 1
   profile GET_PROF
   match address ipv4 ENC_POLICY
   replay time window-size 5
  address ipv4 10.255.0.11
"""

MEMBER = """
crypto isakmp policy 10
 encryption aes 256
 hash sha256
 authentication pre-share
 group 14
crypto isakmp key LabPsk1 address 10.255.0.11
crypto isakmp key LabPsk1 address 10.255.0.12
!
crypto gdoi group GETVPN_LAB
 identity number 1234
 server address ipv4 10.255.0.11
 server address ipv4 10.255.0.12
!
ip access-list extended LOCAL_BYPASS
 deny tcp any any eq 22
 deny tcp any eq 22 any
!
crypto map GM_MAP 10 gdoi
 set group GETVPN_LAB
 match address LOCAL_BYPASS
!
interface GigabitEthernet0/1
 ip address 172.16.11.2 255.255.255.252
 crypto map GM_MAP
interface GigabitEthernet0/2
 ip address 10.1.1.1 255.255.255.0
 ip tcp adjust-mss 1360
"""

ANY = IPv4Network("0.0.0.0/0")
BARE = NodeConfiguration(
    "gm1", NodeKind.CE, tuple(Interface(f"eth{number}", f"02:00:00:00:00:0{number}") for number in range(3))
)


@pytest.mark.parametrize("path", TOPOLOGIES, ids=lambda path: path.stem)
def test_what_a_topology_means_is_text_that_means_it(path: Path) -> None:
    for node in plan(load(path), secret=bytes(32)).nodes:
        text = text_of(node.configuration)
        meant = parse(text, node.configuration)
        assert meant.configuration == node.configuration and meant.notes == ()
        assert text_of(meant.configuration) == text
        # What a text does not say it does not keep: read into the bare node, it is whole as well.
        bare = replace(
            node.configuration,
            isakmp_policies=(),
            pre_shared_keys=(),
            key_server_groups=(),
            memberships=(),
            routes=(),
            nat=None,
            marking=None,
            tunnel=TunnelSettings(),
            adjust_mss=(),
            multicast_routing=False,
            interfaces=tuple(replace(item, addresses=(), crypto_map=False) for item in node.configuration.interfaces),
        )
        assert parse(text, bare).configuration == node.configuration
        assert parse(text_of(node.configuration, defaults=True), bare).configuration == node.configuration


def test_a_key_server_as_an_engineer_writes_it() -> None:
    meant = parse(KEY_SERVER, replace(BARE, name="ks1", kind=NodeKind.KS))
    (group,) = meant.configuration.key_server_groups
    assert meant.notes == ()
    assert group.name == "GETVPN_LAB" and group.identity == GroupIdentity(1234)
    assert group.address == IPv4Address("10.255.0.11")
    (sa,) = group.sas
    assert sa.transform == TransformSet(Cipher.AES_CBC, 256, Integrity.SHA256) and sa.tek_lifetime == 3600
    assert sa.replay == Replay(ReplayMethod.TIME, 5)
    assert sa.policy[0] == AccessListEntry(Action.DENY, 17, ANY, ANY, 848, 848)
    assert sa.policy[-1] == AccessListEntry(Action.PERMIT, 0, IPv4Network("10.0.0.0/8"), IPv4Network("10.0.0.0/8"))
    assert group.rekey == RekeyPolicy(transport=RekeyTransport.UNICAST, key_label="KS_REKEY_KEY")
    assert group.authorized == (IPv4Network("172.16.11.2/32"), IPv4Network("172.16.12.2/32"))
    assert meant.configuration.isakmp.keepalive == Keepalive(15, periodic=True)
    assert meant.configuration.isakmp_policies == (IsakmpPolicy(),)
    assert [key.secret for key in meant.configuration.pre_shared_keys] == [b"LabPsk1"] * 2


def test_a_member_as_an_engineer_writes_it() -> None:
    meant = parse(MEMBER, BARE)
    assert meant.notes == ()
    assert meant.configuration.memberships == (
        GroupMembership(
            "GETVPN_LAB",
            GroupIdentity(1234),
            (IPv4Address("10.255.0.11"), IPv4Address("10.255.0.12")),
            "eth1",
            IPv4Address("172.16.11.2"),
            (
                AccessListEntry(Action.DENY, 6, ANY, ANY, 0, 22),
                AccessListEntry(Action.DENY, 6, ANY, ANY, 22, 0),
            ),
        ),
    )
    assert [item.crypto_map for item in meant.configuration.interfaces] == [False, True, False]
    assert meant.configuration.adjust_mss == (MssAdjustment("eth2", 1360),)
    assert meant.configuration.interfaces[2].addresses == (IPv4Interface("10.1.1.1/24"),)


@pytest.mark.parametrize(
    ("text", "without", "note"),
    [
        (KEY_SERVER, " identity number 1234\n", "group GETVPN_LAB is not served: it has no identity"),
        (KEY_SERVER, "  address ipv4 10.255.0.11\n", "group GETVPN_LAB is not served: it has no address ipv4"),
        (KEY_SERVER, " set transform-set GET_TS\n", "sa ipsec 1 is not used: its profile is incomplete"),
        (KEY_SERVER, "   match address ipv4 ENC_POLICY\n", "it matches no IPv4 access list with entries"),
        (MEMBER, " set group GETVPN_LAB\n", "crypto map GM_MAP 10 has no group"),
        (MEMBER, " server address ipv4 10.255.0.11\n server address ipv4 10.255.0.12\n", "has no server address"),
        (MEMBER, " ip address 172.16.11.2 255.255.255.252\n", "has no address to register from"),
    ],
)
def test_what_is_incomplete_has_no_effect_and_is_noted(text: str, without: str, note: str) -> None:
    assert without in text
    meant = parse(text.replace(without, ""), BARE)
    assert meant.configuration.key_server_groups == () and meant.configuration.memberships == ()
    assert note in " ".join(meant.notes)


@pytest.mark.parametrize(
    ("line", "meant"),
    [
        ("", Replay(ReplayMethod.COUNTER, 64)),
        ("   no replay\n", NO_REPLAY),
        ("   replay counter window-size 1024\n", Replay(ReplayMethod.COUNTER, 1024)),
        ("   replay time window-size 100\n", Replay(ReplayMethod.TIME, 100)),
        ("   replay time window-size 5\n   replay counter window-size 128\n", Replay(ReplayMethod.COUNTER, 128)),
        ("   replay time window-size 5\n   no replay time\n", NO_REPLAY),
    ],
)
def test_anti_replay_is_counted_in_64_unless_something_else_is_said(line: str, meant: Replay) -> None:
    text = KEY_SERVER.replace("   replay time window-size 5\n", line)
    (group,) = parse(text, BARE).configuration.key_server_groups
    assert group.sas[0].replay == meant


@pytest.mark.parametrize("line", ["time window-size 101", "time window-size 0", "counter window-size 65"])
def test_there_are_no_other_windows(line: str) -> None:
    with pytest.raises(LoadError):
        parse(KEY_SERVER.replace("time window-size 5", line), BARE)


def test_a_port_range_cannot_be_handed_to_members() -> None:
    meant = parse(KEY_SERVER.replace("any any eq bgp", "any any range 100 200"), BARE)
    assert meant.configuration.key_server_groups == ()
    assert "GDOI_ACL_RANGE" in meant.notes[0]


def test_a_key_server_that_signs_nothing_sends_no_rekeys() -> None:
    meant = parse(KEY_SERVER.replace("  rekey authentication mypubkey rsa KS_REKEY_KEY\n", ""), BARE)
    (group,) = meant.configuration.key_server_groups
    assert group.rekey.transport is RekeyTransport.MULTICAST and group.rekey.address is None


def test_an_ipv6_group_wants_an_ipv6_crypto_map() -> None:
    meant = parse(MEMBER.replace("crypto gdoi group GETVPN_LAB", "crypto gdoi group ipv6 GETVPN_LAB"), BARE)
    assert meant.configuration.memberships == ()
    assert meant.notes == ("crypto map GM_MAP 10: group GETVPN_LAB is IPv6, and the crypto map is not",)


def test_a_file_says_where_it_is_wrong() -> None:
    with pytest.raises(LoadError) as caught:
        parse("hostname ks1\ncrypto isakmp policy 10\n hash shax\n", BARE)
    assert caught.value.number == 3
    said = str(caught.value).splitlines()
    assert said[0] == "line 3:  hash shax" and said[2] == "% Invalid input detected at '^' marker."
    assert said[0][said[1].index("^")] == "x"


transforms = st.sampled_from(
    [
        TransformSet(Cipher.AES_GCM, 128),
        TransformSet(Cipher.AES_GCM, 256),
        TransformSet(Cipher.AES_CBC, 128, Integrity.SHA1),
        TransformSet(Cipher.AES_CBC, 192, Integrity.SHA384),
        TransformSet(Cipher.TRIPLE_DES, 192, Integrity.SHA512),
    ]
)
networks = st.builds(
    lambda number, length: IPv4Network((number >> (32 - length) << (32 - length), length)),
    st.integers(0, 2**32 - 1),
    st.integers(0, 32),
)
addresses = st.integers(0x0A000001, 0xDFFFFFFE).map(IPv4Address)
entries = st.one_of(
    st.builds(AccessListEntry, st.sampled_from(Action), st.sampled_from([0, 1, 47, 89, 200]), networks, networks),
    st.builds(
        AccessListEntry,
        st.sampled_from(Action),
        st.sampled_from([6, 17]),
        networks,
        networks,
        st.integers(0, 65535),
        st.integers(0, 65535),
    ),
)
policies = st.lists(entries, min_size=1, max_size=4, unique=True).map(tuple)
names = st.from_regex(r"[A-Z][A-Z0-9_]{0,20}", fullmatch=True)
identities = st.one_of(
    st.builds(GroupIdentity, number=st.integers(0, 2147483647)), st.builds(GroupIdentity, address=addresses)
)


@st.composite
def rekeys(draw: st.DrawFn) -> RekeyPolicy:
    unicast = draw(st.booleans())
    aes = draw(st.booleans())
    return RekeyPolicy(
        encryption=Encryption.AES_CBC if aes else Encryption.TRIPLE_DES,
        key_bits=draw(st.sampled_from([128, 192, 256])) if aes else 192,
        signature_hash=draw(st.sampled_from([Hash.SHA1, Hash.SHA256, Hash.SHA384, Hash.SHA512])),
        lifetime=draw(st.integers(300, 2592000)),
        transport=RekeyTransport.UNICAST if unicast else RekeyTransport.MULTICAST,
        address=None if unicast else draw(st.one_of(st.none(), st.just(IPv4Address("239.1.2.3")))),
        retransmit_interval=draw(st.integers(10, 60)),
        retransmit_count=draw(st.integers(1, 10)),
        acknowledgement=draw(st.sampled_from(Acknowledgement)),
        key_label=draw(st.one_of(st.none(), names)),
        key_tree=draw(st.booleans()),
    )


replays = st.one_of(
    st.just(NO_REPLAY),
    st.builds(Replay, st.just(ReplayMethod.TIME), st.integers(1, 100)),
    st.builds(Replay, st.just(ReplayMethod.COUNTER), st.sampled_from([64, 128, 256, 512, 1024])),
)


@st.composite
def served(draw: st.DrawFn) -> KeyServerGroup:
    numbers = draw(st.lists(st.integers(1, 100), min_size=1, max_size=3, unique=True))
    return KeyServerGroup(
        name=draw(names),
        identity=draw(identities),
        address=draw(addresses),
        sas=tuple(
            SaIpsec(draw(policies), draw(transforms), draw(st.integers(120, 86400)), number, draw(replays))
            for number in sorted(numbers)
        ),
        rekey=draw(rekeys()),
        activation_delay=draw(st.integers(0, 100)),
        deactivation_delay=draw(st.integers(0, 100)),
        sender_id_bits=draw(st.sampled_from([8, 12, 24, 32])),
        key_server_id=draw(st.integers(0, 7)),
        authorized=draw(st.lists(networks.filter(lambda item: item.prefixlen > 0), max_size=2, unique=True).map(tuple)),
        receive_only=draw(st.booleans()),
    )


isakmp_policies = st.lists(
    st.builds(
        IsakmpPolicy,
        priority=st.integers(1, 10000),
        key_bits=st.sampled_from([128, 192, 256]),
        hash=st.sampled_from([Hash.SHA1, Hash.SHA256, Hash.SHA384, Hash.SHA512]),
        group=st.sampled_from([group for group in DhGroup if group is not DhGroup.MODP768]),
        lifetime=st.integers(60, 86400),
        authentication=st.sampled_from(Authentication),
    ),
    max_size=3,
    unique_by=lambda item: item.priority,
).map(lambda found: tuple(sorted(found, key=lambda item: item.priority)))
secrets = st.text("abcXYZ0129!$#/-_", min_size=2, max_size=12).map(str.encode)
keys = st.lists(st.builds(PreSharedKey, addresses, secrets), max_size=3, unique_by=lambda item: item.peer).map(tuple)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(served(), max_size=3, unique_by=lambda group: group.name).map(tuple),
    isakmp_policies,
    keys,
)
def test_any_key_server_survives_its_text(
    groups: tuple[KeyServerGroup, ...], policies: tuple[IsakmpPolicy, ...], shared: tuple[PreSharedKey, ...]
) -> None:
    node = replace(BARE, key_server_groups=groups, isakmp_policies=policies, pre_shared_keys=shared)
    text = text_of(node)
    meant = parse(text, BARE)
    assert meant.configuration == node and meant.notes == ()
    said = Running(LANGUAGE)
    said.load(text)
    assert "".join(f"{line}\n" for line in said.lines()) == text, "parse and render are inverse"


memberships = st.builds(
    GroupMembership,
    names,
    identities,
    st.lists(addresses, min_size=1, max_size=8, unique=True).map(tuple),
    st.just("eth1"),
    st.just(IPv4Address("172.16.11.2")),
    local_policy=st.one_of(st.just(()), policies),
    fail_close_revert=st.booleans(),
    passive=st.booleans(),
    recovery_check=st.one_of(st.none(), st.integers(10, 86400)),
)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(memberships, min_size=1, max_size=3, unique_by=lambda item: item.name),
    st.one_of(st.none(), st.just(()), policies),
    st.sampled_from(["eth1", "eth0"]),
)
def test_any_member_survives_its_text(
    members: list[GroupMembership], fail_close: tuple[AccessListEntry, ...] | None, source: str
) -> None:
    interfaces = tuple(
        replace(
            item,
            addresses=(IPv4Interface("172.16.11.2/30" if item.name == source else f"10.9.{number}.1/24"),),
            crypto_map=item.name == "eth1",
        )
        for number, item in enumerate(BARE.interfaces)
    )
    node = replace(
        BARE, interfaces=interfaces, memberships=tuple(replace(item, fail_close=fail_close) for item in members)
    )
    meant = parse(text_of(node), BARE)
    assert meant.configuration == node and meant.notes == ()


def test_defaults_are_left_out_unless_they_are_asked_for() -> None:
    node = replace(BARE, isakmp_policies=(IsakmpPolicy(priority=5),))
    assert " lifetime 86400" not in text_of(node).splitlines()
    assert " lifetime 86400" in text_of(node, defaults=True).splitlines()
    assert running(node).root.statements


def test_the_reference_page_is_that_of_the_grammar() -> None:
    page = Path(__file__).parent.parent.parent / "docs" / "ios-commands.md"
    assert page.read_text() == reference_page(), "python -m labctl.ios.reference > docs/ios-commands.md"
