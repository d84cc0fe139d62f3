"""Carries the door's frames between stdio and the fabric's unix socket: the far end of a `docker exec` stream."""

from __future__ import annotations

import os
import socket
import sys
import threading
from pathlib import Path

CHUNK = 1 << 16


def relay(door: Path) -> int:
    """Copy both ways until either side ends; the exit status. Octets pass as they are."""
    sock = socket.socket(socket.AF_UNIX)
    try:
        sock.connect(str(door))
    except OSError as error:
        print(f"labctl: nobody answers at {door}: {error.strerror}", file=sys.stderr)
        return 1
    threading.Thread(target=_to_door, args=(sock,), daemon=True).start()
    while data := sock.recv(CHUNK):
        view = memoryview(data)
        while view:
            view = view[os.write(1, view) :]
    return 0


def _to_door(sock: socket.socket) -> None:
    while data := os.read(0, CHUNK):
        sock.sendall(data)
    # A client that hangs up is gone for good; its running requests end.
    sock.shutdown(socket.SHUT_RDWR)
