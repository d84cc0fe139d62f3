"""The door: how labctl, the supervisor or fabric, and the agents talk (design decision 4). JSON lines, versioned.

One frame a line, UTF-8 JSON. `v` is the protocol version, in the first frame each side sends.

    {"v": 1, "hello": {...}}                      greeting, both ways, first
    {"id": 7, "op": "ping", "args": {...}}        request
    {"id": 7, "data": {...}}                      stream item of a running request, to the requester
    {"id": 7, "data": {...}, "to": "server"}      stream item from the requester
    {"id": 7, "result": {...}}                    the end of a request: success
    {"id": 7, "error": {"code", "message", "hint"}}   the end of a request: failure
    {"id": 7, "cancel": true}                     the requester gives up
    {"event": {...}}                              unsolicited: log lines, state changes

Octets inside `data` are base64 under keys that end in `_b64`.
"""

from labctl.door.connection import (
    PROTOCOL_VERSION,
    Call,
    Connection,
    DoorClosed,
    DoorError,
    Handler,
)

__all__ = ["PROTOCOL_VERSION", "Call", "Connection", "DoorClosed", "DoorError", "Handler"]
