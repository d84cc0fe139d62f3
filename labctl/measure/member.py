"""A gateway's data plane as an agent runs it, with a key that both gateways know: INTERFACE TRANSFORM ADDRESS.

Everything of a group member but GDOI: the crypto map on an event loop. Runs until it is ended.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from ipaddress import IPv4Address, IPv4Network

from labctl import crypto
from labctl.configuration import AccessListEntry, Action, TransformSet
from labctl.configuration.transform_set import parse_transform_set
from labctl.dataplane import CryptoInterface
from labctl.esp import CryptoPolicy, PolicyEntry, SecurityAssociation, Tunnel
from labctl.esp.transforms import INTEGRITY
from labctl.esp.tunnel import interfaces_of
from labctl.node.links import accept_own_packets

SPI = 0x1001
SITES = IPv4Network("10.0.0.0/8")


def policy(transform: TransformSet, address: IPv4Address) -> CryptoPolicy:
    """Everything between the sites is encrypted. Each gateway sends under an ID of its own."""
    octets = transform.key_bits // 8 + (4 if transform.uses_counter_mode else 0)
    integrity = b"" if transform.uses_counter_mode else bytes(crypto.size(INTEGRITY[transform.integrity][0]))
    association = SecurityAssociation(
        SPI,
        transform,
        bytes(range(octets)),
        integrity,
        random=os.urandom,
        sender_id=int(address) & 3,
        sender_id_bits=24,
    )
    entry = PolicyEntry(AccessListEntry(Action.PERMIT, 0, SITES, SITES), SPI, frozenset({SPI}))
    tunnel = Tunnel(1500, interfaces_of([address.packed]), now=time.monotonic)
    return CryptoPolicy([entry], {SPI: association}, tunnel=tunnel)


async def main(interface: str, transform: str, address: str) -> None:
    """Serve for ever."""
    loop = asyncio.get_running_loop()
    accept_own_packets(interface)
    rules = policy(parse_transform_set(transform), IPv4Address(address))
    crossing = CryptoInterface(f"{interface}.in", f"{interface}.wire", loop, policy=rules)
    print("ready", *crossing.remarks, flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:4]))
