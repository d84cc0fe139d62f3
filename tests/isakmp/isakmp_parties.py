"""Two ISAKMP endpoints in memory, and a network between them that a test can break."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from ipaddress import IPv4Address

from labctl.configuration import (
    DhGroup,
    Encryption,
    Hash,
    IsakmpPolicy,
    IsakmpSettings,
    PreSharedKey,
    Trustpoint,
)
from labctl.isakmp.datagram import Datagram, Endpoint
from labctl.isakmp.endpoint import IsakmpEndpoint, Limits, Received
from labctl.isakmp.events import Phase1Failed
from labctl.isakmp.payloads import Notification
from labctl.isakmp.sa import Phase1Sa

MEMBER = Endpoint(IPv4Address("172.16.11.2"))
SERVER = Endpoint(IPv4Address("10.255.0.11"))

QUICK = IsakmpPolicy(10, Encryption.AES_CBC, 128, Hash.SHA256, DhGroup.ECP256, 3600)


class Recorder:
    """The party above an endpoint: it writes down what comes up."""

    def __init__(self) -> None:
        self.established: list[Phase1Sa] = []
        self.failures: list[Phase1Failed] = []
        self.deleted: list[tuple[Phase1Sa, str]] = []
        self.notifications: list[Notification] = []
        self.exchanges: list[tuple[Phase1Sa, Received]] = []
        self.groups: list[Received] = []
        self.unanswered: list[int] = []

    def on_established(self, sa: Phase1Sa, now: float) -> None:
        self.established.append(sa)

    def on_failed(self, failure: Phase1Failed, now: float) -> None:
        self.failures.append(failure)

    def on_deleted(self, sa: Phase1Sa, reason: str, now: float) -> None:
        self.deleted.append((sa, reason))

    def on_notification(self, sa: Phase1Sa, notification: Notification, now: float) -> None:
        self.notifications.append(notification)

    def on_exchange(self, sa: Phase1Sa, received: Received, now: float) -> None:
        self.exchanges.append((sa, received))

    def on_group_datagram(self, received: Received, now: float) -> None:
        self.groups.append(received)

    def on_request_failed(self, sa: Phase1Sa, message_id: int, now: float) -> None:
        self.unanswered.append(message_id)


class Party:
    """An endpoint with its recorder."""

    def __init__(
        self,
        address: Endpoint,
        policies: Sequence[IsakmpPolicy] = (QUICK,),
        keys: dict[Endpoint, bytes] | None = None,
        *,
        relaxed_doi: bool = True,
        limits: Limits | None = None,
        seed: int = 0,
        initial_contact: bool = True,
        trustpoints: Sequence[Trustpoint] = (),
        started: float = 0.0,
        settings: IsakmpSettings | None = None,
    ) -> None:
        self.address = address
        self.seen = Recorder()
        source = random.Random(f"{address} {seed}")
        self.isakmp = IsakmpEndpoint(
            self.seen,
            policies=policies,
            pre_shared_keys=[PreSharedKey(peer.address, key) for peer, key in (keys or {}).items()],
            trustpoints=trustpoints,
            started=started,
            random=source.randbytes,
            relaxed_doi=relaxed_doi,
            initial_contact=initial_contact,
            limits=limits,
            settings=settings,
        )


Network = Callable[[Datagram], list[Datagram]]


def deliver(parties: Sequence[Party], now: float, network: Network = lambda datagram: [datagram]) -> int:
    """Carry datagrams until nobody has any left; returns how many travelled."""
    by_address = {party.address: party for party in parties}
    count = 0
    while waiting := [datagram for party in parties for datagram in party.isakmp.datagrams_to_send()]:
        for datagram in waiting:
            for copy in network(datagram):
                count += 1
                if copy.destination in by_address:
                    by_address[copy.destination].isakmp.receive(copy, now)
    return count


def run(parties: Sequence[Party], now: float, until: float, network: Network = lambda datagram: [datagram]) -> float:
    """Carry datagrams and let timers fire, in their order, up to a time."""
    deliver(parties, now, network)
    while True:
        deadlines = [at for party in parties if (at := party.isakmp.next_deadline()) is not None]
        if not deadlines or min(deadlines) > until:
            return until
        now = max(now, min(deadlines))
        for party in parties:
            party.isakmp.handle_timer(now)
        deliver(parties, now, network)
