"""The crypto map on an interface: every frame between the kernel's half and the wire passes here.

Bump in the stack (design decision 5). IP goes through the group's policy; ARP, LLDP, IS-IS and every other ethertype
passes untouched, both ways. Without a policy everything passes: fail-open, as a member before its first registration.
One frame meets one policy: `install` takes effect between two frames, and none is lost or held up for it.

It lives in the agent's event loop, a batch of one side, then a batch of the other, then whatever else there is to do
(docs/decisions.md). While no frame comes it does nothing.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from typing import Any

from labctl.dataplane.crossing import INBOUND, OUTBOUND, Crossing, OnDrop
from labctl.dataplane.packet_socket import PacketSocket
from labctl.dataplane.receive import ReceiveBuffer, Receiver, ReceiveRing
from labctl.dataplane.transmit import Transmitter
from labctl.esp import CryptoPolicy

# Frames taken from one side before the other side, and the rest of the agent, get their turn: half a millisecond.
BATCH = 128


class _Side:
    """One interface: its socket, what comes in and what goes out. `remark` says why there is no ring."""

    def __init__(self, interface: str, *, promiscuous: bool = False) -> None:
        self.remark = ""
        self.packets = PacketSocket(interface, promiscuous=promiscuous, prepare=self._prepare)
        self.sender = Transmitter(self.packets, self.packets.mtu(), BATCH)

    def _prepare(self, packets: PacketSocket) -> None:
        mtu = packets.mtu()
        try:
            self.receiver: Receiver = ReceiveRing(packets, mtu)
        except OSError as error:
            self.remark = f"{packets.interface} has no receive ring ({os.strerror(error.errno or 0)})"
            self.receiver = ReceiveBuffer(packets, mtu, BATCH)

    def losses(self) -> int:
        """Frames that came and could not be taken."""
        return self.packets.overruns() + self.receiver.oversize

    def close(self) -> None:
        self.packets.close()
        self.receiver.close()
        self.sender.close()


class CryptoInterface:
    """Frames between `inside` (towards the kernel) and `wire`, through a CryptoPolicy.

    `policy` is in force before the first frame passes. `on_drop` hears of every packet that a policy drops: the reason
    and the packet, which is its to look at until it returns. `remarks` are for the log.
    """

    def __init__(
        self,
        inside: str,
        wire: str,
        loop: asyncio.AbstractEventLoop,
        *,
        policy: CryptoPolicy | None = None,
        on_drop: OnDrop | None = None,
    ) -> None:
        self._crossing = Crossing(policy, on_drop)
        self._frames: Counter[str] = Counter()
        self._loop = loop
        self._inside = _Side(inside)
        try:
            self._wire = _Side(wire, promiscuous=True)
        except OSError:
            self._inside.close()
            raise
        self.remarks = [side.remark for side in (self._inside, self._wire) if side.remark]
        loop.add_reader(self._inside.packets.fileno(), self._from_inside)
        loop.add_reader(self._wire.packets.fileno(), self._from_wire)

    @property
    def policy(self) -> CryptoPolicy | None:
        """The policy that counts."""
        return self._crossing.policy

    def install(self, policy: CryptoPolicy | None) -> None:
        """The policy that counts from the next frame on; None lets everything pass. Entries it keeps count on."""
        if policy is not None and self.policy is not None:
            policy.succeed(self.policy)
        self._crossing.install(policy)

    def close(self) -> None:
        """Stop. No frame passes any more."""
        for side in (self._inside, self._wire):
            self._loop.remove_reader(side.packets.fileno())
            side.close()

    def counters(self) -> dict[str, Any]:
        """Frames by side and fate, drops by reason, per SA and per policy entry."""
        policy = self.policy
        drops = Counter(self._crossing.drops)
        for name, side in (("outbound-overrun", self._inside), ("inbound-overrun", self._wire)):
            if losses := side.losses():
                drops[name] = losses
        return {
            "frames": dict(self._frames),
            "drops": dict(drops),
            "associations": {}
            if policy is None
            else {
                f"{spi:#010x}": {
                    "encrypted": sa.packets_out,
                    "decrypted": sa.packets_in,
                    "octets_encrypted": sa.octets_out,
                    "octets_decrypted": sa.octets_in,
                    "replayed": 0 if sa.replay is None else sa.replay.failures,
                }
                for spi, sa in policy.associations.items()
            },
            "entries": [] if policy is None else policy.hits[: len(policy.entries)],
        }

    def _from_inside(self) -> None:
        side, other = self._inside, self._wire
        frames = side.receiver.take(BATCH)
        if not frames:
            side.packets.clear_error()
        try:
            self._frames[OUTBOUND] += len(frames)
            self._crossing.outbound(side.receiver.buffer, frames, other.sender, side.sender)
        finally:
            side.receiver.release()

    def _from_wire(self) -> None:
        side, other = self._wire, self._inside
        frames = side.receiver.take(BATCH)
        if not frames:
            side.packets.clear_error()
        try:
            self._frames[INBOUND] += len(frames)
            self._crossing.inbound(side.receiver.buffer, frames, other.sender, side.sender)
        finally:
            side.receiver.release()
