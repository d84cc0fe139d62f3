"""A raw socket of one interface: AF_PACKET, non-blocking, without the frames that we send ourselves.

Facts: packet(7), linux/if_packet.h. Frames come in through labctl.dataplane.receive and go out through
labctl.dataplane.transmit, both in batches.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import socket
import struct
from collections.abc import Callable

from labctl.kernel.vnet import PACKET_VNET_HDR

ETH_P_ALL = 0x0003
SOL_PACKET = 263
PACKET_ADD_MEMBERSHIP, PACKET_STATISTICS, PACKET_IGNORE_OUTGOING = 1, 6, 23
PACKET_MR_PROMISC = 1
SIOCGIFMTU = 0x8921

# Wanted; the kernel gives what net.core.rmem_max allows.
BUFFER_OCTETS = 4 * 1024 * 1024

# The interface is down or gone: no frame passes, the socket is fine.
GONE = frozenset((errno.ENETDOWN, errno.ENXIO, errno.ENODEV))

# Beside those: the frame does not fit the interface, or the moment. It is lost, the socket is fine.
LOST = GONE | {errno.ENOBUFS, errno.EMSGSIZE, errno.EAGAIN, errno.EINVAL}

_STATISTICS = struct.Struct("=II")


class PacketSocket:
    """Frames of one interface. `prepare` is called before the first can arrive. `fileno` is for the event loop.

    With `vnet` a header stands before each frame, both ways, that says what is left to do to it: checksum, segmentation
    (labctl.kernel.vnet).
    """

    vnet = False

    def __init__(
        self,
        interface: str,
        *,
        promiscuous: bool = False,
        vnet: bool = False,
        prepare: Callable[[PacketSocket], None] | None = None,
    ) -> None:
        self.interface = interface
        self.vnet = vnet
        self.raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
        self._dropped = 0
        try:
            self.raw.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
            if vnet:
                self.raw.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
            for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
                self.raw.setsockopt(socket.SOL_SOCKET, option, BUFFER_OCTETS)
            if prepare is not None:
                prepare(self)
            # Bound last: from here on frames arrive, and only those of this interface.
            self.raw.bind((interface, ETH_P_ALL))
            if promiscuous:
                request = struct.pack("iHH8s", socket.if_nametoindex(interface), PACKET_MR_PROMISC, 0, b"")
                self.raw.setsockopt(SOL_PACKET, PACKET_ADD_MEMBERSHIP, request)
        except OSError:
            self.raw.close()
            raise

    def fileno(self) -> int:
        """The file descriptor."""
        return self.raw.fileno()

    def mtu(self) -> int:
        """The interface's MTU, octets behind the Ethernet header."""
        answer = fcntl.ioctl(self.raw, SIOCGIFMTU, struct.pack("16si12x", self.interface.encode(), 0))
        return int(struct.unpack("16si12x", answer)[1])

    def clear_error(self) -> None:
        """Take note that the interface went down: until then the descriptor counts as readable."""
        self.raw.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)

    def overruns(self) -> int:
        """Frames that came while there was no room for them. Of a closed socket, until it was last asked."""
        if self.raw.fileno() < 0:
            return self._dropped
        _, dropped = _STATISTICS.unpack(self.raw.getsockopt(SOL_PACKET, PACKET_STATISTICS, _STATISTICS.size))
        self._dropped += dropped  # the kernel forgets its count whenever it is read
        return self._dropped

    def close(self) -> None:
        """Close the socket."""
        with contextlib.suppress(OSError):
            self.raw.close()
