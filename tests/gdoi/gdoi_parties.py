"""A key server and members in memory, and a network between them that a test can break."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import cache
from ipaddress import IPv4Address, IPv4Network

from labctl import crypto
from labctl.configuration import (
    AccessListEntry,
    Action,
    CertificateIdentity,
    Cipher,
    DhGroup,
    GroupIdentity,
    GroupMembership,
    IsakmpPolicy,
    KeyServerGroup,
    PreSharedKey,
    SaIpsec,
    TransformSet,
    Trustpoint,
)
from labctl.gdoi import GroupMember, KeyServer
from labctl.gdoi.events import Event, LogMessage, PolicyInstalled
from labctl.isakmp.datagram import Datagram

KS1 = IPv4Address("10.255.0.11")
KS2 = IPv4Address("10.255.0.12")
POLICY = IsakmpPolicy(group=DhGroup.ECP256)
PERMIT = AccessListEntry(Action.PERMIT, 0, IPv4Network("10.1.0.0/16"), IPv4Network("10.1.0.0/16"))
DENY = AccessListEntry(Action.DENY, 6, IPv4Network("0.0.0.0/0"), IPv4Network("0.0.0.0/0"), 0, 179)
GCM = TransformSet(Cipher.AES_GCM, 256)

Network = Callable[[Datagram], list[Datagram]]


@cache
def signing_key() -> crypto.RsaPrivateKey:
    return crypto.generate_rsa_key(2048)


def member_address(number: int) -> IPv4Address:
    return IPv4Address(f"172.16.{11 + number // 200}.{2 + number % 200}")


def group(
    address: IPv4Address = KS1,
    *,
    policy: Sequence[AccessListEntry] = (PERMIT,),
    transform: TransformSet = GCM,
    tek_lifetime: int = 3600,
    identity: int | IPv4Address = 1234,
    sender_id_bits: int = 24,
    key_server_id: int = 0,
    authorized: Sequence[IPv4Network] = (),
    authorized_identities: Sequence[CertificateIdentity] | None = None,
    name: str = "GETVPN_LAB",
    sas: Sequence[SaIpsec] | None = None,
    ipv6: bool = False,
) -> KeyServerGroup:
    return KeyServerGroup(
        name,
        group_identity(identity),
        address,
        (SaIpsec(tuple(policy), transform, tek_lifetime),) if sas is None else tuple(sas),
        sender_id_bits=sender_id_bits,
        key_server_id=key_server_id,
        authorized=tuple(authorized),
        authorized_identities=None if authorized_identities is None else tuple(authorized_identities),
        ipv6=ipv6,
    )


def group_identity(identity: int | IPv4Address) -> GroupIdentity:
    return GroupIdentity(identity) if isinstance(identity, int) else GroupIdentity(address=identity)


def key_server(
    configuration: KeyServerGroup,
    members: int = 3,
    *,
    more: Sequence[KeyServerGroup] = (),
    secret: bytes = b"LabPsk1",
    policies: Sequence[IsakmpPolicy] = (POLICY,),
    rekeys: bool = True,
    seed: int = 0,
    trustpoints: Sequence[Trustpoint] = (),
    started: float = 0.0,
) -> KeyServer:
    return KeyServer(
        [configuration, *more],
        policies,
        [PreSharedKey(member_address(number), secret) for number in range(members)],
        trustpoints=trustpoints,
        started=started,
        random=random.Random(f"ks {configuration.address} {seed}").randbytes,
        signing_key=signing_key() if rekeys else None,
    )


def group_member(
    number: int = 0,
    servers: Sequence[IPv4Address] = (KS1,),
    *,
    identity: int | IPv4Address = 1234,
    secret: bytes = b"LabPsk1",
    seed: int = 0,
    policies: Sequence[IsakmpPolicy] = (POLICY,),
    keys_for: Sequence[IPv4Address] | None = None,
    trustpoints: Sequence[Trustpoint] = (),
    started: float = 0.0,
    initial_contact: bool = True,
    ipv6: bool = False,
) -> GroupMember:
    membership = GroupMembership(
        "GETVPN_LAB", group_identity(identity), tuple(servers), "eth0", member_address(number), ipv6=ipv6
    )
    return GroupMember(
        membership,
        policies,
        [PreSharedKey(server, secret) for server in (servers if keys_for is None else keys_for)],
        trustpoints=trustpoints,
        started=started,
        random=random.Random(f"gm {number} {seed}").randbytes,
        initial_contact=initial_contact,
    )


class World:
    """Parties by address on one clock."""

    def __init__(
        self, servers: dict[IPv4Address, KeyServer], members: Sequence[GroupMember], network: Network | None = None
    ) -> None:
        self.parties: dict[IPv4Address, KeyServer | GroupMember] = dict(servers)
        self.parties.update({member.membership.local_address: member for member in members})
        self.network = network or (lambda datagram: [datagram])
        self.now = 0.0
        self.events: dict[IPv4Address, list[Event]] = {address: [] for address in self.parties}

    def settle(self) -> None:
        """Carry datagrams until nobody has any left."""
        while waiting := [item for party in self.parties.values() for item in party.datagrams_to_send()]:
            for datagram in waiting:
                for copy in self.network(datagram):
                    target = self.parties.get(copy.destination.address)
                    if target is not None:
                        target.receive_datagram(copy, self.now)
        for address, party in self.parties.items():
            self.events[address].extend(iter(party.next_event, None))

    def run(self, until: float) -> None:
        """Let time pass, timer by timer."""
        self.settle()
        while True:
            deadlines = [at for party in self.parties.values() if (at := party.next_deadline()) is not None]
            if not deadlines or min(deadlines) > until:
                self.now = until
                return
            self.now = max(self.now, min(deadlines))
            for party in self.parties.values():
                party.handle_timer(self.now)
            self.settle()

    def logs(self, address: IPv4Address) -> list[str]:
        """Mnemonics of the messages a party logged."""
        return [event.mnemonic for event in self.events[address] if isinstance(event, LogMessage)]

    def texts(self, address: IPv4Address, mnemonic: str) -> list[str]:
        """What a party logged under a mnemonic."""
        found = (event for event in self.events[address] if isinstance(event, LogMessage))
        return [event.text for event in found if event.mnemonic == mnemonic]

    def installs(self, address: IPv4Address) -> list[PolicyInstalled]:
        return [event for event in self.events[address] if isinstance(event, PolicyInstalled)]
