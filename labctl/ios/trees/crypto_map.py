"""`crypto map`: what makes a router a member of groups (reference/cisco-getvpn.md 1.4, 2.7)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface
from typing import Any

from labctl.configuration import AccessListEntry, GroupMembership, NodeConfiguration
from labctl.ios.grammar.arguments import Integer, InterfaceName, Word, ios_interface
from labctl.ios.grammar.command import Command
from labctl.ios.grammar.language import GLOBAL, Tree
from labctl.ios.meaning import Notes, Part
from labctl.ios.running import Section
from labctl.ios.trees import access_lists, gdoi, interfaces
from labctl.ios.trees.ipsec import numbered

MAP_MODE, FAIL_CLOSE_MODE = "crypto-map", "crypto-map-fail-close"

_CRYPTO = {"crypto": "Encryption module", "map": "Enter a crypto map", "ipv6": "Of IPv6"}
_NAME = Word("Crypto map tag", form=r"[^\s?]{1,80}")

FAIL_CLOSE = Command(
    "crypto map [ipv6] {name} gdoi fail-close",
    {"name": _NAME},
    key=("ipv6", "name"),
    mode=FAIL_CLOSE_MODE,
    helps={**_CRYPTO, "gdoi": "GDOI", "fail-close": "What passes before the first registration"},
)
LOCAL_ADDRESS = Command(
    "crypto map [ipv6] {name} local-address {interface}",
    {"name": _NAME, "interface": InterfaceName()},
    key=("ipv6", "name"),
    helps={**_CRYPTO, "local-address": "Interface to use for local address for this crypto map"},
)
ENTRY = Command(
    "crypto map [ipv6] {name} {sequence} gdoi",
    {"name": _NAME, "sequence": Integer(1, 65535, "Sequence to insert into crypto map entry")},
    key=("ipv6", "name", "sequence"),
    mode=MAP_MODE,
    helps={**_CRYPTO, "gdoi": "GDOI"},
)
SET_GROUP = Command(
    "set group {name}", {"name": Word("Group")}, helps={"set": "Set values for encryption/decryption", "group": "Group"}
)
MATCH = Command(
    "match address {list}",
    {"list": Word("IP access-list number or name")},
    helps={"match": "Match values.", "address": "Match address of packets to encrypt."},
)
ACTIVATE = Command("activate", helps={"activate": "Let it count"})

TREE = Tree(
    {
        GLOBAL: (FAIL_CLOSE, LOCAL_ADDRESS, ENTRY),
        MAP_MODE: (SET_GROUP, MATCH),
        FAIL_CLOSE_MODE: (MATCH, ACTIVATE),
    },
    {MAP_MODE: "config-crypto-map", FAIL_CLOSE_MODE: "crypto-map-fail-close"},
)

STEP = 10


def write(node: NodeConfiguration) -> Iterator[str]:
    """A member's groups, lists and maps: a map for each interface that has one."""
    for number, membership in enumerate(node.memberships):
        yield gdoi.group_line(membership)
        yield f" identity {gdoi.identity(membership.identity)}"
        for server in membership.key_servers:
            yield f" server address ipv4 {server}"
        if membership.passive:
            yield " passive"
        if membership.recovery_check is not None:
            yield f" client recovery-check interval {membership.recovery_check}"
        if membership.fail_close_revert:
            yield " client fail-close revert"
        if membership.local_policy:
            yield from access_lists.extended_lines(numbered("LOCAL_BYPASS", number), membership.local_policy)
    for number, interface in enumerate(item.name for item in node.interfaces if item.crypto_map):
        for ipv6 in (False, True):
            yield from _map(node, numbered("GM_MAP6" if ipv6 else "GM_MAP", number), interface, ipv6=ipv6)


def _map(node: NodeConfiguration, name: str, interface: str, *, ipv6: bool) -> Iterator[str]:
    members = [
        (number, item)
        for number, item in enumerate(node.memberships)
        if item.interface == interface and item.ipv6 == ipv6
    ]
    if not members:
        return
    tag = f"ipv6 {name}" if ipv6 else name
    closed = next((item for _, item in members if item.fail_close is not None), None)
    if closed is not None and closed.fail_close is not None:
        if closed.fail_close:
            yield from access_lists.extended_lines(f"{name}_FAIL_CLOSE", closed.fail_close)
        yield f"crypto map {tag} gdoi fail-close"
        if closed.fail_close:
            yield f" match address {name}_FAIL_CLOSE"
        yield " activate"
    source = next((_owner(node, item.local_address) for _, item in members), interface)
    if source not in (interface, None):
        yield f"crypto map {tag} local-address {ios_interface(source)}"
    for place, (number, membership) in enumerate(members):
        yield f"crypto map {tag} {STEP * (place + 1)} gdoi"
        yield f" set group {membership.name}"
        if membership.local_policy:
            yield f" match address {numbered('LOCAL_BYPASS', number)}"
    yield f"interface {ios_interface(interface)}"
    yield f" {'ipv6 ' if ipv6 else ''}crypto map {name}"


