"""The ISAKMP header (RFC 2408 3.1) and the numbers of exchanges and payloads."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum, IntFlag

from labctl.isakmp.errors import MalformedMessage, NotifyType, PeerError

HEADER_OCTETS = 28
VERSION = 0x10
COOKIE_OCTETS = 8
ZERO_COOKIE = bytes(COOKIE_OCTETS)

# Messages longer than this are refused unread: UDP carries no more.
MAX_MESSAGE_OCTETS = 65507

_LAYOUT = struct.Struct("!8s8sBBBBII")


class ExchangeType(IntEnum):
    """RFC 2408 3.1, RFC 6407 3 and 4, RFC 8263; 240 is our COOP."""

    BASE = 1
    MAIN_MODE = 2
    AUTHENTICATION_ONLY = 3
    AGGRESSIVE = 4
    INFORMATIONAL = 5
    GROUPKEY_PULL = 32
    GROUPKEY_PUSH = 33
    GROUPKEY_PUSH_ACK = 35
    COOP = 240


class PayloadType(IntEnum):
    """RFC 2408 3.1, RFC 6407 5, RFC 3947; POP is RFC 3547's. 128 and above are for private use."""

    NONE = 0
    SA = 1
    PROPOSAL = 2
    TRANSFORM = 3
    KE = 4
    ID = 5
    CERT = 6
    CR = 7
    HASH = 8
    SIG = 9
    NONCE = 10
    NOTIFY = 11
    DELETE = 12
    VID = 13
    CONFIGURATION = 14
    SAK = 15
    SAT = 16
    KD = 17
    SEQ = 18
    POP = 19
    NAT_D = 20
    NAT_OA = 21
    GAP = 22


class Flag(IntFlag):
    """Header flags."""

    ENCRYPTION = 1
    COMMIT = 2
    AUTHENTICATION_ONLY = 4


class Doi(IntEnum):
    """Domains of interpretation."""

    ISAKMP = 0
    IPSEC = 1
    GDOI = 2


@dataclass(frozen=True, slots=True)
class Header:
    """The 28 octets in front of every message. `length` counts them and encryption padding."""

    initiator_cookie: bytes
    responder_cookie: bytes
    next_payload: int
    exchange: int
    flags: int = 0
    message_id: int = 0
    length: int = HEADER_OCTETS

    @classmethod
    def parse(cls, data: bytes) -> Header:
        """Parse and check against the datagram's length. Raises PeerError."""
        if len(data) < HEADER_OCTETS:
            raise MalformedMessage(f"{len(data)} octets are no ISAKMP message")
        initiator, responder, following, version, exchange, flags, message_id, length = _LAYOUT.unpack_from(data)
        if version >> 4 != VERSION >> 4:
            raise PeerError(f"ISAKMP version {version >> 4}.{version & 15}", NotifyType.INVALID_MAJOR_VERSION)
        if length != len(data) or length > MAX_MESSAGE_OCTETS:
            raise PeerError(
                f"header says {length} octets, the datagram has {len(data)}", NotifyType.UNEQUAL_PAYLOAD_LENGTHS
            )
        if initiator == ZERO_COOKIE:
            raise PeerError("the initiator cookie is zero", NotifyType.INVALID_COOKIE)
        return cls(initiator, responder, following, exchange, flags, message_id, length)

    @property
    def cookies(self) -> bytes:
        """Both cookies, 16 octets: the SPI of a phase-1 SA, or of a KEK in GROUPKEY-PUSH."""
        return self.initiator_cookie + self.responder_cookie

    @property
    def encrypted(self) -> bool:
        """The E flag."""
        return bool(self.flags & Flag.ENCRYPTION)

    def pack(self) -> bytes:
        """Wire octets."""
        return _LAYOUT.pack(
            self.initiator_cookie,
            self.responder_cookie,
            self.next_payload,
            VERSION,
            self.exchange,
            self.flags,
            self.message_id,
            self.length,
        )

    def with_length(self, length: int) -> Header:
        """The same header for a message of `length` octets."""
        return Header(
            self.initiator_cookie,
            self.responder_cookie,
            self.next_payload,
            self.exchange,
            self.flags,
            self.message_id,
            length,
        )
