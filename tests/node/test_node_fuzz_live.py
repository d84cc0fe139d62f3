"""Ten thousand mutated datagrams at a live key server, and as many at a live member: still serving, memory flat."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from node_attackers import EVIL, EVIL_SCALE, evil_member_addresses, evil_members, evil_server
from node_getvpn import GROUP, KS, key_server, key_server_place, member, member_address, member_place
from node_requests import connected, run
from node_world import Place, World

pytestmark = pytest.mark.lab

MUTATED = 10_000

# What a process may grow by between the middle of an attack and its end: allocator noise, and the bounded tables that
# are still filling (replies kept for duplicates: 8,192). A leak of one message a datagram would be several times that.
FLAT_OCTETS = 3 << 20


def resident(pid: int) -> int:
    """Octets of memory that a process holds."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"process {pid} is gone")


async def reports(door: socket.socket) -> AsyncIterator[dict[str, Any]]:
    """What an attacker says of its progress, until it is done."""
    reader, _ = await asyncio.open_connection(sock=door.dup())
    while True:
        line = await reader.readline()
        assert line, "the attacker died; its traceback is above"
        report = json.loads(line)
        yield report
        if report.get("done"):
            return


async def grown_in_second_half(door: socket.socket, pid: int) -> int:
    """Watch an attack to its end; how much memory its victim took from the middle on."""
    middle = None
    async for report in reports(door):
        if middle is None and report["sent"] >= MUTATED / 2:
            middle = resident(pid)
    assert middle is not None
    return resident(pid) - middle


def test_a_key_server_serves_on_under_mutated_datagrams() -> None:
    addresses = evil_member_addresses(20)
    attacker = Place(
        "evil", [f"{address}/24" for address in addresses], main=evil_members(KS, addresses, MUTATED, copies=30)
    )

    async def main(world: World) -> None:
        # The attack begins with the world, before anybody listens: so does this.
        ks = await connected(world.door["ks"])
        await ks.boot(key_server([*addresses, member_address(1)]))
        growth = await grown_in_second_half(world.door["evil"], world.pid["ks"])
        status = await asyncio.wait_for(ks.call("status"), 5)
        assert (status["state"], status["groups"][0]["name"]) == ("ready", GROUP)
        received = (await ks.call("counters"))["gdoi_port"]["received"]
        assert received >= MUTATED * 0.9
        assert growth < FLAT_OCTETS
        gm1 = await connected(world.door["gm1"])
        await gm1.boot(member(1))
        await gm1.events.until(type="state", state="ready")
        for node in (ks, gm1):
            await node.connection.close()

    with World((key_server_place(), member_place(1, ()), attacker)) as world:
        run(main(world), seconds=150)


def test_a_member_lives_through_a_key_server_that_sends_mutated_datagrams() -> None:
    victim = member_address(1)
    attacker = Place("evil", [f"{EVIL}/24"], main=evil_server(victim, MUTATED, copies=60))

    async def main(world: World) -> None:
        gm1 = await connected(world.door["gm1"])
        await gm1.boot(member(1, key_servers=(EVIL,), clock_scale=EVIL_SCALE))
        growth = await grown_in_second_half(world.door["evil"], world.pid["gm1"])
        assert growth < FLAT_OCTETS
        # From here on the key server is an honest one.
        await gm1.events.until(type="state", state="ready")
        counters = await asyncio.wait_for(gm1.call("counters"), 5)
        assert counters["gdoi_port"]["received"] >= MUTATED * 0.9
        await gm1.connection.close()

    with World((member_place(1, ()), attacker)) as world:
        run(main(world), seconds=150)
