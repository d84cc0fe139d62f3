"""A chain of routers in munet (PyPI): the same lab as `bench.chain`, timed.

Run as root with an interpreter that has munet: `python munet_chain.py COUNT`. Prints one JSON line.
"""

import asyncio
import importlib
import json
import logging
import subprocess
import sys
import tempfile
import time
from typing import Any


def configuration(count: int, folder: str) -> dict[str, Any]:
    """munet's own form of the chain."""
    nodes: list[dict[str, Any]] = []
    for number in range(count):
        connections = []
        if number > 0:
            connections.append({"to": f"r{number - 1}", "name": "e0", "ip": f"10.0.{number - 1}.2/30"})
        if number < count - 1:
            connections.append({"to": f"r{number + 1}", "name": "e1", "ip": f"10.0.{number}.1/30"})
        nodes.append({"name": f"r{number}", "connections": connections})
    topology = {"ipv6-enable": False, "nodes": nodes}
    return {"version": 1, "topology": topology, "config_pathname": f"{folder}/munet.yaml"}


async def main(count: int) -> None:
    """Build, ping from one end to the other, take down."""
    logging.disable(logging.CRITICAL)
    begin = time.monotonic()
    # Another Python has it than the one that checks types.
    build = importlib.import_module("munet.parser").async_build_topology
    with tempfile.TemporaryDirectory() as folder:
        net = await build(configuration(count, folder), rundir=folder, unshare_inline=True)
        try:
            for number in range(count):
                routes = [
                    f"ip route add 10.0.{link}.0/30 via "
                    + (f"10.0.{number - 1}.1" if link < number else f"10.0.{number}.2")
                    for link in range(count - 1)
                    if link < number - 1 or link > number
                ]
                command = "sysctl -q -w net.ipv4.ip_forward=1; " + "; ".join(routes)
                net.hosts[f"r{number}"].cmd_nostatus(command, stderr=subprocess.STDOUT)
            answer = net.hosts["r0"].cmd_nostatus(f"ping -c 1 -W 2 10.0.{count - 2}.2")
            seconds = time.monotonic() - begin
            print(json.dumps({"seconds": seconds, "reached": "1 received" in answer}))
        finally:
            await net.async_delete()


asyncio.run(main(int(sys.argv[1])))
