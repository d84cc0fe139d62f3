"""Numbered packets of several flows at a rate, and who counts what is lost of them and what comes out of turn.

numbered send INTERFACE RATE SECONDS        prints how many it sent
numbered receive INTERFACE                  prints `ready`, and once no more come: how many came, how many out of turn
"""

from __future__ import annotations

import select
import struct
import sys
import time

from labctl.dataplane.packet_socket import PacketSocket
from labctl.dataplane.receive import Receiver, ReceiveRing
from labctl.dataplane.transmit import Transmitter
from labctl.measure.generate import BATCH, FLOWS, frame

OCTETS = 64

# Behind Ethernet, IPv4 and UDP. The last octet of the source port says which flow it is.
_NUMBER_AT, _FLOW_AT = 42, 35
_NUMBER = struct.Struct("!I")

# A receiver that has heard nothing for so long has heard the last.
QUIET_SECONDS = 2.0


def send(interface: str, rate: float, seconds: float) -> int:
    """How many packets left. What the interface does not take is sent again: a loss on the way is what counts."""
    packets = PacketSocket(interface)
    sender = Transmitter(packets, packets.mtu(), BATCH)
    for number in range(BATCH):
        sender.put(number, frame(OCTETS, number % FLOWS))
    sent, begin = 0, time.monotonic()
    while (passed := time.monotonic() - begin) < seconds:
        if sent / rate > passed:
            time.sleep(sent / rate - passed)
        for number, place in enumerate(sender.places):
            _NUMBER.pack_into(sender.buffer, place + _NUMBER_AT, sent // FLOWS + number // FLOWS)
        sent += BATCH - sender.send(BATCH)
    return sent


def receive(interface: str) -> tuple[int, int]:
    """How many packets came, and how many of them behind a later one of their flow."""
    found: list[Receiver] = []
    packets = PacketSocket(interface, prepare=lambda socket: found.append(ReceiveRing(socket, socket.mtu())))
    receiver = found[0]
    print("ready", flush=True)
    came = late = 0
    highest: dict[int, int] = {}
    macs_and_kind = frame(OCTETS, 0)[6:14]  # the gateway writes its own MACs
    while select.select([packets], [], [], QUIET_SECONDS if came else None)[0]:
        buffer, frames = receiver.take(128)
        for start, size in frames:
            if size != 14 + OCTETS or buffer[start + 12 : start + 14] != macs_and_kind[6:]:
                continue
            (number,) = _NUMBER.unpack_from(buffer, start + _NUMBER_AT)
            flow = buffer[start + _FLOW_AT]
            came += 1
            late += number <= highest.get(flow, -1)
            highest[flow] = max(number, highest.get(flow, -1))
        receiver.release()
    return came, late


if __name__ == "__main__":
    if sys.argv[1] == "send":
        print(send(sys.argv[2], float(sys.argv[3]), float(sys.argv[4])))
    else:
        print(*receive(sys.argv[2]))
