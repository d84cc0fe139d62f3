"""A gateway's data plane as an agent runs it, with keys that both gateways know: INTERFACE TRANSFORM ADDRESS [REKEY].

Everything of a group member but GDOI: the crypto map on an event loop. Runs until it is ended. Every REKEY seconds of
the machine's clock there is a new key; the one before and the one to come are accepted, as in a group.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Mapping
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


def association(transform: TransformSet, address: IPv4Address, generation: int) -> SecurityAssociation:
    """The SA of a generation of keys. Each gateway sends under an ID of its own."""
    octets = transform.key_bits // 8 + (4 if transform.uses_counter_mode else 0)
    integrity = b"" if transform.uses_counter_mode else bytes(crypto.size(INTEGRITY[transform.integrity][0]))
    return SecurityAssociation(
        SPI + generation,
        transform,
        bytes((generation + number) % 256 for number in range(octets)),
        integrity,
        random=os.urandom,
        sender_id=int(address) & 3,
        sender_id_bits=24,
    )


def policy(associations: Mapping[int, SecurityAssociation], address: IPv4Address, spi: int) -> CryptoPolicy:
    """Everything between the sites is encrypted, under `spi`."""
    entry = PolicyEntry(AccessListEntry(Action.PERMIT, 0, SITES, SITES), spi, frozenset(associations))
    tunnel = Tunnel(1500, interfaces_of([address.packed]), now=time.monotonic)
    return CryptoPolicy([entry], associations, tunnel=tunnel)


async def main(interface: str, transform: str, address: str, rekey: str = "") -> None:
    """Serve for ever."""
    loop = asyncio.get_running_loop()
    accept_own_packets(interface)
    suite, own = parse_transform_set(transform), IPv4Address(address)
    known = {SPI: association(suite, own, 0)}
    crossing = CryptoInterface(f"{interface}.in", f"{interface}.wire", loop, policy=policy(known, own, SPI))
    print("ready", *crossing.remarks, flush=True)
    if not rekey:
        await asyncio.Event().wait()
    seconds = float(rekey)
    while True:
        now = int(time.monotonic() / seconds)
        for generation in (now - 1, now, now + 1):
            known.setdefault(SPI + generation, association(suite, own, generation))
        known = {spi: sa for spi, sa in known.items() if spi >= SPI + now - 1}
        crossing.install(policy(known, own, SPI + now))
        await asyncio.sleep((now + 1) * seconds - time.monotonic())


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:5]))
