"""The crypto map on an interface: every frame between the kernel's half and the wire passes here.

Bump in the stack (design decision 5). IP goes through the group's policy; ARP, LLDP, IS-IS and every other ethertype
passes untouched, both ways. Without a policy everything passes: fail-open, as a member before its first registration.
One frame meets one policy: `install` takes effect between two frames, and none is lost or held up for it.

It lives in the agent's event loop, a batch of one side, then a batch of the other, then whatever else there is to do
(docs/decisions.md). While no frame comes it does nothing.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from labctl.dataplane.crossing import INBOUND, OUTBOUND, Crossing, OnDrop
from labctl.dataplane.memory import Frames
from labctl.dataplane.transmit import Transmitter
from labctl.esp import CryptoPolicy

if TYPE_CHECKING:
    from labctl.dataplane.sides import Side

Cross = Callable[[memoryview, Frames, Transmitter, Transmitter], None]


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
        # Not before it is needed: it imports numpy, which is a quarter of what an agent imports.
        from labctl.dataplane.sides import Side

        self._inside = Side(inside, is_wire=False)
        try:
            self._wire = Side(wire, is_wire=True)
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
        if policy is not None:
            drops.update(policy.tunnel.drops())
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
                    "plaintext_mtu": sa.plaintext_mtu(policy.tunnel.mtu),
                }
                for spi, sa in policy.associations.items()
            },
            "tunnel": {} if policy is None else policy.tunnel.counters(),
            "entries": [] if policy is None else policy.hits[: len(policy.entries)],
        }

    def _from_inside(self) -> None:
        self._carry(self._inside, self._wire, OUTBOUND, self._crossing.outbound)

    def _from_wire(self) -> None:
        self._carry(self._wire, self._inside, INBOUND, self._crossing.inbound)

    def _carry(self, side: Side, other: Side, way: str, cross: Cross) -> None:
        """One turn of a side: a batch, and all of what the kernel gave as one frame."""
        taken = 0
        while True:
            buffer, frames = side.receiver.take(side.batch)
            if not frames and not taken:
                side.packets.clear_error()
            taken += len(frames)
            try:
                cross(buffer, frames, other.sender, side.sender)
            finally:
                side.receiver.release()
            if not side.receiver.pending:
                break
        self._frames[way] += taken
