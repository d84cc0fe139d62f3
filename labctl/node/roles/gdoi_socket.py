"""UDP 848 of a node: one socket, which knows to which address a datagram came and sends from the same."""

from __future__ import annotations

import asyncio
import errno
import socket
import struct
from collections.abc import Callable
from ipaddress import IPv4Address

from labctl.isakmp.datagram import GDOI_PORT, Datagram, Endpoint

IP_PKTINFO = 8
BUFFER_OCTETS = 4 * 1024 * 1024
MAX_DATAGRAM = 65_535

# Datagrams handled before the rest of the agent gets its turn.
BATCH = 32

_PKTINFO = struct.Struct("=I4s4s")


class GdoiSocket:
    """Datagrams in, through `receiver`; out through `send`. Raises OSError where the port is taken."""

    def __init__(self, receiver: Callable[[Datagram], None]) -> None:
        self._receiver = receiver
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            self._socket.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_OCTETS)
            self._socket.bind(("0.0.0.0", GDOI_PORT))
        except OSError:
            self._socket.close()
            raise
        self._reading = False

    def start(self) -> None:
        """Begin to read. What came since the socket was opened is still there."""
        asyncio.get_running_loop().add_reader(self._socket.fileno(), self._receive)
        self._reading = True

    def send(self, datagram: Datagram) -> str:
        """Send from the datagram's own source; returns what went wrong, empty where nothing did."""
        source = _PKTINFO.pack(0, datagram.source.address.packed, bytes(4))
        destination = (str(datagram.destination.address), datagram.destination.port)
        try:
            self._socket.sendmsg([datagram.data], [(socket.IPPROTO_IP, IP_PKTINFO, source)], 0, destination)
        except OSError as error:
            return error.strerror or str(error)
        return ""

    def close(self) -> None:
        """Close the port."""
        if self._reading:
            asyncio.get_running_loop().remove_reader(self._socket.fileno())
        self._socket.close()

    def _receive(self) -> None:
        for _ in range(BATCH):
            try:
                data, ancillary, _, (address, port) = self._socket.recvmsg(MAX_DATAGRAM, 64)
            except BlockingIOError:
                return
            except OSError as error:
                # An ICMP error for what we sent: the timers of the protocols deal with it.
                if error.errno in (errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH):
                    continue
                raise
            info = next((value for level, kind, value in ancillary if kind == IP_PKTINFO), None)
            if info is None:
                continue
            destination = IPv4Address(_PKTINFO.unpack_from(info)[2])
            source = Endpoint(IPv4Address(address), port)
            self._receiver(Datagram(data, source, Endpoint(destination, GDOI_PORT)))
