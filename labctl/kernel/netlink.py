"""Route netlink, as much of it as wires need: messages, attributes, batches of requests, dumps.

Facts: netlink(7), rtnetlink(7), linux/netlink.h, linux/rtnetlink.h. Integers are in host order.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

NLM_F_REQUEST, NLM_F_ACK = 0x01, 0x04
NLM_F_REPLACE, NLM_F_EXCL, NLM_F_CREATE, NLM_F_DUMP = 0x100, 0x200, 0x400, 0x300
NLMSG_ERROR, NLMSG_DONE = 2, 3
NLA_F_NESTED, NLA_TYPE_MASK = 0x8000, 0x3FFF

SOL_NETLINK, NETLINK_EXT_ACK = 270, 11
NLM_F_CAPPED, NLM_F_ACK_TLVS = 0x100, 0x200
NLMSGERR_ATTR_MSG = 1

_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")

# Requests that go in one datagram: few enough that all error answers fit a default receive buffer.
BATCH = 64
RECEIVE_OCTETS = 1 << 17


@dataclass(frozen=True, slots=True)
class Request:
    """One change. `what` names it for the user should the kernel refuse; `body` is all behind the netlink header."""

    kind: int
    flags: int
    body: bytes
    what: str


class NetlinkError(OSError):
    """The kernel refused a request: `what` was asked, `detail` is the kernel's own explanation if it gave one."""

    def __init__(self, number: int, what: str, detail: str = "") -> None:
        text = f"{what}: {os.strerror(number)}" + (f" ({detail})" if detail else "")
        super().__init__(number, text)
        self.what = what
        self.detail = detail

    def __str__(self) -> str:
        return str(self.args[1])


def attribute(kind: int, value: bytes) -> bytes:
    """One attribute, padded to four octets."""
    length = _ATTRIBUTE.size + len(value)
    return _ATTRIBUTE.pack(length, kind) + value + bytes(-length % 4)


def nested(kind: int, *attributes: bytes) -> bytes:
    """An attribute that holds attributes."""
    return attribute(kind | NLA_F_NESTED, b"".join(attributes))


def text(kind: int, value: str) -> bytes:
    """A zero-terminated string."""
    return attribute(kind, value.encode() + b"\0")


def u8(kind: int, value: int) -> bytes:
    """An unsigned octet."""
    return attribute(kind, struct.pack("=B", value))


def u16(kind: int, value: int) -> bytes:
    """An unsigned 16-bit number."""
    return attribute(kind, struct.pack("=H", value))


def u32(kind: int, value: int) -> bytes:
    """An unsigned 32-bit number."""
    return attribute(kind, struct.pack("=I", value))


def attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The attributes in `data`, flags stripped from their types; stops at the first that does not fit."""
    offset = 0
    while offset + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if length < _ATTRIBUTE.size or offset + length > len(data):
            return
        yield kind & NLA_TYPE_MASK, data[offset + _ATTRIBUTE.size : offset + length]
        offset += length + (-length % 4)


class RouteSocket:
    """A route netlink socket. It belongs for ever to the network namespace in which it was opened."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
        self._socket.bind((0, 0))
        # The explanations in words are worth having, but no kernel owes them to us.
        self._socket.setsockopt(SOL_NETLINK, NETLINK_EXT_ACK, 1)
        self._sequence = 0

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def __enter__(self) -> RouteSocket:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def apply(self, requests: Sequence[Request]) -> None:
        """Carry requests out in order. Raises NetlinkError for the first that failed; those after it were tried."""
        failures: list[NetlinkError] = []
        for start in range(0, len(requests), BATCH):
            failures += self._apply_batch(requests[start : start + BATCH])
        if failures:
            raise failures[0]

    def _apply_batch(self, requests: Sequence[Request]) -> list[NetlinkError]:
        first = self._sequence + 1
        self._sequence += len(requests)
        datagram = bytearray()
        for index, request in enumerate(requests):
            # The kernel answers errors in any case; the last one's success says that all are done.
            flags = request.flags | NLM_F_REQUEST | (NLM_F_ACK if index == len(requests) - 1 else 0)
            length = _HEADER.size + len(request.body)
            datagram += _HEADER.pack(length, request.kind, flags, first + index, 0)
            datagram += request.body + bytes(-length % 4)
        self._socket.send(datagram)
        failures = []
        for kind, flags, sequence, body in self._answers():
            if kind != NLMSG_ERROR or not first <= sequence <= self._sequence:
                continue
            number = -struct.unpack_from("=i", body)[0]
            if number:
                failures.append(NetlinkError(number, requests[sequence - first].what, _explanation(body, flags)))
            if sequence == self._sequence:
                break
        return failures

    def dump(self, kind: int, body: bytes) -> list[bytes]:
        """Everything of a kind: the bodies of the answers (the fixed structure and its attributes)."""
        self._sequence += 1
        header = _HEADER.pack(_HEADER.size + len(body), kind, NLM_F_REQUEST | NLM_F_DUMP, self._sequence, 0)
        self._socket.send(header + body)
        found = []
        for answer, _, sequence, content in self._answers():
            if sequence != self._sequence:
                continue
            if answer == NLMSG_DONE:
                break
            if answer == NLMSG_ERROR:
                raise NetlinkError(-struct.unpack_from("=i", content)[0], f"netlink dump {kind}")
            found.append(content)
        return found

    def ask(self, kind: int, body: bytes, what: str) -> bytes:
        """One question with one answer: its body. Raises NetlinkError."""
        self._sequence += 1
        header = _HEADER.pack(_HEADER.size + len(body), kind, NLM_F_REQUEST, self._sequence, 0)
        self._socket.send(header + body)
        for answer, flags, sequence, content in self._answers():
            if sequence != self._sequence:
                continue
            if answer == NLMSG_ERROR:
                raise NetlinkError(-struct.unpack_from("=i", content)[0], what, _explanation(content, flags))
            return content
        raise AssertionError("the kernel answers until we stop to listen")

    def _answers(self) -> Iterator[tuple[int, int, int, bytes]]:
        while True:
            data = self._socket.recv(RECEIVE_OCTETS)
            offset = 0
            while offset + _HEADER.size <= len(data):
                length, kind, flags, sequence, _ = _HEADER.unpack_from(data, offset)
                yield kind, flags, sequence, data[offset + _HEADER.size : offset + length]
                offset += length + (-length % 4)


def _explanation(body: bytes, flags: int) -> str:
    """The kernel's words behind an error (NLMSGERR_ATTR_MSG), after the echo of our request."""
    if not flags & NLM_F_ACK_TLVS:
        return ""
    echoed = _HEADER.size if flags & NLM_F_CAPPED else struct.unpack_from("=I", body, 4)[0]
    rest = body[4 + echoed + (-echoed % 4) :]
    return next((value.rstrip(b"\0").decode() for kind, value in attributes(rest) if kind == NLMSGERR_ATTR_MSG), "")