def read(root: Section, node: NodeConfiguration, notes: Notes) -> NodeConfiguration:
    """Memberships, in the order of interfaces and of their maps' entries."""
    memberships: list[GroupMembership] = []
    mapped: set[str] = set()
    for interface in node.interfaces:
        section = root.section(interfaces.INTERFACE, name=interface.name)
        for ipv6, command in ((False, interfaces.CRYPTO_MAP), (True, interfaces.IPV6_CRYPTO_MAP)):
            applied = None if section is None else section.one(command)
            if applied is not None:
                tag = {"name": applied["name"], **({"ipv6": True} if ipv6 else {})}
                found = _entries(root, node, tag, interface.name, notes)
                mapped.update({interface.name} if found else ())
                memberships += found
    order = {item.values["name"]: number for number, item in enumerate(root.all(gdoi.GROUP))}
    return replace(
        node,
        memberships=tuple(sorted(memberships, key=lambda item: order[item.name])),
        interfaces=tuple(replace(item, crypto_map=item.name in mapped) for item in node.interfaces),
    )


PART = Part(TREE, write, read)


def _entries(
    root: Section, node: NodeConfiguration, tag: dict[str, Any], interface: str, notes: Notes
) -> list[GroupMembership]:
    name, ipv6 = tag["name"], "ipv6" in tag
    entries = [item for item in root.all(ENTRY) if item.values["name"] == name and ("ipv6" in item.values) == ipv6]
    if not entries:
        notes.append(f"crypto map {name} is applied to {ios_interface(interface)} and has no entries")
    source = root.find(LOCAL_ADDRESS, tag)
    try:
        closed = _fail_close(root, tag)
    except access_lists.Unusable as error:
        notes.append(f"crypto map {name}: {error}")
        return []
    found = []
    for entry in sorted(entries, key=lambda item: int(item.values["sequence"])):
        assert entry.section is not None
        what = f"crypto map {name} {entry.values['sequence']}"
        group = entry.section.one(SET_GROUP)
        served = None if group is None else root.find(gdoi.GROUP, group)
        section = None if served is None else served.section
        if group is None or served is None or section is None:
            notes.append(f"{what} has no group" if group is None else f"{what}: there is no group {group['name']}")
            continue
        if ("ipv6" in served.values) != ipv6:
            notes.append(f"{what}: group {group['name']} is {'IPv4' if ipv6 else 'IPv6'}, and the crypto map is not")
            continue
        chosen = section.one(gdoi.REGISTRATION_INTERFACE)
        local = _address(node, chosen["name"] if chosen else source.values["interface"] if source else interface)
        identity = gdoi.identity_of(section)
        servers = tuple(item.values["address"] for item in section.all(gdoi.SERVER_ADDRESS))
        missing = [
            word
            for word, there in (
                ("identity", identity),
                ("server address", servers),
                ("address to register from", local),
            )
            if not there
        ]
        if missing or identity is None or local is None:
            notes.append(f"{what}: group {group['name']} has no {', no '.join(missing)}")
            continue
        try:
            policy = _local_policy(root, entry.section, what, notes, ipv6=ipv6)
        except access_lists.Unusable as error:
            notes.append(f"{what}: {error}")
            continue
        check = section.one(gdoi.RECOVERY_CHECK)
        found.append(
            GroupMembership(
                name=group["name"],
                identity=identity,
                key_servers=servers,
                interface=interface,
                local_address=local,
                local_policy=policy,
                fail_close=closed,
                fail_close_revert=section.one(gdoi.REVERT) is not None,
                passive=section.one(gdoi.PASSIVE) is not None,
                recovery_check=None if check is None else check["seconds"],
                ipv6=ipv6,
            )
        )
    return found


def _local_policy(
    root: Section, section: Section, what: str, notes: Notes, *, ipv6: bool
) -> tuple[AccessListEntry, ...]:
    match = section.one(MATCH)
    if match is None:
        return ()
    policy = access_lists.entries(root, match["list"], ipv6=ipv6)
    if policy is None:
        notes.append(f"{what}: there is no access list {match['list']}")
    return policy or ()


def _fail_close(root: Section, tag: dict[str, Any]) -> tuple[AccessListEntry, ...] | None:
    section = root.section(FAIL_CLOSE, **tag)
    if section is None or section.one(ACTIVATE) is None:
        return None
    match = section.one(MATCH)
    return () if match is None else access_lists.entries(root, match["list"], ipv6="ipv6" in tag) or ()


def _owner(node: NodeConfiguration, address: IPv4Address) -> str | None:
    return next((item.name for item in node.interfaces for own in item.addresses if own.ip == address), None)


def _address(node: NodeConfiguration, interface: str) -> IPv4Address | None:
    """The first address of an interface."""
    return next(
        (
            own.ip
            for item in node.interfaces
            if item.name == interface
            for own in item.addresses
            if isinstance(own, IPv4Interface)
        ),
        None,
    )
