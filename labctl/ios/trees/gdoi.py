"""`crypto gdoi group`: key servers and members (reference/cisco-getvpn.md 1.3, 1.4).

Beyond IOS, `rekey key-tree`, `activation-delay` and `deactivation-delay` are labctl's own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from labctl.configuration import (
    NO_REPLAY,
    Acknowledgement,
    CertificateIdentity,
    Encryption,
    GroupIdentity,
    GroupMembership,
    Hash,
    KeyServerGroup,
    NodeConfiguration,
    RekeyPolicy,
    RekeyTransport,
    Replay,
    ReplayMethod,
    SaIpsec,
)
from labctl.configuration.replay import COUNTER_WINDOWS, LONGEST_TIME_WINDOW
from labctl.ios.grammar.arguments import Address, Integer, InterfaceName, Text, Word
from labctl.ios.grammar.command import Command
from labctl.ios.grammar.language import GLOBAL, Tree
from labctl.ios.meaning import Notes, Part
from labctl.ios.running import Section
from labctl.ios.trees import access_lists, ipsec
from labctl.ios.trees.isakmp import cipher_of, encryption

GROUP_MODE, SERVER_MODE, SA_MODE, IDENTITY_MODE = "gdoi-group", "gdoi-local-server", "gdoi-sa-ipsec", "identity"

# What is served where nothing is said.
OMITTED = RekeyPolicy(
    encryption=Encryption.TRIPLE_DES, key_bits=192, signature_hash=Hash.SHA1, acknowledgement=Acknowledgement.SHA256
)

# The label of the pair that a key server makes itself, when nobody made one for it.
OWN_KEY = "LABCTL_REKEY_KEY"

# Bits of a sender ID by the size of the group.
_SIZES = {"small-8": 8, "small-12": 12, "medium": 24, "large": 32}

_CRYPTO = {"crypto": "Encryption module", "gdoi": "Configure GDOI policy", "group": "Configure a GDOI group"}
_NAME = Word("Group name", form=r"[^\s?]{1,80}")
_ADDRESS = Address("IP address")

GROUP = Command(
    "crypto gdoi group [ipv6] {name}",
    {"name": _NAME},
    ("name",),
    GROUP_MODE,
    {**_CRYPTO, "ipv6": "The policy of the group is IPv6"},
)
GKM = Command(
    "crypto gkm group {name}",
    {"name": _NAME},
    ("name",),
    helps={**_CRYPTO, "gkm": "Configure a GKM group"},
    unsupported=True,
)
IDENTITY = Command(
    "crypto identity {name}",
    {"name": Word("Name of the identity")},
    ("name",),
    IDENTITY_MODE,
    {"crypto": "Encryption module", "identity": "Enter a crypto identity list"},
)
DN = Command(
    "dn {name}", {"name": Text("Attributes of a distinguished name")}, ("name",), helps={"dn": "Distinguished name"}
)
FQDN = Command("fqdn {name}", {"name": Word("Domain name")}, ("name",), helps={"fqdn": "Fully qualified domain name"})

NUMBER = Command(
    "identity (number {number} | address ipv4 {address})",
    {"number": Integer(0, 2147483647, "Group number"), "address": _ADDRESS},
    negated="identity [number [{number}] | address [ipv4 [{address}]]]",
    helps={
        "identity": "Set the identity of the group",
        "number": "Group number",
        "address": "Group address",
        "ipv4": "IPv4 address",
    },
)
SERVER_ADDRESS = Command(
    "server address ipv4 {address}",
    {"address": _ADDRESS},
    key=("address",),
    helps={"server": "Set the group server", "address": "Address of a key server", "ipv4": "IPv4 address"},
)
SERVER_LOCAL = Command(
    "server local",
    mode=SERVER_MODE,
    helps={"server": "Set the group server", "local": "This device is the key server"},
)
PASSIVE = Command("passive", helps={"passive": "Send encrypted, and accept clear text too"})
_CLIENT = {"client": "Set the group client parameters"}
RECOVERY_CHECK = Command(
    "client recovery-check interval {seconds}",
    {"seconds": Integer(10, 86400, "Seconds between two registrations")},
    helps={
        **_CLIENT,
        "recovery-check": "Register again upon errors of the data plane",
        "interval": "The least interval",
    },
)
REVERT = Command(
    "client fail-close revert",
    helps={**_CLIENT, "fail-close": "Fail-close mode", "revert": "Close again when keys are lost"},
)
REGISTRATION_INTERFACE = Command(
    "client registration interface {name}",
    {"name": InterfaceName()},
    helps={**_CLIENT, "registration": "Registration of the client", "interface": "Interface that it registers from"},
)

_REKEY = {"rekey": "Rekey message parameters"}
REKEY_ALGORITHM = Command(
    "rekey algorithm (aes:aes [128:_ | 192 | 256] | 3des-cbc:3des)",
    default={"3des": True},
    helps={
        **_REKEY,
        "algorithm": "Set the algorithm of the key encryption key",
        "aes": "AES in CBC mode",
        "3des-cbc": "Three key triple DES in CBC mode",
    },
)
REKEY_HASH = Command(
    "rekey sig-hash algorithm (sha | sha256 | sha384 | sha512)",
    default={"sha": True},
    helps={**_REKEY, "sig-hash": "Hash of the signature", "algorithm": "Set the algorithm"},
)
REKEY_LIFETIME = Command(
    "rekey lifetime (seconds {seconds} | days {days})",
    {"seconds": Integer(300, 2592000, "Lifetime in seconds"), "days": Integer(1, 30, "Lifetime in days")},
    default={"seconds": OMITTED.lifetime},
    helps={**_REKEY, "lifetime": "Set the lifetime of the key encryption key"},
)
REKEY_RETRANSMIT = Command(
    "rekey retransmit {interval} number {count}",
    {"interval": Integer(10, 60, "Seconds between two copies"), "count": Integer(1, 10, "Copies")},
    default={"interval": OMITTED.retransmit_interval, "count": OMITTED.retransmit_count},
    helps={**_REKEY, "retransmit": "Set how often a rekey is sent again", "number": "Number of copies"},
)
REKEY_AUTHENTICATION = Command(
    "rekey authentication mypubkey rsa {label}",
    {"label": Word("Label of the RSA pair")},
    helps={
        **_REKEY,
        "authentication": "Set what rekeys are signed with",
        "mypubkey": "A pair of this device",
        "rsa": "RSA pair",
    },
)
REKEY_TRANSPORT = Command(
    "rekey transport unicast",
    helps={**_REKEY, "transport": "Set how rekeys travel", "unicast": "To each member, which acknowledges"},
)
REKEY_ADDRESS = Command(
    "rekey address ipv4 {list}",
    {"list": Word("Access list: from this key server to the group")},
    helps={**_REKEY, "address": "Set the multicast address of rekeys", "ipv4": "IPv4"},
)
REKEY_ACKNOWLEDGEMENT = Command(
    "rekey acknowledgement (cisco | interoperable | any | sha512)",
    default={"cisco": True},
    off="rekey acknowledgement",
    helps={
        **_REKEY,
        "acknowledgement": "Set how members acknowledge",
        "cisco": "As this vendor's members do (labctl: RFC 8263, SHA-256)",
        "interoperable": "RFC 8263, SHA-256",
        "any": "RFC 8263, SHA-256",
        "sha512": "RFC 8263, SHA-512",
    },
)
REKEY_TREE = Command("rekey key-tree", helps={**_REKEY, "key-tree": "Keep a tree of keys (RFC 6407 5.6.3)"})
_AUTHORIZATION = {"authorization": "Say who may register", "ipv4": "IPv4"}
AUTHORIZATION_ADDRESS = Command(
    "authorization address ipv4 {list}",
    {"list": Word("Standard access list")},
    helps={**_AUTHORIZATION, "address": "By address"},
)
AUTHORIZATION_IDENTITY = Command(
    "authorization identity {name}",
    {"name": Word("Name of the identity list")},
    helps={**_AUTHORIZATION, "identity": "By certificate"},
)
RECEIVE_ONLY = Command(
    "sa receive-only", helps={"sa": "Security association", "receive-only": "Members decrypt, and send in clear text"}
)
SA = Command(
    "sa ipsec {number}",
    {"number": Integer(1, 65535, "Sequence number of the policy")},
    key=("number",),
    mode=SA_MODE,
    sort=True,
    helps={"sa": "Security association", "ipsec": "Policy of the traffic"},
)
LOCAL_ADDRESS = Command(
    "address ipv4 {address}",
    {"address": _ADDRESS},
    helps={"address": "Address of this key server", "ipv4": "IPv4"},
)
GROUP_SIZE = Command(
    "group size (small (8:small-8 | 12:small-12) | medium | large)",
    default={"medium": True},
    helps={"group": "Parameters of the group", "size": "How many sender IDs there are"},
)
SENDER = Command(
    "identifier value {value}",
    {"value": Integer(0, 65535, "Identifier of this key server")},
    default={"value": 0},
    helps={"identifier": "Identifier of the key server in sender IDs", "value": "Its value"},
)
_DELAY = Integer(0, 86400, "Seconds")
ACTIVATION = Command(
    "activation-delay {seconds}",
    {"seconds": _DELAY},
    default={"seconds": 0},
    helps={"activation-delay": "How long members wait before they send under a new key"},
)
DEACTIVATION = Command(
    "deactivation-delay {seconds}",
    {"seconds": _DELAY},
    default={"seconds": 0},
    helps={"deactivation-delay": "How long members keep a key that was replaced"},
)
REDUNDANCY = Command("redundancy", helps={"redundancy": "Cooperative key servers"}, unsupported=True)

SA_PROFILE = Command("profile {name}", {"name": Word("IPsec profile")}, helps={"profile": "Set the IPsec profile"})
SA_MATCH = Command(
    "match address (ipv4 | ipv6) {list}",
    {"list": Word("Extended access list")},
    negated="match address [(ipv4 | ipv6) [{list}]]",
    helps={"match": "Match traffic", "address": "By an access list", "ipv4": "IPv4", "ipv6": "IPv6"},
)
SA_REPLAY = Command(
    "replay (counter window-size {packets} | time window-size {seconds})",
    {
        "packets": Word("Sequence numbers", metavar="(64|128|256|512|1024)", form="64|128|256|512|1024"),
        "seconds": Integer(1, LONGEST_TIME_WINDOW, "Seconds"),
    },
    default={"packets": "64"},
    negated="replay [counter [window-size [{packets}]] | time [window-size [{seconds}]]]",
    off="replay",
    helps={
        "replay": "Set anti-replay",
        "counter": "By sequence numbers",
        "time": "By time stamps",
        "window-size": "Set the window",
    },
)

TREE = Tree(
    {
        GLOBAL: (IDENTITY, GROUP, GKM),
        IDENTITY_MODE: (DN, FQDN),
        GROUP_MODE: (NUMBER, SERVER_LOCAL, SERVER_ADDRESS, PASSIVE, RECOVERY_CHECK, REVERT, REGISTRATION_INTERFACE),
        SERVER_MODE: (
            REKEY_ALGORITHM,
            REKEY_HASH,
            REKEY_LIFETIME,
            REKEY_RETRANSMIT,
            REKEY_AUTHENTICATION,
            REKEY_TRANSPORT,
            REKEY_ADDRESS,
            REKEY_ACKNOWLEDGEMENT,
            REKEY_TREE,
            AUTHORIZATION_ADDRESS,
            AUTHORIZATION_IDENTITY,
            RECEIVE_ONLY,
            SA,
            LOCAL_ADDRESS,
            GROUP_SIZE,
            SENDER,
            ACTIVATION,
            DEACTIVATION,
            REDUNDANCY,
        ),
        SA_MODE: (SA_PROFILE, SA_MATCH, SA_REPLAY),
    },
    {
        GROUP_MODE: "config-gdoi-group",
        SERVER_MODE: "gdoi-local-server",
        SA_MODE: "gdoi-sa-ipsec",
        IDENTITY_MODE: "config-crypto-identity",
    },
)


def write(node: NodeConfiguration) -> Iterator[str]:
    """The lines of what a key server serves; a member's come with its crypto map."""
    profiles = ipsec.profiles_of(node)
    for number, group in enumerate(node.key_server_groups):
        yield from _lists(group, number)
        yield group_line(group)
        yield f" identity {identity(group.identity)}"
        yield " server local"
        for line in _server_lines(group, number, profiles):
            yield f"  {line}"


