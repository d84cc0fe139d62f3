"""Whole frames from and to an interface: AF_PACKET, non-blocking, without the frames that we send ourselves."""

from __future__ import annotations

import contextlib
import errno
import socket
import struct

ETH_P_ALL = 0x0003
SOL_PACKET = 263
PACKET_ADD_MEMBERSHIP = 1
PACKET_MR_PROMISC = 1
PACKET_IGNORE_OUTGOING = 23

# Wanted; the kernel gives what net.core.rmem_max allows.
BUFFER_OCTETS = 4 * 1024 * 1024

# The interface is down, gone, or the frame does not fit it: the frame is lost, the socket is fine.
_LOST = frozenset(
    (errno.ENETDOWN, errno.ENXIO, errno.ENODEV, errno.ENOBUFS, errno.EMSGSIZE, errno.EAGAIN, errno.EINVAL)
)


class PacketSocket:
    """Frames of one interface. `fileno` is for the event loop."""

    def __init__(self, interface: str, *, promiscuous: bool = False) -> None:
        self.interface = interface
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
        try:
            self._socket.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
            for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
                self._socket.setsockopt(socket.SOL_SOCKET, option, BUFFER_OCTETS)
            # Bound last: from here on frames arrive, and only those of this interface.
            self._socket.bind((interface, ETH_P_ALL))
            if promiscuous:
                request = struct.pack("iHH8s", socket.if_nametoindex(interface), PACKET_MR_PROMISC, 0, b"")
                self._socket.setsockopt(SOL_PACKET, PACKET_ADD_MEMBERSHIP, request)
        except OSError:
            self._socket.close()
            raise

    def fileno(self) -> int:
        """The file descriptor."""
        return self._socket.fileno()

    def receive_into(self, buffer: bytearray) -> int:
        """The next frame's size, its octets in `buffer`; 0 where none is waiting."""
        try:
            return self._socket.recv_into(buffer)
        except OSError as error:
            if error.errno in _LOST:
                return 0
            raise

    def send(self, frame: bytes | memoryview) -> bool:
        """Send a frame; False where it is lost (no room, interface down)."""
        try:
            self._socket.send(frame)
        except OSError as error:
            if error.errno in _LOST:
                return False
            raise
        return True

    def close(self) -> None:
        """Close the socket."""
        with contextlib.suppress(OSError):
            self._socket.close()
