"""UDP 848 of a node, shared by its key server and its memberships (RFC 6407 2).

Bound to every address; IP_PKTINFO says which one a datagram came to, and which one an answer leaves from. ICMP errors
come through the socket's error queue, so that a party's owner can say at once that nobody listens over there.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
from collections import Counter, OrderedDict
from ipaddress import IPv4Address
from typing import Protocol

from labctl.isakmp.datagram import GDOI_PORT, Datagram, Endpoint
from labctl.node.sockets import (
    IP_MTU_DISCOVER,
    IP_PKTINFO,
    IP_PMTUDISC_DONT,
    IP_RECVERR,
    from_address,
    icmp_errors,
    local_address,
)

RECEIVE_OCTETS = 65_536

# Datagrams taken before everything else on the loop gets its turn.
BATCH = 64

# Datagrams that wait while the key server makes its signing key, or computes.
BUFFER_OCTETS = 1 << 20

MULTICAST_TTL = 64

# Exchanges whose party is remembered by initiator cookie.
MAX_COOKIES = 4096
COOKIE_OCTETS = 8
EXCHANGE_TYPE, GROUPKEY_PUSH = 18, 33

_REASONS = {
    "refused": "no key server runs there (port 848 is closed)",
    "unreachable": "it cannot be reached (ICMP unreachable)",
    "prohibited": "a router prohibits it (ICMP administratively prohibited)",
    "ttl-exceeded": "a routing loop, or it is too far (ICMP time exceeded)",
    "too-big": "a message does not fit the path (ICMP fragmentation needed)",
}


class Receiver(Protocol):
    """Whoever sends and receives through the port."""

    def receive(self, datagram: Datagram) -> None:
        """A datagram for this party."""

    def path_failed(self, address: IPv4Address, reason: str) -> None:
        """A datagram of ours did not reach its destination."""

    def serves(self, address: IPv4Address) -> bool:
        """Does this party talk to that address of its own accord?"""


class GdoiPort:
    """The socket and who gets what from it."""

    def __init__(self, port: int = GDOI_PORT) -> None:
        self.counters: Counter[str] = Counter()
        self._number = port
        self._joined: Counter[tuple[IPv4Address, IPv4Address]] = Counter()
        self._socket: socket.socket | None = None
        self._receivers: list[Receiver] = []
        self._responder: Receiver | None = None
        self._cookies: OrderedDict[bytes, Receiver] = OrderedDict()

    def open(self) -> None:
        """Bind. Datagrams wait until `listen`. Raises OSError."""
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            sock.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
            sock.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_OCTETS)
            # Routers on the way may cut what is too long for the next link. Of multicast nobody would say that it is.
            sock.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DONT)
            # Rekeys cross routers (RFC 6407 4); our own copy of one is nothing to us.
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, MULTICAST_TTL)
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 0)
            sock.bind(("0.0.0.0", self._number))
        except OSError:
            sock.close()
            raise
        self._socket = sock

    def listen(self) -> None:
        """Begin to deliver."""
        asyncio.get_running_loop().add_reader(self._open_socket().fileno(), self._read)

    def attach(self, receiver: Receiver, *, responder: bool = False) -> None:
        """Add a party; the `responder` (a key server) gets what belongs to nobody else."""
        self._receivers.append(receiver)
        if responder:
            self._responder = receiver

    def send(self, sender: Receiver, datagram: Datagram) -> str:
        """Send; the reason if the kernel refuses, else empty. Parties resend, so a loss here is no failure."""
        if sender is not self._responder:
            self._remember(datagram.data[:COOKIE_OCTETS], sender)
        target = (str(datagram.destination.address), datagram.destination.port)
        ancillary = from_address(datagram.source.address)
        sock = self._open_socket()
        try:
            try:
                sock.sendmsg([datagram.data], ancillary, 0, target)
            except OSError:
                # It may be an ICMP error about an earlier datagram that was waiting to be told.
                self._read_errors()
                sock.sendmsg([datagram.data], ancillary, 0, target)
        except BlockingIOError:
            self.counters["send-buffer-full"] += 1
            return ""
        except OSError as error:
            self.counters["send-failed"] += 1
            return _send_failure(error, datagram)
        self.counters["sent"] += 1
        return ""

    def join(self, group: IPv4Address, interface: IPv4Address) -> str:
        """Take what is sent to a multicast group on the interface with that address; the reason if it cannot be.

        Parties may join one group on one interface each: the kernel has it once.
        """
        joined = self._joined[group, interface] = self._joined[group, interface] + 1
        if joined > 1:
            return ""
        try:
            self._open_socket().setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group.packed + interface.packed)
        except OSError as error:
            del self._joined[group, interface]
            return os.strerror(error.errno or 0)
        return ""

    def leave(self, group: IPv4Address, interface: IPv4Address) -> None:
        """The end of one `join`."""
        if not self._joined[group, interface] or self._socket is None:
            return
        self._joined[group, interface] -= 1
        if not self._joined[group, interface]:
            with contextlib.suppress(OSError):  # the interface is gone, and the membership with it
                self._socket.setsockopt(socket.IPPROTO_IP, socket.IP_DROP_MEMBERSHIP, group.packed + interface.packed)

    def close(self) -> None:
        """Close the socket."""
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket.fileno())
            self._socket.close()
            self._socket = None

    def _open_socket(self) -> socket.socket:
        if self._socket is None:
            raise RuntimeError("the port is not open")
        return self._socket

    def _remember(self, cookie: bytes, receiver: Receiver) -> None:
        self._cookies[cookie] = receiver
        self._cookies.move_to_end(cookie)
        while len(self._cookies) > MAX_COOKIES:
            self._cookies.popitem(last=False)

    def _read(self) -> None:
        for _ in range(BATCH):
            if self._socket is None:
                return  # a party's event closed us
            try:
                data, ancillary, _, source = self._socket.recvmsg(RECEIVE_OCTETS, 256)
            except BlockingIOError:
                break
            except OSError:
                self._read_errors()
                continue
            address = local_address(ancillary)
            if address is None:
                continue
            self.counters["received"] += 1
            peer = Endpoint(IPv4Address(source[0]), source[1])
            datagram = Datagram(data, peer, Endpoint(address, self._number))
            for receiver in self._receivers_of(datagram):
                receiver.receive(datagram)
        self._read_errors()

    def _receivers_of(self, datagram: Datagram) -> list[Receiver]:
        if len(self._receivers) < 2:
            return self._receivers
        owner = self._cookies.get(datagram.data[:COOKIE_OCTETS])
        if owner is not None:
            return [owner]
        if datagram.data[EXCHANGE_TYPE : EXCHANGE_TYPE + 1] == bytes((GROUPKEY_PUSH,)):
            return list(self._receivers)  # addressed by KEK, not by cookie: each knows its own
        if self._responder is not None:
            return [self._responder]
        talking = [receiver for receiver in self._receivers if receiver.serves(datagram.source.address)]
        return (talking or self._receivers)[:1]

    def _read_errors(self) -> None:
        if self._socket is None:
            return
        for error in icmp_errors(self._socket):
            self.counters["icmp-errors"] += 1
            address = IPv4Address(error.destination[0])
            reason = _REASONS.get(error.name, f"ICMP error type {error.kind} code {error.code}")
            for receiver in self._receivers:
                receiver.path_failed(address, reason)


def _send_failure(error: OSError, datagram: Datagram) -> str:
    if error.errno == errno.EINVAL:
        return f"{datagram.source.address} is no address of this node, so nothing can be sent from it"
    if error.errno in (errno.ENETUNREACH, errno.EHOSTUNREACH):
        return f"there is no route to it ({os.strerror(error.errno)})"
    return f"sending failed: {error.strerror}"
