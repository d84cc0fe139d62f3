"""Batches in memory: where frames are before they cross, and what has crossed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from random import Random

from labctl.configuration import AccessListEntry, Action, Cipher, Integrity, TransformSet
from labctl.dataplane.crossing import Crossing
from labctl.dataplane.memory import Frames, stride_for
from labctl.dataplane.packet_socket import PacketSocket
from labctl.dataplane.transmit import Transmitter
from labctl.esp import CryptoPolicy, DropReason, PolicyEntry, SecurityAssociation
from labctl.esp.policy import VerdictAction
from labctl.esp.replay import AntiReplay, CounterWindows, Pseudotime, TimeStamps

KEY = bytes(range(1, 65))
SPI = 0x1A2B3C4D
OWN = IPv4Address("172.16.1.2")
MACS = bytes.fromhex("020000000002020000000001")
IPV4, IPV6, ARP = b"\x08\x00", b"\x86\xdd", b"\x08\x06"
MTU = 1500

TRANSFORMS = {
    TransformSet(Cipher.AES_GCM, 128): ("AES-GCM", None),
    TransformSet(Cipher.AES_GCM, 192): ("AES-GCM", None),
    TransformSet(Cipher.AES_GCM, 256): ("AES-GCM", None),
    TransformSet(Cipher.AES_GMAC, 128): ("AES-NULL-GMAC", None),
    TransformSet(Cipher.AES_CBC, 128, Integrity.SHA1): ("AES-CBC", "HMAC-SHA1-96"),
    TransformSet(Cipher.AES_CBC, 256, Integrity.SHA256): ("AES-CBC", "SHA2-256-128"),
    TransformSet(Cipher.AES_CBC, 256, Integrity.SHA512): ("AES-CBC", "SHA2-512-256"),
    TransformSet(Cipher.TRIPLE_DES, 192, Integrity.SHA1): ("3DES", "HMAC-SHA1-96"),
    TransformSet(Cipher.NULL, 0, Integrity.SHA384): ("NULL", "SHA2-384-192"),
}
INTEGRITY_OCTETS = {Integrity.NONE: 0, Integrity.SHA1: 20, Integrity.SHA256: 32, Integrity.SHA384: 48}


def keys_of(transform: TransformSet) -> tuple[bytes, bytes]:
    octets = transform.key_bits // 8 + (4 if transform.uses_counter_mode else 0)
    return KEY[:octets], KEY[: INTEGRITY_OCTETS.get(transform.integrity, 64)]


# What SAs do against packets that come again.
REPLAYS = ("none", "counter", "time")


def replay_of(kind: str, shows: float = 3723.00025) -> AntiReplay | None:
    """One of REPLAYS; `shows` is the pseudotime, which stands still, and the window is of 5 s."""
    if kind == "counter":
        return CounterWindows(64, 24)
    return TimeStamps(Pseudotime(0xA1B2C3D4, shows, lambda: 0.0), 5.0) if kind == "time" else None


def association(
    transform: TransformSet, *, sender_id: int | None = 7, seed: int = 1, replay: AntiReplay | None = None
) -> SecurityAssociation:
    return SecurityAssociation(
        SPI,
        transform,
        *keys_of(transform),
        random=Random(seed).randbytes,
        sender_id=sender_id,
        sender_id_bits=24,
        replay=replay,
    )


LAN, ANY = IPv4Network("10.1.0.0/16"), IPv4Network("0.0.0.0/0")
SSH_IN_CLEAR = PolicyEntry(AccessListEntry(Action.DENY, 6, ANY, ANY, 0, 22))
SITES = PolicyEntry(AccessListEntry(Action.PERMIT, 0, LAN, LAN), SPI, frozenset({SPI}))


def policy(
    transform: TransformSet,
    *,
    closed: bool = False,
    seed: int = 1,
    entries: Sequence[PolicyEntry] = (SSH_IN_CLEAR, SITES),
    replay: AntiReplay | None = None,
) -> CryptoPolicy:
    sa = association(transform, seed=seed, replay=replay)
    return CryptoPolicy(entries, {SPI: sa}, own=[OWN.packed], closed=(4, 6) if closed else (), mtu=MTU)


class Collector(Transmitter):
    """Keeps what it is told to send."""

    def __init__(self, capacity: int = 16) -> None:
        super().__init__(PacketSocket.__new__(PacketSocket), MTU, capacity)
        self.sent: list[bytes] = []

    def send(self, count: int) -> int:
        for number in range(count):
            place = self.places[number]
            self.sent.append(bytes(self.buffer[place : place + self.sizes[number]]))
        return 0

    def send_now(self, *parts: bytes | memoryview) -> int:
        self.sent.append(b"".join(parts))
        return 0


@dataclass
class Crossed:
    """What came of frames: to the other side, back to where they came from, and why packets were dropped."""

    sent: list[bytes] = field(default_factory=list)
    back: list[bytes] = field(default_factory=list)
    drops: list[DropReason] = field(default_factory=list)


def laid_out(frames: Sequence[bytes]) -> tuple[memoryview, Frames]:
    """Frames as a receiver has them."""
    stride = stride_for(MTU)
    buffer = memoryview(bytearray(stride * len(frames)))
    taken = []
    for number, frame in enumerate(frames):
        start = number * stride + 66
        buffer[start : start + len(frame)] = frame
        taken.append((start, len(frame)))
    return buffer, taken


def crossed(policy: CryptoPolicy, frames: Sequence[bytes], *, way: str, batch: int = 16) -> Crossed:
    """Frames through the product, in batches."""
    result = Crossed()
    crossing = Crossing(policy, lambda reason, _: result.drops.append(reason))
    run(crossing, frames, result, way=way, batch=batch)
    return result


def run(crossing: Crossing, frames: Sequence[bytes], result: Crossed, *, way: str, batch: int = 16) -> None:
    out, back = Collector(), Collector()
    for begin in range(0, len(frames), batch):
        buffer, taken = laid_out(frames[begin : begin + batch])
        (crossing.outbound if way == "outbound" else crossing.inbound)(buffer, taken, out, back)
    result.sent += out.sent
    result.back += back.sent


def one_by_one(policy: CryptoPolicy, frames: Sequence[bytes], *, way: str) -> Crossed:
    """The same without any of what makes it fast: every frame cut out, judged by the policy and put together."""
    result = Crossed()
    for frame in frames:
        if frame[12:14] not in (IPV4, IPV6) or len(frame) < 14:
            result.sent.append(frame)
            continue
        packet = frame[14:]
        size = int.from_bytes(packet[2:4], "big") if frame[12:14] == IPV4 else int.from_bytes(packet[4:6], "big") + 40
        if 0 < size <= len(packet):
            packet = packet[:size]
        verdict = policy.outbound(packet) if way == "outbound" else policy.inbound(packet)
        if verdict.action is VerdictAction.CLEAR and bytes(verdict.packets[0]) == packet and len(verdict.packets) == 1:
            result.sent.append(frame)
        else:
            result.sent += [frame[:14] + item for item in verdict.packets]
        if verdict.back is not None:
            result.back.append(frame[6:12] + frame[:6] + frame[12:14] + verdict.back)
        if verdict.reason is not None:
            result.drops.append(verdict.reason)
    return result
