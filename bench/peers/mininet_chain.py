"""A chain of routers in Mininet (Debian's package, the system's Python): the same lab as `bench.chain`, timed.

Run as root: `/usr/bin/python3 mininet_chain.py COUNT`. Prints one JSON line: seconds until a packet crosses the chain.
"""

import importlib
import json
import sys
import time


def main(count: int) -> None:
    """Build, ping from one end to the other, take down."""
    begin = time.monotonic()
    # Another Python has it than the one that checks types.
    link_class = importlib.import_module("mininet.link").Link
    net_class = importlib.import_module("mininet.net").Mininet
    node_class = importlib.import_module("mininet.node").Node
    net = net_class(topo=None, controller=None, build=False, autoSetMacs=False)
    try:
        nodes = [net.addHost(f"r{number}", cls=node_class, ip=None) for number in range(count)]
        for number in range(count - 1):
            left, right = nodes[number], nodes[number + 1]
            names = (f"r{number}-e1", f"r{number + 1}-e0")
            link_class(left, right, intfName1=names[0], intfName2=names[1])
            left.cmd(f"ip address add 10.0.{number}.1/30 dev {names[0]}")
            right.cmd(f"ip address add 10.0.{number}.2/30 dev {names[1]}")
        for number, node in enumerate(nodes):
            node.cmd("sysctl -q -w net.ipv4.ip_forward=1")
            for link in range(count - 1):
                if link < number - 1:
                    node.cmd(f"ip route add 10.0.{link}.0/30 via 10.0.{number - 1}.1")
                elif link > number:
                    node.cmd(f"ip route add 10.0.{link}.0/30 via 10.0.{number}.2")
        answer = nodes[0].cmd(f"ping -c 1 -W 2 10.0.{count - 2}.2")
        seconds = time.monotonic() - begin
        print(json.dumps({"seconds": seconds, "reached": "1 received" in answer}))
    finally:
        net.stop()


main(int(sys.argv[1]))
