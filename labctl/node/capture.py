"""The `capture` operation: whole frames of an interface, both directions, as they pass (docs/internals.md, The agent).

Between the halves of a crypto interface, and on `lo`, TCP passes in frames of 64 KB, and checksums may be missing. What
is captured is what a wire would carry: packets, with their checksums (labctl.kernel.vnet).

Facts: packet(7), linux/if_packet.h (struct tpacket_auxdata, tpacket_stats), socket(7) (SO_TIMESTAMPNS).
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import errno
import socket
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from labctl.configuration import NodeConfiguration
from labctl.door import Call, DoorError
from labctl.kernel.vnet import (
    LARGEST_FRAME,
    MACS_OCTETS,
    NEEDS_CHECKSUM,
    PACKET_VNET_HDR,
    VNET,
    finish_checksum,
    read_vnet,
)
from labctl.node.arguments import Arguments
from labctl.node.waiting import readable

ETH_P_ALL = 0x0003
SOL_PACKET = 263
PACKET_STATISTICS, PACKET_AUXDATA = 6, 8
PACKET_OUTGOING = 4
TP_STATUS_VLAN_VALID, TP_STATUS_VLAN_TPID_VALID = 1 << 4, 1 << 6
SO_TIMESTAMPNS = 35
SO_RCVBUFFORCE = 33

# A burst of full-size frames that waits for a slow reader; more is counted as dropped.
BUFFER_OCTETS = 8 << 20

# One stream item: enough to be cheap, small enough not to hold up anything else on the connection.
BATCH_PACKETS = 256
BATCH_OCTETS = 256 << 10

MAX_SNAPLEN = 262_144

_AUXDATA = struct.Struct("=IIIHHHH")  # status, len, snaplen, mac, net, vlan_tci, vlan_tpid
_TIMESPEC = struct.Struct("=qq")
_STATISTICS = struct.Struct("=II")


@dataclass(frozen=True, slots=True)
class Frame:
    """A captured frame: real time, its length on the wire, what was kept, and whether the node sent it."""

    time_ns: int
    original_length: int
    data: bytes
    outgoing: bool


def wire_name(configuration: NodeConfiguration | None, interface: str, side: str) -> str:
    """The kernel's name for a side of an interface: the wire side of a crypto interface is a link of its own."""
    if side == "wire" and configuration is not None:
        for item in configuration.interfaces:
            if item.name == interface and item.crypto_map:
                return f"{interface}.wire"
    return interface


async def capture(call: Call, configuration: NodeConfiguration | None) -> dict[str, Any]:
    """Serve one capture until it is cancelled. Raises DoorError."""
    args = Arguments("capture", call.args).known("interface", "side", "snaplen")
    side = args.text("side", "wire")
    if side not in ("wire", "inside"):
        raise args.error("side", f"{side!r} is neither wire nor inside")
    snaplen = args.integer("snaplen", 65535, 1, MAX_SNAPLEN)
    tap = Tap(wire_name(configuration, args.text("interface"), side), snaplen)
    try:
        await call.send({"packets": [], "directions": "", "dropped": 0})
        captured = 0
        cancelled = asyncio.ensure_future(call.cancelled.wait())
        try:
            while not call.cancelled.is_set():
                captured += await _send(call, tap, list(tap.frames()))
                await readable(tap.fileno(), cancelled)
        finally:
            cancelled.cancel()
        end = time.time_ns()
        while batch := [frame for frame in tap.frames() if frame.time_ns <= end]:
            captured += await _send(call, tap, batch)
        return {"captured": captured, "dropped": tap.count_drops()}
    finally:
        tap.close()


async def _send(call: Call, tap: Tap, frames: list[Frame]) -> int:
    if frames:
        packets = [[item.time_ns, item.original_length, base64.b64encode(item.data).decode()] for item in frames]
        directions = "".join("o" if item.outgoing else "i" for item in frames)
        await call.send({"packets": packets, "directions": directions, "dropped": tap.count_drops()})
    return len(frames)


