"""A key server that sends rekeys, members that can be cut off, and every datagram that went between them."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address

from gdoi_parties import KS1, World, group, group_member, key_server, member_address

from labctl.configuration import (
    Cipher,
    Integrity,
    KeyServerGroup,
    RekeyPolicy,
    RekeyTransport,
    SaDirection,
    TransformSet,
)
from labctl.gdoi import GroupMember, KeyServer
from labctl.gdoi.events import KeysLost, RekeyAddress
from labctl.isakmp.datagram import Datagram
from labctl.isakmp.header import ExchangeType

LAB = "GETVPN_LAB"
GM1, GM2, GM3 = (member_address(number) for number in range(3))
MULTICAST = IPv4Address("239.192.1.1")
CBC = TransformSet(Cipher.AES_CBC, 256, Integrity.SHA256)
UNICAST = RekeyPolicy(transport=RekeyTransport.UNICAST)


def kind(datagram: Datagram) -> int:
    return datagram.data[18]


class Rekeyed(World):
    """Parties, what they sent, and members that can be cut off. Multicast reaches every member that joined."""

    def __init__(self, server: KeyServer, members: list[GroupMember]) -> None:
        super().__init__({KS1: server}, members, self._carry)
        self.server = server
        self.members = members
        self.sent: list[tuple[float, Datagram]] = []
        self.cut: set[IPv4Address] = set()
        for member in members:
            member.start(0.0)
        self.settle()

    def _carry(self, datagram: Datagram) -> list[Datagram]:
        self.sent.append((self.now, datagram))
        target = datagram.destination
        if target.address.is_multicast:
            joined = [address for address in self.parties if self.joined(address) == target.address]
            for address in joined:
                if address not in self.cut:
                    # It arrives with the group as its destination, as on the wire.
                    self.parties[address].receive_datagram(datagram, self.now)
            return []
        return [] if {datagram.source.address, target.address} & self.cut else [datagram]

    def joined(self, address: IPv4Address) -> IPv4Address | None:
        found = None
        for event in self.events[address]:
            if isinstance(event, RekeyAddress):
                found = event.address
        return found

    def of(self, exchange: ExchangeType) -> list[tuple[float, Datagram]]:
        return [(at, datagram) for at, datagram in self.sent if kind(datagram) == exchange]

    def lost(self, address: IPv4Address) -> list[KeysLost]:
        return [event for event in self.events[address] if isinstance(event, KeysLost)]

    def direction(self) -> SaDirection:
        """Of the first member's SAs, as installed last."""
        return self.installs(GM1)[-1].direction

    def same_keys(self) -> bool:
        held = [
            {(tek.spi, tek.encryption_key) for tek in member.keys.teks.values()}
            for member in self.members
            if member.keys
        ]
        return len(held) == len(self.members) and all(keys == held[0] for keys in held)


def lab(configuration: KeyServerGroup | None = None, members: int = 3) -> Rekeyed:
    configuration = configuration or unicast()
    return Rekeyed(key_server(configuration, members), [group_member(number) for number in range(members)])


def unicast(**changes: object) -> KeyServerGroup:
    return replace(group(transform=CBC), rekey=replace(UNICAST, **changes))  # type: ignore[arg-type]


def multicast(**changes: object) -> KeyServerGroup:
    return replace(group(transform=CBC), rekey=RekeyPolicy(address=MULTICAST, **changes))  # type: ignore[arg-type]
