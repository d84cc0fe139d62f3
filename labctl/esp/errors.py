"""Why a packet is dropped."""

from __future__ import annotations

from enum import Enum


class DropReason(Enum):
    """Drop reasons, as the counters name them."""

    NO_SA = "no-sa"
    INVALID_SPI = "invalid-spi"
    MAC_ERROR = "mac-verify-failed"
    PAD_ERROR = "bad-padding"
    NOT_IPSEC = "not-an-ipsec-packet"
    SELECTOR_MISMATCH = "selector-mismatch"
    ADDRESS_MISMATCH = "address-mismatch"
    FRAGMENT_OVERLAP = "fragment-overlap"
    FRAGMENT_DUPLICATE = "fragment-duplicate"
    FRAGMENT_TIMEOUT = "fragment-timeout"
    FRAGMENT_LIMIT = "fragment-limit"
    MALFORMED = "malformed"
    TOO_BIG = "too-big"
    DUMMY = "dummy"
    SEQUENCE_EXHAUSTED = "sequence-number-exhausted"
    NO_SENDER_ID = "no-sender-id"
    EXPIRED = "expired"
    FAIL_CLOSE = "fail-close"
    REPLAY = "replay-check-failed"
    TIME_STAMP = "bad-time-stamp"


class DropPacket(Exception):
    """This packet goes no further. `back` is what its sender is told (ICMP)."""

    def __init__(self, reason: DropReason, detail: str = "", *, back: bytes | None = None) -> None:
        super().__init__(f"{reason.value}: {detail}" if detail else reason.value)
        self.reason = reason
        self.back = back