def read(root: Section, node: NodeConfiguration, notes: Notes) -> NodeConfiguration:
    """The groups that are complete."""
    groups = []
    for said in root.all(GROUP):
        section = said.section
        assert section is not None
        server = section.all(SERVER_LOCAL)
        if server and server[0].section is not None:
            group = _served(root, said.values, section, server[0].section, node, notes)
            if group is not None:
                groups.append(group)
    return replace(node, key_server_groups=tuple(groups))


PART = Part(TREE, write, read)


def identity(found: GroupIdentity) -> str:
    """`number 1234`, `address ipv4 10.0.0.1`."""
    return f"number {found.number}" if found.number is not None else f"address ipv4 {found.address}"


def group_line(group: KeyServerGroup | GroupMembership) -> str:
    """The line that opens a group."""
    return f"crypto gdoi group {'ipv6 ' if group.ipv6 else ''}{group.name}"


def identity_of(section: Section) -> GroupIdentity | None:
    """What the group is told by."""
    said = section.one(NUMBER)
    return None if said is None else GroupIdentity(said.get("number"), said.get("address"))


def list_name(name: str, group: int, sa: int = 0) -> str:
    """A name for a list of a group: ENC_POLICY, ENC_POLICY_2; ENC_POLICY_SA2 of its second `sa ipsec`."""
    return ipsec.numbered(name, group) + (f"_SA{sa + 1}" if sa else "")


