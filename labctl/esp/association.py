"""A group SA (RFC 4303, RFC 5374): one key that many senders use, each with a counter and nonces of its own."""

from __future__ import annotations

import struct

from labctl.configuration import TransformSet
from labctl.esp import ip
from labctl.esp.errors import DropPacket, DropReason
from labctl.esp.transforms import ESP_HEADER, RandomSource, cipher_for

MAX_SEQUENCE = 0xFFFFFFFF
IV_BITS = 64
TRAILER = 2

_ESP = struct.Struct("!II")

# Padding is 1, 2, 3, ... (RFC 4303 2.4).
_PADDING = bytes(range(1, 256))

_MINIMUM_IP = 20


class SecurityAssociation:
    """One SA. `encapsulate` and `decapsulate` take and give whole IP packets."""

    __slots__ = (
        "_cipher",
        "_counter_mode",
        "_identification",
        "_nonce",
        "_nonce_end",
        "_random",
        "_sender",
        "_sequence",
        "octets_in",
        "octets_out",
        "packets_in",
        "packets_out",
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
    ) -> None:
        self.spi = spi
        self.transform = transform
        self.packets_in = self.packets_out = self.octets_in = self.octets_out = 0
        self._cipher = cipher_for(transform, encryption_key, integrity_key)
        self._random = random
        self._sequence = 0
        self._identification = int.from_bytes(random(2), "big")
        # IV = sender ID | a counter that starts over only with a new key (RFC 6054 4).
        self._counter_mode = transform.uses_counter_mode
        self._sender = sender_id is not None or not self._counter_mode
        width = IV_BITS - sender_id_bits
        self._nonce = (sender_id or 0) << width
        self._nonce_end = self._nonce + (1 << width) - 1

    def overhead(self, inner: int) -> int:
        """Octets that ESP and the outer header add to an inner packet of `inner` octets, IPv4."""
        padded = inner + TRAILER + -(inner + TRAILER) % self._cipher.block
        return ip.IPV4_HEADER + ESP_HEADER + self._cipher.iv_octets + padded + self._cipher.icv_octets - inner

    def plaintext_mtu(self, mtu: int, version: int = 4) -> int:
        """The longest inner packet whose ESP fits `mtu` (reference/cisco-getvpn.md 2.9)."""
        header = ip.IPV4_HEADER if version == 4 else ip.IPV6_HEADER
        room = mtu - header - ESP_HEADER - self._cipher.iv_octets - self._cipher.icv_octets
        return room - room % self._cipher.block - TRAILER

    def encapsulate(self, packet: bytes | memoryview) -> bytes:
        """Protect an IP packet. Raises DropPacket where the SA cannot send (any more)."""
        inner = memoryview(packet)
        if not self._sender:
            raise DropPacket(DropReason.NO_SENDER_ID)
        sequence = self._sequence + 1
        if sequence > MAX_SEQUENCE or self._nonce >= self._nonce_end:
            raise DropPacket(DropReason.SEQUENCE_EXHAUSTED)
        self._sequence = sequence
        cipher = self._cipher
        size = len(inner)
        version = inner[0] >> 4
        padding = -(size + TRAILER) % cipher.block
        following = ip.PROTOCOL_IPV4 if version == 4 else ip.PROTOCOL_IPV6
        plaintext = b"".join((inner, _PADDING[:padding], bytes((padding, following))))
        if self._counter_mode:
            self._nonce += 1
            iv = self._nonce.to_bytes(8, "big")
        else:
            iv = self._random(cipher.iv_octets) if cipher.iv_octets else b""
        header = _ESP.pack(self.spi, sequence)
        sealed = cipher.seal(header, plaintext, iv)
        payload = ESP_HEADER + len(sealed)
        if version == 4:
            self._identification = (self._identification + 1) & 0xFFFF
            outer = ip.outer_ipv4(inner, payload, self._identification)
        else:
            outer = ip.outer_ipv6(inner, payload)
        self.packets_out += 1
        self.octets_out += size
        return outer + header + sealed

    def decapsulate(self, packet: bytes | memoryview) -> bytes:
        """Open a packet that `find_esp` recognised as ESP under this SPI. Raises DropPacket."""
        outer = memoryview(packet)
        version = outer[0] >> 4
        start = (outer[0] & 15) * 4 if version == 4 else ip.IPV6_HEADER
        cipher = self._cipher
        if len(outer) < start + ESP_HEADER + cipher.iv_octets + TRAILER + cipher.icv_octets:
            raise DropPacket(DropReason.MALFORMED, "too short for ESP")
        plaintext = cipher.open(outer, start)
        padding, following = plaintext[-2], plaintext[-1]
        end = len(plaintext) - TRAILER - padding
        if following == ip.PROTOCOL_DUMMY:
            raise DropPacket(DropReason.DUMMY)
        if end < _MINIMUM_IP or plaintext[end:-TRAILER] != _PADDING[:padding]:
            raise DropPacket(DropReason.PAD_ERROR)
        expected = ip.PROTOCOL_IPV4 if version == 4 else ip.PROTOCOL_IPV6
        if following != expected or plaintext[0] >> 4 != version:
            raise DropPacket(DropReason.MALFORMED, f"next header {following}")
        inner = plaintext[:end]
        ip.check_packet(memoryview(inner))
        addresses = slice(12, 20) if version == 4 else slice(8, 40)
        if inner[addresses] != outer[addresses]:
            raise DropPacket(DropReason.ADDRESS_MISMATCH)
        self.packets_in += 1
        self.octets_in += len(inner)
        ecn = outer[1] & ip.ECN_MASK if version == 4 else (outer[1] >> 4) & ip.ECN_MASK
        return ip.with_congestion(inner, ecn)
