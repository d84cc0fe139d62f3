"""A chain of routers in munet (PyPI): the same lab as `bench.chain`, timed.

Run as root with an interpreter that has munet: `python munet_chain.py COUNT`. Prints one JSON line.
"""

import asyncio
import json
import logging
import subprocess
import sys
import tempfile
import time


def configuration(count, folder):
    nodes = []
    for number in range(count):
        connections = []
        if number > 0:
            connections.append({"to": f"r{number - 1}", "name": "e0", "ip": f"10.0.{number - 1}.2/30"})
        if number < count - 1:
            connections.append({"to": f"r{number + 1}", "name": "e1", "ip": f"10.0.{number}.1/30"})
        nodes.append({"name": f"r{number}", "connections": connections})
    return {
        "version": 1,
        "topology": {"ipv6-enable": False, "nodes": nodes},
        "config_pathname": f"{folder}/munet.yaml",
    }


async def main(count):
    logging.disable(logging.CRITICAL)
    begin = time.monotonic()
    from munet.parser import async_build_topology

    with tempfile.TemporaryDirectory() as folder:
        net = await async_build_topology(configuration(count, folder), rundir=folder, unshare_inline=True)
        try:
            for number in range(count):
                node = net.hosts[f"r{number}"]
                routes = [
                    f"ip route add 10.0.{link}.0/30 via "
                    + (f"10.0.{number - 1}.1" if link < number else f"10.0.{number}.2")
                    for link in range(count - 1)
                    if link < number - 1 or link > number
                ]
                node.cmd_nostatus("sysctl -q -w net.ipv4.ip_forward=1; " + "; ".join(routes), stderr=subprocess.STDOUT)
            answer = net.hosts["r0"].cmd_nostatus(f"ping -c 1 -W 2 10.0.{count - 2}.2")
            seconds = time.monotonic() - begin
            print(json.dumps({"seconds": seconds, "reached": "1 received" in answer}))
        finally:
            await net.async_delete()


asyncio.run(main(int(sys.argv[1])))