def _lists(group: KeyServerGroup, number: int) -> Iterator[str]:
    for place, sa in enumerate(group.sas):
        yield from access_lists.extended_lines(list_name("ENC_POLICY", number, place), sa.policy)
    if group.authorized:
        yield from access_lists.standard_lines(list_name("GM_AUTH", number), group.authorized)
    if group.authorized_identities is not None:
        yield f"crypto identity {list_name('GM_IDENTITY', number)}"
        for item in group.authorized_identities:
            yield f" dn {item.dn}" if item.dn is not None else f" fqdn {item.fqdn}"
    if group.rekey.address is not None:
        yield f"ip access-list extended {list_name('REKEY_MC', number)}"
        yield f" permit udp host {group.address} eq 848 host {group.rekey.address} eq 848"


def _replay_line(replay: Replay) -> str:
    if replay.method is ReplayMethod.NONE:
        return "no replay"
    return f"replay {replay.method.value} window-size {replay.window}"


def _server_lines(group: KeyServerGroup, number: int, profiles: dict[ipsec.Profile, str]) -> Iterator[str]:
    rekey = group.rekey
    aes = rekey.encryption is Encryption.AES_CBC
    yield f"rekey algorithm {encryption(rekey.encryption, rekey.key_bits) if aes else '3des-cbc'}"
    yield f"rekey sig-hash algorithm {rekey.signature_hash.value}"
    yield f"rekey lifetime seconds {rekey.lifetime}"
    yield f"rekey retransmit {rekey.retransmit_interval} number {rekey.retransmit_count}"
    yield f"rekey authentication mypubkey rsa {rekey.key_label or OWN_KEY}"
    if rekey.transport is RekeyTransport.UNICAST:
        yield "rekey transport unicast"
    if rekey.address is not None:
        yield f"rekey address ipv4 {list_name('REKEY_MC', number)}"
    if rekey.acknowledgement is Acknowledgement.NONE:
        yield "no rekey acknowledgement"
    elif rekey.acknowledgement is Acknowledgement.SHA512:
        yield "rekey acknowledgement sha512"
    if rekey.key_tree:
        yield "rekey key-tree"
    if group.authorized:
        yield f"authorization address ipv4 {list_name('GM_AUTH', number)}"
    if group.authorized_identities is not None:
        yield f"authorization identity {list_name('GM_IDENTITY', number)}"
    if group.receive_only:
        yield "sa receive-only"
    for place, sa in enumerate(group.sas):
        yield f"sa ipsec {sa.number}"
        yield f" profile {profiles[ipsec.Profile(sa.transform, sa.tek_lifetime)]}"
        family = "ipv6" if group.ipv6 else "ipv4"
        yield f" match address {family} {list_name('ENC_POLICY', number, place)}"
        yield f" {_replay_line(sa.replay)}"
    yield f"address ipv4 {group.address}"
    size = next(name for name, bits in _SIZES.items() if bits == group.sender_id_bits)
    yield f"group size {size.replace('-', ' ')}"
    yield f"identifier value {group.key_server_id}"
    yield f"activation-delay {group.activation_delay}"
    yield f"deactivation-delay {group.deactivation_delay}"


