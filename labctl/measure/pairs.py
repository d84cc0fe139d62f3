"""Pairs of gateways: two members, and the kernel alone."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable

from labctl.kernel.namespaces import in_network_namespace
from labctl.kernel.offloads import Offloads
from labctl.measure.world import WIRE, World

Pair = Callable[[World], str]


def kernel(world: World) -> str:
    """Forwarding, and no more."""
    world.join_gateways()
    world.address_gateways("wire", routes=True)
    return "the kernel"


def members(
    world: World, transform: str, *more: str, program: str = "labctl.measure.member", large: bool = True
) -> str:
    """Two crypto maps on interfaces as a lab's are: split, with the offloads of labctl.fabric.

    `transform` is a transform set as topologies have it (configuration/transform_set.py), `more` what else `program`
    is told. Without `large`, TCP does not come to it in frames of 64 KB.
    """
    world.join_gateways(wire="wire.wire")
    offloads = Offloads()
    for name in WIRE:
        world.ip(name, "link add wire type veth peer name wire.in", "link set wire.in arp off promisc on up",
                 "link set wire.wire arp off promisc on")  # fmt: skip
        descriptor = os.open(f"/run/netns/{name}", os.O_RDONLY)
        with in_network_namespace(descriptor), socket.socket() as ioctl:
            for interface in ("wire", "wire.in", "wire.wire"):
                offloads.turn_off(ioctl, interface, to_agent=large and interface != "wire.wire")
        os.close(descriptor)
        world.run(name, "sysctl", "-qw", "net.ipv4.conf.wire/wire.rp_filter=1")
        world.ip(name, "link set wire up")
    world.address_gateways("wire", routes=True)
    for name, address in WIRE.items():
        words = (sys.executable, "-m", program, "wire", transform, address, *more)
        output = world.start(name, *words, agent=True)
        if output.readline().strip() != b"ready":
            raise RuntimeError(f"the member {name} does not start: see {world.folder}")
    return "two members"
