"""GETVPN groups: who hands out keys, who takes them, and for which traffic.

Rules of reference/cisco-getvpn.md 1.3, 1.4 and 2.6.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

from labctl.configuration import (
    AccessListEntry,
    Acknowledgement,
    Action,
    Authentication,
    DhGroup,
    Encryption,
    GroupIdentity,
    Hash,
    IsakmpPolicy,
    NodeKind,
    RekeyPolicy,
    RekeyTransport,
)
from labctl.configuration.access_list import describe_access_list_entry, parse_access_list_entry
from labctl.configuration.transform_set import parse_encryption
from labctl.configuration.words import WordError, did_you_mean
from labctl.topology.authorization import read_authorization, read_key_label, refuse_idle
from labctl.topology.group_policies import PolicyReader, refuse_overlaps
from labctl.topology.model import Group, MemberOptions, Node, PreSharedKeys
from labctl.topology.problems import Problems
from labctl.topology.raw import GROUP_NAME, LARGEST_IDENTITY, MOST_KEY_SERVERS, RawGroup, RawIsakmp, RawMember
from labctl.topology.shape import Shaped

# `crypto isakmp key`: up to 128 characters, none of them a blank.
_KEY = re.compile(r"[!-~]{1,128}")
GENERATED = "generated"
# Where rekeys of groups without an address go: 239.192.0.1 for the first group, and so on.
_REKEY_ADDRESSES = IPv4Network("239.192.0.0/16")
_LINK_LOCAL_GROUPS = IPv4Network("224.0.0.0/24")
# Keys of `rekey` that only some transports have.
_TRANSPORTS_WITH = {
    "address": ("multicast",),
    "retransmit": ("multicast", "unicast"),
    "acknowledgement": ("unicast",),
    "key_tree": ("multicast", "unicast"),
    "key": ("multicast", "unicast"),
}


def read_groups(shaped: Shaped, nodes: dict[str, Node], problems: Problems) -> list[Group]:
    """Every group that can be read."""
    groups: list[Group] = []
    for name, raw in shaped.raw.groups.items():
        if not re.fullmatch(GROUP_NAME, name):
            problems.add(
                shaped.key_at("groups", name), f"{name!r} is no name of a group", "letters, digits and '_', at most 64"
            )
            continue
        groups.append(_GroupReader(shaped, nodes, problems, name, raw).read())
    _refuse_shared_identities(shaped, groups, problems)
    refuse_overlaps(shaped, groups, problems)
    refuse_idle(shaped, groups, problems)
    return groups


class _GroupReader:
    """Reads one group; what cannot be read is noted and replaced by the default, so that the rest is looked at."""

    def __init__(self, shaped: Shaped, nodes: dict[str, Node], problems: Problems, name: str, raw: RawGroup) -> None:
        self._shaped = shaped
        self._nodes = nodes
        self._problems = problems
        self._name = name
        self._raw = raw

    def read(self) -> Group:
        """The group."""
        members = self._names("members", [member_name(raw) for raw in self._raw.members], NodeKind.CE)
        servers = self._names("key-servers", self._raw.key_servers, NodeKind.KS)
        self._check_sizes(members, servers)
        sas = PolicyReader(self._shaped, self._problems, self._name, self._raw).read()
        self._check_delays(min(sa.tek_lifetime for sa in sas) if sas else self._raw.lifetime.tek)
        return Group(
            name=self._name,
            identity=self._identity(),
            key_servers=servers,
            members=members,
            sas=sas,
            rekey=self._rekey(),
            isakmp=self._isakmp(),
            pre_shared_keys=self._keys(members),
            activation_delay=self._raw.delays.activation,
            deactivation_delay=self._raw.delays.deactivation,
            receive_only=self._raw.receive_only,
            ipv6=self._raw.ipv6,
            options=self._options(members),
            authorization=read_authorization(self._shaped, self._name, members, self._problems),
        )

    def _names(self, key: str, names: Sequence[str], kind: NodeKind) -> tuple[str, ...]:
        found: list[str] = []
        for index, name in enumerate(names):
            at = self._shaped.at("groups", self._name, key, index)
            node = self._nodes.get(name)
            if name in found:
                self._problems.add(at, f"{name!r} is in {key!r} twice", "keep one of them")
            elif node is None:
                if ("nodes", name) not in self._shaped.missing:
                    suitable = [other.name for other in self._nodes.values() if other.kind is kind]
                    self._problems.add(at, f"no node is called {name!r}", did_you_mean(name, suitable))
            elif node.kind is kind:
                found.append(name)
            elif kind is NodeKind.CE and (node.kind is NodeKind.KS or name in self._raw.key_servers):
                self._problems.add(
                    at, f"key server {name!r} is a member as well", "GETVPN does not allow it: take a ce as member"
                )
            else:
                self._problems.add(
                    at,
                    f"{name!r} is a {node.kind.value}, not a {kind.value}",
                    "members are of kind ce" if kind is NodeKind.CE else "key servers are of kind ks",
                )
        return tuple(found)

    def _check_sizes(self, members: tuple[str, ...], servers: tuple[str, ...]) -> None:
        place = ("groups", self._name)
        if not self._raw.key_servers:
            self._problems.add(
                self._shaped.at(*place, "key-servers"),
                f"group {self._name!r} has no key server",
                "name a node of kind ks: 'key-servers: [ks1]'",
            )
        if len(servers) > MOST_KEY_SERVERS:
            self._problems.add(
                self._shaped.at(*place, "key-servers", MOST_KEY_SERVERS),
                f"group {self._name!r} has {len(servers)} key servers",
                f"GETVPN takes {MOST_KEY_SERVERS} at most",
            )
        if not self._raw.members:
            self._problems.add(
                self._shaped.at(*place, "members"),
                f"group {self._name!r} has no member",
                "name nodes of kind ce: 'members: [ce1, ce2]'",
            )

    def _identity(self) -> GroupIdentity:
        raw = self._raw.identity
        if isinstance(raw, int):
            return GroupIdentity(number=raw)
        try:
            return GroupIdentity(address=IPv4Address(raw))
        except ValueError:
            at = self._shaped.at("groups", self._name, "identity")
            hint = f"a number from 0 to {LARGEST_IDENTITY}, or an IPv4 address"
            self._problems.add(at, f"{raw!r} is not a group identity", hint)
            return GroupIdentity(number=None)

    def _options(self, members: tuple[str, ...]) -> dict[str, MemberOptions]:
        found: dict[str, MemberOptions] = {}
        for index, raw in enumerate(self._raw.members):
            if isinstance(raw, str):
                continue
            place = ("groups", self._name, "members", index)
            options = MemberOptions(
                local_policy=self._denies(raw.local_policy, (*place, "local-policy")),
                fail_close=None if raw.fail_close is None else self._denies(raw.fail_close, (*place, "fail-close")),
                fail_close_revert=raw.fail_close_revert,
                passive=raw.passive,
                recovery_check=raw.recovery_check,
                interface=raw.interface,
                refused=raw.refused,
            )
            if raw.fail_close_revert and raw.fail_close is None:
                self._problems.add(
                    self._shaped.key_at(*place, "fail-close-revert"),
                    f"member {raw.node!r} has nothing to revert to",
                    "add 'fail-close: []', which lets nothing pass without keys, or one with deny entries",
                )
            if raw.node in members:
                found.setdefault(raw.node, options)
        return found

    def _denies(self, lines: Sequence[str], place: tuple[str | int, ...]) -> tuple[AccessListEntry, ...]:
        """A list of a member's own: exceptions from what is protected, so deny entries alone (reference 2.6)."""
        entries: list[AccessListEntry] = []
        for index, line in enumerate(lines):
            try:
                entry = parse_access_list_entry(line, ipv6=self._raw.ipv6)
            except WordError as error:
                self._problems.add(self._shaped.inside(error.column, *place, index), error.problem, error.hint)
                continue
            if entry.action is Action.PERMIT:
                self._problems.add(
                    self._shaped.at(*place, index),
                    f"'{describe_access_list_entry(entry)}' permits: on a member only deny entries count",
                    "what is encrypted is said by the group's 'policy', for all members",
                )
                continue
            entries.append(entry)
        return tuple(entries)

    def _check_delays(self, tek: int) -> None:
        """RFC 6407 5.4: old keys stay until new ones are sent under, with room for the copies of a rekey."""
        delays, retransmit = self._raw.delays, self._raw.rekey.retransmit
        place = ("groups", self._name, "delays", "deactivation")
        copies = retransmit.interval * retransmit.number
        # Who has a rekey as the last copy counts from then, and members without an activation delay change half-way.
        needed = max(delays.activation + copies, 2 * copies)
        if delays.deactivation and delays.deactivation <= needed:
            self._problems.add(
                self._shaped.at(*place),
                f"old keys go {delays.deactivation} s after a rekey, when some members may still send under them",
                f"more than {needed} s: {copies} s for a rekey's copies, and the activation delay or as much again",
            )
        if delays.activation >= tek:
            self._problems.add(
                self._shaped.at("groups", self._name, "delays", "activation"),
                f"new keys would be sent under after {delays.activation} s, and live {tek} s",
                "an activation delay is some seconds: 30, for example",
            )

    def _isakmp(self) -> tuple[IsakmpPolicy, ...]:
        several = isinstance(self._raw.isakmp, list)
        raws = self._raw.isakmp if isinstance(self._raw.isakmp, list) else [self._raw.isakmp]
        if not raws:
            at = self._shaped.at("groups", self._name, "isakmp")
            self._problems.add(at, "'isakmp' has no proposal", "leave the key out for the default, or add one")
        place = ("groups", self._name, "isakmp")
        return tuple(
            self._proposal(raw, index, (*place, index) if several else place) for index, raw in enumerate(raws)
        )

    def _proposal(self, raw: RawIsakmp, index: int, place: tuple[str | int, ...]) -> IsakmpPolicy:
        policy = IsakmpPolicy(
            priority=10 * (index + 1),
            hash=Hash(raw.hash),
            group=DhGroup(raw.group),
            lifetime=raw.lifetime,
            authentication=Authentication(raw.authentication),
        )
        cipher = self._encryption(raw.encryption, (*place, "encryption"))
        return policy if cipher is None else replace(policy, encryption=cipher[0], key_bits=cipher[1])

    def _rekey(self) -> RekeyPolicy:
        raw = self._raw.rekey
        self._check_rekey()
        policy = RekeyPolicy(
            signature_hash=Hash(raw.hash),
            lifetime=self._raw.lifetime.kek,
            transport=RekeyTransport.UNICAST if raw.transport == "unicast" else RekeyTransport.MULTICAST,
            address=self._rekey_address() if raw.transport == "multicast" else None,
            retransmit_interval=raw.retransmit.interval,
            retransmit_count=raw.retransmit.number,
            acknowledgement=Acknowledgement(raw.acknowledgement),
            key_tree=raw.key_tree,
            key_label=read_key_label(self._shaped, self._name, self._problems),
        )
        cipher = self._encryption(raw.encryption, ("groups", self._name, "rekey", "encryption"))
        if cipher is None:
            return policy
        if raw.key_tree and cipher == (Encryption.AES_CBC, 192):
            self._problems.add(
                self._shaped.at("groups", self._name, "rekey", "encryption"),
                "in a key tree one key encrypts another, and 'aes 192' with its IV is no whole number of blocks",
                "'aes 128', 'aes 256' or '3des'",
            )
        return replace(policy, encryption=cipher[0], key_bits=cipher[1])

    def _rekey_address(self) -> IPv4Address:
        """What the user gave, or an address of the organization's own (RFC 2365 6.2), by the group's place."""
        planned = _REKEY_ADDRESSES[list(self._shaped.raw.groups).index(self._name) + 1]
        text = self._raw.rekey.address
        if text is None:
            return planned
        try:
            address = IPv4Address(text)
        except ValueError:
            address = None
        if address is not None and address.is_multicast and address not in _LINK_LOCAL_GROUPS:
            return address
        self._problems.add(
            self._shaped.at("groups", self._name, "rekey", "address"),
            f"{text!r} is no multicast address that routers carry",
            f"one from 224.0.1.0 to 239.255.255.255: {planned}, for example",
        )
        return planned

    def _check_rekey(self) -> None:
        """What says how rekeys are sent needs a transport that has it."""
        raw = self._raw.rekey
        for field in sorted(raw.model_fields_set):
            transports, key = _TRANSPORTS_WITH.get(field), field.replace("_", "-")
            if transports is None or raw.transport in transports:
                continue
            what = "sends no rekeys" if raw.transport == "none" else f"sends {raw.transport} rekeys"
            words = " or ".join(f"'transport: {transport}'" for transport in transports)
            self._problems.add(
                self._shaped.key_at("groups", self._name, "rekey", key),
                f"{key!r} does nothing: group {self._name!r} {what}",
                f"remove it, or say {words} in 'rekey'",
            )

    def _encryption(self, text: str, place: tuple[str | int, ...]) -> tuple[Encryption, int] | None:
        try:
            return parse_encryption(text)
        except WordError as error:
            self._problems.add(self._shaped.inside(error.column, *place), error.problem, error.hint)
            return None

    def _keys(self, members: tuple[str, ...]) -> PreSharedKeys:
        raw, place = self._raw.pre_shared_keys, ("groups", self._name, "pre-shared-keys")
        if isinstance(raw, str):
            return PreSharedKeys() if raw == GENERATED else PreSharedKeys(everyone=self._key(raw, place))
        for name in raw:
            if name not in members:
                self._problems.add(
                    self._shaped.key_at(*place, name),
                    f"{name!r} is not a member of group {self._name!r}",
                    did_you_mean(name, members),
                )
        given = {name: self._key(text, (*place, name)) for name, text in raw.items() if text != GENERATED}
        return PreSharedKeys(members=given)

    def _key(self, text: str, place: tuple[str | int, ...]) -> str:
        if not _KEY.fullmatch(text):
            # The text itself is a secret, and stays out of the message.
            hint = "1 to 128 printable ASCII characters without blanks"
            self._problems.add(self._shaped.at(*place), "this is no pre-shared key", hint)
        return text


def member_name(raw: str | RawMember) -> str:
    """The node of a member, in whichever form it was written."""
    return raw if isinstance(raw, str) else raw.node


def _refuse_shared_identities(shaped: Shaped, groups: list[Group], problems: Problems) -> None:
    owners: dict[str, str] = {}
    for group in groups:
        identity = str(group.identity)
        if identity in owners and identity != "None":
            problems.add(
                shaped.at("groups", group.name, "identity"),
                f"identity {identity} belongs to group {owners[identity]!r} as well",
                "each group has its own",
            )
        owners.setdefault(identity, group.name)