def _served(
    root: Section,
    said: Mapping[str, Any],
    group: Section,
    server: Section,
    node: NodeConfiguration,
    notes: Notes,
) -> KeyServerGroup | None:
    name, ipv6 = said["name"], "ipv6" in said
    identified, address = identity_of(group), server.one(LOCAL_ADDRESS)
    sas = [sa for item in server.all(SA) if (sa := _sa(root, said, item.values["number"], item.section, notes))]
    missing = [
        what
        for what, found in (("identity", identified), ("address ipv4", address), ("complete sa ipsec", sas))
        if not found
    ]
    if missing or identified is None or address is None:
        notes.append(f"group {name} is not served: it has no {', no '.join(missing)}")
        return None
    size = server.one(GROUP_SIZE) or {"medium": True}
    try:
        authorized, identities = _authorization(root, server)
        rekey = _rekey(root, server, node)
    except access_lists.Unusable as error:
        notes.append(f"group {name} is not served: {error}")
        return None
    return KeyServerGroup(
        name=name,
        identity=identified,
        address=address["address"],
        sas=tuple(sorted(sas, key=lambda sa: sa.number)),
        rekey=rekey,
        activation_delay=_number(server, ACTIVATION, "seconds", 0),
        deactivation_delay=_number(server, DEACTIVATION, "seconds", 0),
        sender_id_bits=_SIZES[next(iter(size))],
        key_server_id=_number(server, SENDER, "value", 0),
        authorized=authorized,
        authorized_identities=identities,
        receive_only=server.one(RECEIVE_ONLY) is not None,
        ipv6=ipv6,
    )


