"""The two families of failure: what a peer did wrong, and what our own caller did wrong."""

from __future__ import annotations

from enum import IntEnum


class NotifyType(IntEnum):
    """Notify message types (RFC 2408 3.14.1; DOI status types of RFC 2407 4.6.3; RFC 3706)."""

    INVALID_PAYLOAD_TYPE = 1
    DOI_NOT_SUPPORTED = 2
    SITUATION_NOT_SUPPORTED = 3
    INVALID_COOKIE = 4
    INVALID_MAJOR_VERSION = 5
    INVALID_MINOR_VERSION = 6
    INVALID_EXCHANGE_TYPE = 7
    INVALID_FLAGS = 8
    INVALID_MESSAGE_ID = 9
    INVALID_PROTOCOL_ID = 10
    INVALID_SPI = 11
    INVALID_TRANSFORM_ID = 12
    ATTRIBUTES_NOT_SUPPORTED = 13
    NO_PROPOSAL_CHOSEN = 14
    BAD_PROPOSAL_SYNTAX = 15
    PAYLOAD_MALFORMED = 16
    INVALID_KEY_INFORMATION = 17
    INVALID_ID_INFORMATION = 18
    INVALID_CERT_ENCODING = 19
    INVALID_CERTIFICATE = 20
    CERT_TYPE_UNSUPPORTED = 21
    INVALID_CERT_AUTHORITY = 22
    INVALID_HASH_INFORMATION = 23
    AUTHENTICATION_FAILED = 24
    INVALID_SIGNATURE = 25
    ADDRESS_NOTIFICATION = 26
    NOTIFY_SA_LIFETIME = 27
    CERTIFICATE_UNAVAILABLE = 28
    UNSUPPORTED_EXCHANGE_TYPE = 29
    UNEQUAL_PAYLOAD_LENGTHS = 30
    CONNECTED = 16384
    RESPONDER_LIFETIME = 24576
    REPLAY_STATUS = 24577
    INITIAL_CONTACT = 24578
    R_U_THERE = 36136
    R_U_THERE_ACK = 36137


class LocalError(Exception):
    """Our own caller used a party wrongly: a bug of ours."""


class PeerError(Exception):
    """The peer sent something that is not acceptable. `notify` is what it may be told."""

    notify = NotifyType.PAYLOAD_MALFORMED

    def __init__(self, reason: str, notify: NotifyType | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        if notify is not None:
            self.notify = notify


class MalformedMessage(PeerError):
    """The octets do not parse."""

    notify = NotifyType.PAYLOAD_MALFORMED


class NoProposalChosen(PeerError):
    """Nothing that was offered is acceptable."""

    notify = NotifyType.NO_PROPOSAL_CHOSEN


class AuthenticationFailed(PeerError):
    """A hash that proves identity is wrong, or the message does not decrypt: the keys differ."""

    notify = NotifyType.AUTHENTICATION_FAILED


class InvalidHash(PeerError):
    """A HASH payload of a protected exchange is wrong."""

    notify = NotifyType.INVALID_HASH_INFORMATION


class InvalidId(PeerError):
    """An identity is unknown or of the wrong kind."""

    notify = NotifyType.INVALID_ID_INFORMATION
