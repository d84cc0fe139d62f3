"""The two sides of a crypto map: an interface with its socket, what comes in and what goes out."""

from __future__ import annotations

import os

from labctl.dataplane.joining import JoiningTransmitter
from labctl.dataplane.packet_socket import PacketSocket
from labctl.dataplane.receive import ReceiveBuffer, Receiver, ReceiveRing
from labctl.dataplane.segmentation import Segmenter
from labctl.dataplane.transmit import Transmitter

# Frames taken from one side before the other side, and the rest of the agent, get their turn: half a millisecond.
BATCH = 128


class Side:
    """One side. `remark` says why there is no ring.

    On the kernel's side TCP comes in frames that are several packets, and goes out so.
    """

    def __init__(self, interface: str, *, is_wire: bool) -> None:
        self.remark = ""
        self.batch = BATCH
        self._segmenter: Segmenter | None = None
        self.packets = PacketSocket(interface, promiscuous=is_wire, vnet=not is_wire, prepare=self._prepare)
        self.sender = (Transmitter if is_wire else JoiningTransmitter)(self.packets, self.packets.mtu(), BATCH)

    def _prepare(self, packets: PacketSocket) -> None:
        mtu = packets.mtu()
        if packets.vnet:
            self._segmenter = Segmenter(mtu)
        try:
            self.receiver: Receiver = ReceiveRing(packets, mtu, self._segmenter)
        except OSError as error:
            self.remark = f"{packets.interface} has no receive ring ({os.strerror(error.errno or 0)})"
            self.receiver = ReceiveBuffer(packets, mtu, BATCH, self._segmenter)

    def losses(self) -> int:
        """Frames that came and could not be taken."""
        return self.packets.overruns() + self.receiver.oversize

    def close(self) -> None:
        self.packets.close()
        self.receiver.close()
        self.sender.close()
        if self._segmenter is not None:
            self._segmenter.close()