def _sa(root: Section, said: Mapping[str, Any], number: int, section: Section | None, notes: Notes) -> SaIpsec | None:
    assert section is not None
    group, ipv6 = said["name"], "ipv6" in said
    chosen, match = section.one(SA_PROFILE), section.one(SA_MATCH)
    profile = None if chosen is None else ipsec.profile(root, chosen["name"])
    try:
        wrong = match is not None and ("ipv6" in match) != ipv6
        policy = None if match is None or wrong else access_lists.entries(root, match["list"], ipv6=ipv6)
    except access_lists.Unusable as error:
        notes.append(f"group {group}: sa ipsec {number}: {error}")
        return None
    if profile is None or not policy:
        family = "IPv6" if ipv6 else "IPv4"
        what = "its profile is incomplete" if profile is None else f"it matches no {family} access list with entries"
        notes.append(f"group {group}: sa ipsec {number} is not used: {what}")
        return None
    return SaIpsec(policy, profile.transform, profile.lifetime, number, _replay(section))


def _replay(section: Section) -> Replay:
    said = section.all(SA_REPLAY)
    if said and said[0].negated:
        return NO_REPLAY
    values = said[0].values if said else {"packets": COUNTER_WINDOWS[0]}
    if "seconds" in values:
        return Replay(ReplayMethod.TIME, values["seconds"])
    return Replay(ReplayMethod.COUNTER, int(values["packets"]))


