"""A TCP stream where there is no iperf3: `stream.py PORT` takes one, `stream.py PORT ADDRESS SECONDS` sends one.

The receiver counts, and tells the sender at the end; what is printed has the form of iperf3's report.
"""

from __future__ import annotations

import json
import socket
import sys
import time

CHUNK = 128 << 10


def take(port: int) -> None:
    """One connection: answers with the octets that came, and the seconds from the first to the last."""
    with socket.create_server(("0.0.0.0", port)) as listener:
        connection, _ = listener.accept()
    with connection:
        buffer = memoryview(bytearray(CHUNK))
        octets = connection.recv_into(buffer)
        begin = last = time.monotonic()
        while count := connection.recv_into(buffer):
            octets += count
            last = time.monotonic()
        connection.sendall(json.dumps([octets, last - begin]).encode())


def send(port: int, address: str, seconds: float) -> float:
    """Bits a second, as the receiver counted."""
    chunk = bytes(CHUNK)
    with socket.create_connection((address, port)) as connection:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            connection.sendall(chunk)
        connection.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(lambda: connection.recv(4096), b""))
    octets, passed = map(float, json.loads(answer))
    return octets * 8 / max(passed, 1e-9)


if __name__ == "__main__":
    if len(sys.argv) == 2:
        take(int(sys.argv[1]))
    else:
        rate = send(int(sys.argv[1]), sys.argv[2], float(sys.argv[3]))
        print(json.dumps({"end": {"sum_received": {"bits_per_second": rate}}}))