class Tap:
    """A packet socket that listens to one interface. Raises DoorError where there is no such interface."""

    def __init__(self, interface: str, snaplen: int) -> None:
        self._snaplen = snaplen
        self._loopback = interface == "lo"
        self._dropped = 0
        try:
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
        except PermissionError:
            raise DoorError("not-permitted", "capture: the agent has no CAP_NET_RAW", "see `labctl doctor`") from None
        try:
            self._socket.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
            self._socket.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
            self._socket.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_OCTETS)
            with contextlib.suppress(PermissionError):  # beyond net.core.rmem_max, where we may
                self._socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER_OCTETS)
            # Bound last: from here on frames arrive, and only those of this interface.
            self._socket.bind((interface, ETH_P_ALL))
        except OSError as error:
            self._socket.close()
            known = ", ".join(name for _, name in socket.if_nameindex())
            raise DoorError(
                "unknown-interface", f"capture: {interface}: {error.strerror}", f"the node has {known}"
            ) from None

    def fileno(self) -> int:
        """The descriptor, for the event loop."""
        return self._socket.fileno()

    def close(self) -> None:
        """Stop listening."""
        self._socket.close()

    def count_drops(self) -> int:
        """Frames lost since the capture began; the kernel forgets its count whenever it is read."""
        _, drops = _STATISTICS.unpack(self._socket.getsockopt(SOL_PACKET, PACKET_STATISTICS, _STATISTICS.size))
        self._dropped += drops
        return self._dropped

    def frames(self) -> Iterator[Frame]:
        """What has arrived, at most one batch."""
        octets = 0
        for _ in range(BATCH_PACKETS):
            try:
                data, ancillary, _, address = self._socket.recvmsg(VNET.size + LARGEST_FRAME, 256)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno == errno.ENETDOWN:
                    return  # said once when the link goes down; frames come again when it is back up
                raise
            outgoing = address[2] == PACKET_OUTGOING
            if outgoing and self._loopback:
                continue  # every frame passes lo twice
            for packet in _packets(data):
                frame = _frame(packet, ancillary, self._snaplen, outgoing)
                yield frame
                octets += len(frame.data)
            if octets > BATCH_OCTETS:
                return


def _packets(data: bytes) -> list[bytes]:
    """What a wire would carry of what the kernel passed on, which is behind a vnet header."""
    vnet, size = read_vnet(memoryview(data), 0), len(data) - VNET.size
    if vnet.kind:
        from labctl.dataplane.segmentation import Segmenter  # numpy with it

        segmenter = Segmenter(vnet.start + 60 + vnet.segment)
        segmenter.frame[: len(data)] = data
        if segmenter.begin(size):
            return [bytes(item) for item in segmenter.all()]
    if not vnet.flags & NEEDS_CHECKSUM:
        return [data[VNET.size :]]
    frame = bytearray(data[VNET.size :])
    finish_checksum(memoryview(frame), 0, size, vnet)
    return [bytes(frame)]


def _frame(data: bytes, ancillary: list[tuple[int, int, bytes]], snaplen: int, outgoing: bool) -> Frame:
    moment, length, tag = 0, len(data), b""
    for level, kind, value in ancillary:
        if level == socket.SOL_SOCKET and kind == SO_TIMESTAMPNS:
            seconds, nanoseconds = _TIMESPEC.unpack_from(value)
            moment = seconds * 1_000_000_000 + nanoseconds
        elif level == SOL_PACKET and kind == PACKET_AUXDATA:
            status, _, _, _, _, tci, tpid = _AUXDATA.unpack_from(value)
            if status & TP_STATUS_VLAN_VALID:
                # The kernel took the tag out of the frame; on the wire it is there.
                tag = struct.pack("!HH", tpid if status & TP_STATUS_VLAN_TPID_VALID else 0x8100, tci)
    if tag:
        data = data[:MACS_OCTETS] + tag + data[MACS_OCTETS:]
    return Frame(moment or time.time_ns(), length + len(tag), data[:snaplen], outgoing)
