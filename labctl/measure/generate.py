"""UDP packets at a rate, for a time: `generate.py INTERFACE OCTETS RATE SECONDS`. Prints how many left, in how long.

`OCTETS` is an IP packet's length. Four flows, in turn.
"""

from __future__ import annotations

import socket
import struct
import sys
import time

from labctl.dataplane.packet_socket import PacketSocket
from labctl.dataplane.transmit import Transmitter
from labctl.esp.ip import header_checksum
from labctl.measure.world import COUNTED, MACS

BATCH, FLOWS = 32, 4


def frame(octets: int, flow: int) -> bytes:
    """An Ethernet frame with UDP between the hosts; no UDP checksum, which is legal over IPv4 (RFC 768)."""
    ends = socket.inet_aton("10.1.0.2") + socket.inet_aton(COUNTED)
    header = bytearray(struct.pack("!BBHHHBBH8s", 0x45, 0, octets, flow, 0, 64, 17, 0, ends))
    struct.pack_into("!H", header, 10, header_checksum(header))
    datagram = struct.pack("!HHHH", 5000 + flow, 9, octets - 20, 0) + bytes(octets - 28)
    macs = bytes.fromhex((MACS["one"] + MACS["source"]).replace(":", ""))
    return macs + b"\x08\x00" + bytes(header) + datagram


def main(interface: str, octets: int, rate: float, seconds: float) -> None:
    """Send batch after batch, each when its time has come, or at once if it has passed."""
    packets = PacketSocket(interface)
    sender = Transmitter(packets, packets.mtu(), BATCH)
    for number in range(BATCH):
        sender.put(number, frame(octets, number % FLOWS))
    sent, begin = 0, time.monotonic()
    while (passed := time.monotonic() - begin) < seconds:
        due = sent / rate
        if due > passed:
            time.sleep(due - passed)
        sent += BATCH - sender.send(BATCH)
    print(sent, time.monotonic() - begin)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4]))
