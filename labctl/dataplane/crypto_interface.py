"""The crypto map on an interface: every frame between the kernel's half and the wire passes here.

Bump in the stack (design decision 5). IP goes through the group's policy; ARP, LLDP, IS-IS and every other ethertype
passes untouched, both ways. Without a policy everything passes: fail-open, as a member before its first registration.
One frame meets one policy: `install` takes effect between two frames, and none is lost or held up for it.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

from labctl.dataplane.packet_socket import PacketSocket
from labctl.esp import CryptoPolicy, DropReason, Verdict
from labctl.esp.policy import VerdictAction

ETHERNET = 14
ETHERTYPE_IPV4 = b"\x08\x00"
ETHERTYPE_IPV6 = b"\x86\xdd"
IP_ETHERTYPES = (ETHERTYPE_IPV4, ETHERTYPE_IPV6)

# Frames taken from one side before the other side, and the rest of the agent, get their turn.
BATCH = 64

MAX_FRAME = ETHERNET + 65_535

# The shortest frame that a NIC hands up carries padding behind short IP packets.
_IPV4_LENGTH = slice(ETHERNET + 2, ETHERNET + 4)
_IPV6_LENGTH = slice(ETHERNET + 4, ETHERNET + 6)


OnDrop = Callable[[DropReason, memoryview], None]


class CryptoInterface:
    """Frames between `inside` (towards the kernel) and `wire`, through a CryptoPolicy.

    `policy` is in force before the first frame passes. `on_drop` hears of every packet that a policy drops: the reason
    and the packet, which is its to look at until it returns.
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
        self.policy = policy
        self._on_drop = on_drop
        self.frames: Counter[str] = Counter()
        self.drops: Counter[str] = Counter()
        self._loop = loop
        self._buffer = bytearray(MAX_FRAME)
        self._view = memoryview(self._buffer)
        self._inside = PacketSocket(inside)
        try:
            self._wire = PacketSocket(wire, promiscuous=True)
        except OSError:
            self._inside.close()
            raise
        loop.add_reader(self._inside.fileno(), self._from_inside)
        loop.add_reader(self._wire.fileno(), self._from_wire)

    def install(self, policy: CryptoPolicy | None) -> None:
        """The policy that counts from the next frame on; None lets everything pass. Entries it keeps count on."""
        if policy is not None and self.policy is not None:
            policy.succeed(self.policy)
        self.policy = policy

    def close(self) -> None:
        """Stop. No frame passes any more."""
        for side in (self._inside, self._wire):
            self._loop.remove_reader(side.fileno())
            side.close()

    def counters(self) -> dict[str, Any]:
        """Frames by side and fate, drops by reason, per SA and per policy entry."""
        policy = self.policy
        return {
            "frames": dict(self.frames),
            "drops": dict(self.drops),
            "associations": {}
            if policy is None
            else {
                f"{spi:#010x}": {
                    "encrypted": sa.packets_out,
                    "decrypted": sa.packets_in,
                    "octets_encrypted": sa.octets_out,
                    "octets_decrypted": sa.octets_in,
                }
                for spi, sa in policy.associations.items()
            },
            "entries": [] if policy is None else [policy.hits[index] for index in range(len(policy.entries))],
        }

    def _from_inside(self) -> None:
        for _ in range(BATCH):
            size = self._inside.receive_into(self._buffer)
            if not size:
                return
            self._pass(self._view[:size], self._inside, self._wire, "outbound")

    def _from_wire(self) -> None:
        for _ in range(BATCH):
            size = self._wire.receive_into(self._buffer)
            if not size:
                return
            self._pass(self._view[:size], self._wire, self._inside, "inbound")

    def _pass(self, frame: memoryview, origin: PacketSocket, target: PacketSocket, way: str) -> None:
        self.frames[way] += 1
        policy = self.policy
        ethertype = frame[12:14]
        if policy is None or ethertype not in IP_ETHERTYPES:
            self._send(target, frame, way)
            return
        packet = _without_padding(frame)
        verdict: Verdict = policy.outbound(packet) if way == "outbound" else policy.inbound(packet)
        if verdict.action is VerdictAction.CLEAR and verdict.packets[0] is packet:
            self._send(target, frame, way)
            return
        header = bytes(frame[:ETHERNET])
        for item in verdict.packets:
            self._send(target, header + bytes(item), way)
        if verdict.reason is not None:
            self.drops[verdict.reason.value] += 1
            if self._on_drop is not None:
                self._on_drop(verdict.reason, packet)
        if verdict.back is not None:
            origin.send(header[6:12] + header[:6] + header[12:14] + verdict.back)

    def _send(self, target: PacketSocket, frame: bytes | memoryview, way: str) -> None:
        if not target.send(frame):
            self.drops[f"{way}-lost"] += 1


def _without_padding(frame: memoryview) -> memoryview:
    """The IP packet of a frame, without what Ethernet pads short frames with."""
    if frame[12:14] == ETHERTYPE_IPV4:
        size = int.from_bytes(frame[_IPV4_LENGTH], "big")
    else:
        size = int.from_bytes(frame[_IPV6_LENGTH], "big") + 40
    end = ETHERNET + size
    return frame[ETHERNET:end] if ETHERNET < end <= len(frame) else frame[ETHERNET:]
