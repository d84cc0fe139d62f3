"""A gateway made with scapy's IPsec layer, for scale: INTERFACE TRANSFORM ADDRESS, as labctl.measure.member.

A frame at a time, as who writes it in an afternoon would. AES-GCM only.
"""

from __future__ import annotations

import contextlib
import select
import socket
import sys

from scapy.layers.inet import IP
from scapy.layers.ipsec import ESP, SecurityAssociation

from labctl.configuration.transform_set import parse_transform_set
from labctl.dataplane.packet_socket import PacketSocket
from labctl.esp.ip import PROTOCOL_ESP
from labctl.measure.member import SPI
from labctl.node.links import accept_own_packets

# What waits is carried half a second later: no more than that.
QUEUE_OCTETS = 1 << 18

IPV4, ETHERNET, LARGEST = b"\x08\x00", 14, 65_600


def main(interface: str, transform: str) -> None:
    """Serve for ever."""
    accept_own_packets(interface)
    key = bytes(range(parse_transform_set(transform).key_bits // 8 + 4))
    inside, wire = PacketSocket(f"{interface}.in"), PacketSocket(f"{interface}.wire", promiscuous=True)
    for packets in (inside, wire):
        packets.raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, QUEUE_OCTETS)
    other = {inside: wire, wire: inside}
    print("ready", flush=True)
    while True:
        for came in select.select([inside, wire], [], [])[0]:
            frame = came.raw.recv(LARGEST)
            if frame[12:14] == IPV4 and (came is inside or frame[ETHERNET + 9] == PROTOCOL_ESP):
                packet = IP(frame[ETHERNET:])
                tunnel = IP(src=packet.src, dst=packet.dst, tos=packet.tos, ttl=packet.ttl, flags=packet.flags)
                sa = SecurityAssociation(ESP, SPI, crypt_algo="AES-GCM", crypt_key=key, tunnel_header=tunnel)
                done = sa.encrypt(packet) if came is inside else sa.decrypt(packet)
                frame = frame[:ETHERNET] + bytes(done)
            with contextlib.suppress(OSError):  # too long, or no room
                other[came].raw.send(frame)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