def _rekey(root: Section, server: Section, node: NodeConfiguration) -> RekeyPolicy:
    bits = server.one(REKEY_ALGORITHM)
    cipher, key_bits = cipher_of(bits) if bits else (OMITTED.encryption, OMITTED.key_bits)
    hashes = server.one(REKEY_HASH) or {"sha": True}
    lifetime = server.one(REKEY_LIFETIME) or {"seconds": OMITTED.lifetime}
    retransmit = server.one(REKEY_RETRANSMIT) or {
        "interval": OMITTED.retransmit_interval,
        "count": OMITTED.retransmit_count,
    }
    signed = server.one(REKEY_AUTHENTICATION)
    unicast = signed is not None and server.one(REKEY_TRANSPORT) is not None
    label = None if signed is None else signed["label"]
    made = {pair.label for pair in node.rsa_keys}
    return RekeyPolicy(
        encryption=cipher,
        key_bits=key_bits,
        signature_hash=Hash(next(iter(hashes))),
        lifetime=lifetime["seconds"] if "seconds" in lifetime else lifetime["days"] * 86400,
        transport=RekeyTransport.UNICAST if unicast else RekeyTransport.MULTICAST,
        address=_rekey_address(root, server) if signed is not None and not unicast else None,
        retransmit_interval=retransmit["interval"],
        retransmit_count=retransmit["count"],
        acknowledgement=_acknowledgement(server),
        key_label=None if label == OWN_KEY and OWN_KEY not in made else label,
        key_tree=server.one(REKEY_TREE) is not None,
    )


def _acknowledgement(server: Section) -> Acknowledgement:
    said = server.all(REKEY_ACKNOWLEDGEMENT)
    if said and said[0].negated:
        return Acknowledgement.NONE
    return Acknowledgement.SHA512 if said and "sha512" in said[0].values else Acknowledgement.SHA256


def _rekey_address(root: Section, server: Section) -> IPv4Address | None:
    said = server.one(REKEY_ADDRESS)
    found = None if said is None else access_lists.entries(root, said["list"])
    group = found[0].destination.network_address if found else None
    return group if isinstance(group, IPv4Address) and group.is_multicast else None


def _authorization(
    root: Section, server: Section
) -> tuple[tuple[IPv4Network, ...], tuple[CertificateIdentity, ...] | None]:
    by_address, by_identity = server.one(AUTHORIZATION_ADDRESS), server.one(AUTHORIZATION_IDENTITY)
    networks = () if by_address is None else access_lists.sources(root, by_address["list"]) or ()
    if by_identity is None:
        return networks, None
    section = root.section(IDENTITY, name=by_identity["name"])
    return networks, tuple(
        CertificateIdentity(**{"dn" if said.command is DN else "fqdn": said.values["name"]})
        for said in (() if section is None else section.statements)
    )


def _number(section: Section, command: Command, name: str, otherwise: int) -> int:
    said = section.one(command)
    return otherwise if said is None else int(said[name])
