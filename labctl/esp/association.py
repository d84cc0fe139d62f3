"""A group SA (RFC 4303, RFC 5374): one key that many senders use, each with a counter and nonces of its own."""

from __future__ import annotations

import struct

from labctl.configuration import TransformSet
from labctl.esp import ip
from labctl.esp.errors import DropPacket, DropReason
from labctl.esp.replay import PROTOCOL_TIME, TIME_HEADER, AntiReplay, CounterWindows, TimeStamps
from labctl.esp.transforms import ESP_HEADER, HEADROOM, TAILROOM, RandomSource, cipher_for

MAX_SEQUENCE = 0xFFFFFFFF
IV_BITS = 64
TRAILER = 2

# Sequence number, and an IV of a counter mode or what stands there under another cipher.
_NUMBERS = struct.Struct("!IQ")

# Padding is 1, 2, 3, ... (RFC 4303 2.4).
_PADDING = bytes(range(1, 256))

# A clear packet is at least this long, and so is what comes out of ESP.
_MINIMUM_IP = 20


class SecurityAssociation:
    """One SA. `seal_into` and `open_into` are ESP alone, between buffers that the caller keeps, which have the room
    around a packet that labctl.esp.transforms names; `encapsulate` and `decapsulate` take and give whole IP packets.

    `replay` is what it does against packets that come again; None: nothing.
    """

    __slots__ = (
        "_cipher",
        "_counters",
        "_last",
        "_least",
        "_nonce",
        "_open",
        "_seal",
        "_sender",
        "_sequence",
        "_stamps",
        "_trailers",
        "identification",
        "octets_in",
        "octets_out",
        "packets_in",
        "spi",
        "transform",
    )

    def __init__(
        self,
        spi: int,
        transform: TransformSet,
        encryption_key: bytes,
        integrity_key: bytes,
        *,
        random: RandomSource,
        sender_id: int | None = None,
        sender_id_bits: int = 0,
        replay: AntiReplay | None = None,
    ) -> None:
        self.spi = spi
        self.transform = transform
        self.packets_in = self.octets_in = self.octets_out = 0
        self._stamps = replay if isinstance(replay, TimeStamps) else None
        self._counters = replay if isinstance(replay, CounterWindows) else None
        self._cipher = cipher_for(transform, encryption_key, integrity_key, random)
        self._seal, self._open = self._cipher.seal_into, self._cipher.open_into
        self._least = ESP_HEADER + self._cipher.iv_octets + TRAILER + self._cipher.icv_octets
        self._trailers = {
            following: _trailers(self._cipher.block, following)
            for following in (ip.PROTOCOL_IPV4, ip.PROTOCOL_IPV6, PROTOCOL_TIME)
        }
        self.identification = int.from_bytes(random(2), "big")
        # IV = sender ID | a counter that starts over only with a new key (RFC 6054 4). It counts with the sequence
        # numbers, and the packets that were sent with them.
        self._sequence = 0
        width = IV_BITS - sender_id_bits
        self._nonce = (sender_id or 0) << width
        self._sender = sender_id is not None or not transform.uses_counter_mode
        self._last = min(MAX_SEQUENCE, (1 << width) - 1) if self._sender else 0

    @property
    def packets_out(self) -> int:
        """Packets that were protected."""
        return self._sequence

    @property
    def replay(self) -> AntiReplay | None:
        """What the SA does against packets that come again."""
        return self._stamps or self._counters

    def overhead(self, inner: int) -> int:
        """Octets that ESP and the outer header add to an inner packet of `inner` octets, IPv4."""
        carried = inner if self._stamps is None else inner + TIME_HEADER
        padded = carried + TRAILER + -(carried + TRAILER) % self._cipher.block
        return ip.IPV4_HEADER + ESP_HEADER + self._cipher.iv_octets + padded + self._cipher.icv_octets - inner

    def plaintext_mtu(self, mtu: int, version: int = 4) -> int:
        """The longest inner packet whose ESP fits `mtu` (reference/cisco-getvpn.md 2.9)."""
        header = ip.IPV4_HEADER if version == 4 else ip.IPV6_HEADER
        room = mtu - header - ESP_HEADER - self._cipher.iv_octets - self._cipher.icv_octets
        return room - room % self._cipher.block - TRAILER - (0 if self._stamps is None else TIME_HEADER)

    def seal_into(self, source: memoryview, start: int, end: int, target: memoryview, at: int, following: int) -> int:
        """Protect source[start:end], IP protocol `following`: SPI to ICV at target[at:]. Returns its end.

        Raises DropPacket where the SA cannot send (any more).
        """
        sequence = self._sequence + 1
        if sequence > self._last:
            raise DropPacket(DropReason.SEQUENCE_EXHAUSTED if self._sender else DropReason.NO_SENDER_ID)
        self._sequence = sequence
        size = end - start
        self.octets_out += size
        if (stamps := self._stamps) is not None:
            start -= TIME_HEADER
            size += TIME_HEADER
            stamps.stamp(source, start, following)
            following = PROTOCOL_TIME
        trailers = self._trailers[following]
        trailer = trailers[size % len(trailers)]
        behind = end + len(trailer)
        source[end:behind] = trailer
        return self._seal(source, start, behind, target, at, self.spi, sequence, self._nonce + sequence)

    def open_into(self, source: memoryview, start: int, end: int, target: memoryview, at: int, following: int) -> int:
        """Open ESP, source[start:end], of which `following` is the protocol it must carry, to target[at:].

        Returns the end of the packet that was inside, of which nothing is known but who sealed it. Raises DropPacket.
        """
        if end - start < self._least:
            raise DropPacket(DropReason.MALFORMED, "too short for ESP")
        stamps = self._stamps
        # A time stamp comes to lie before the packet, in the room that target has there.
        first = at if stamps is None else at - TIME_HEADER
        behind = self._open(source, start, end, target, first) - TRAILER
        padding, carried = target[behind], target[behind + 1]
        finish = behind - padding
        if carried == ip.PROTOCOL_DUMMY:
            raise DropPacket(DropReason.DUMMY)
        if finish < first + _MINIMUM_IP or (padding and target[finish:behind] != _PADDING[:padding]):
            raise DropPacket(DropReason.PAD_ERROR)
        if stamps is not None:
            stamps.check(target, first, carried, following)
            return finish
        if carried != following:
            if carried == PROTOCOL_TIME:
                raise DropPacket(DropReason.TIME_STAMP, "a time stamp that the policy does not have")
            raise DropPacket(DropReason.MALFORMED, f"next header {carried}")
        if self._counters is not None:
            self._counters.check(*_NUMBERS.unpack_from(source, start + 4))
        return finish

    def count_in(self, octets: int) -> None:
        """An inner packet that was right in every way."""
        self.packets_in += 1
        self.octets_in += octets

    def encapsulate(self, packet: bytes | memoryview) -> bytes:
        """Protect an IP packet. Raises DropPacket where the SA cannot send (any more)."""
        size = len(packet)
        source = memoryview(bytearray(HEADROOM + size + TAILROOM))
        source[HEADROOM : HEADROOM + size] = packet
        target = memoryview(bytearray(HEADROOM + size + self.overhead(size) + TAILROOM))
        version = source[HEADROOM] >> 4
        following = ip.PROTOCOL_IPV4 if version == 4 else ip.PROTOCOL_IPV6
        # The ciphers write over the room around the packet, so the outer header is made before it is theirs.
        inner = bytes(source[HEADROOM : HEADROOM + ip.IPV6_HEADER])
        end = self.seal_into(source, HEADROOM, HEADROOM + size, target, HEADROOM, following)
        if version == 4:
            outer = ip.outer_ipv4(memoryview(inner), end - HEADROOM, self.next_identification())
        else:
            outer = ip.outer_ipv6(memoryview(inner), end - HEADROOM)
        return outer + target[HEADROOM:end]

    def next_identification(self) -> int:
        """The identification of the next outer IPv4 header (RFC 791 3.2)."""
        self.identification = following = (self.identification + 1) & 0xFFFF
        return following

    def decapsulate(self, packet: bytes | memoryview, start: int | None = None) -> bytes:
        """Open a packet that is ESP under this SPI, from `start` on: behind the IP header, if that is not said.

        Raises DropPacket.
        """
        outer = memoryview(packet)
        version = outer[0] >> 4
        if start is None:
            start = (outer[0] & 15) * 4 if version == 4 else ip.IPV6_HEADER
        target = memoryview(bytearray(HEADROOM + len(outer) + TAILROOM))
        following = ip.PROTOCOL_IPV4 if version == 4 else ip.PROTOCOL_IPV6
        end = self.open_into(outer, start, len(outer), target, HEADROOM, following)
        return self.accept(outer, bytes(target[HEADROOM:end]))

    def accept(self, outer: memoryview, inner: bytes) -> bytes:
        """An opened packet, if it and the packet around it belong together (RFC 5374 4.2). Raises DropPacket."""
        version = outer[0] >> 4
        if inner[0] >> 4 != version:
            raise DropPacket(DropReason.MALFORMED, "another version of IP inside")
        ip.check_packet(memoryview(inner))
        addresses = slice(12, 20) if version == 4 else slice(8, 40)
        if inner[addresses] != outer[addresses]:
            raise DropPacket(DropReason.ADDRESS_MISMATCH)
        self.count_in(len(inner))
        ecn = outer[1] & ip.ECN_MASK if version == 4 else (outer[1] >> 4) & ip.ECN_MASK
        return ip.with_congestion(inner, ecn)


def _trailers(block: int, following: int) -> tuple[bytes, ...]:
    """Padding, its length and the next header (RFC 4303 2.4) for packets of 0, 1, 2, ... octets, modulo `block`."""
    paddings = (-(size + TRAILER) % block for size in range(block))
    return tuple(_PADDING[:padding] + bytes((padding, following)) for padding in paddings)
