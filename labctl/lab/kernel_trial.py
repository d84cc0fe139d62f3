"""`python -m labctl.lab.kernel_trial`: try, in namespaces of our own, what labs ask of the kernel; print JSON.

Feature -> what went wrong, or nothing. The namespaces end with this process, and everything in them.
"""

from __future__ import annotations

import ctypes
import json
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path

from pyroute2 import IPRoute

CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000  # linux/sched.h
ETH_P_ALL = 0x0003


def enter() -> None:
    """A network namespace of our own; an ordinary user needs a user namespace around it. Raises OSError."""
    uid, gid = os.getuid(), os.getgid()
    flags = CLONE_NEWNET if uid == 0 else CLONE_NEWUSER | CLONE_NEWNET
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(flags) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    if uid != 0:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
        Path("/proc/self/gid_map").write_text(f"0 {gid} 1")


def try_veth() -> None:
    """A pair of joined interfaces: every wire of a lab."""
    with IPRoute() as route:
        route.link("add", ifname="trial0", kind="veth", peer={"ifname": "trial1"})


def try_bridge() -> None:
    """A bridge: every switch."""
    with IPRoute() as route:
        route.link("add", ifname="trialbr", kind="bridge")


def try_packet_sockets() -> None:
    """AF_PACKET: how an agent sees every frame."""
    socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL)).close()


def try_sysctls() -> None:
    """Forwarding is a sysctl of the namespace."""
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")


TRIALS: dict[str, Callable[[], None]] = {
    "veth": try_veth,
    "bridge": try_bridge,
    "packet sockets": try_packet_sockets,
    "sysctls": try_sysctls,
}


def main() -> int:
    """Try each; 0 if the namespaces could be made at all."""
    results: dict[str, str] = {}
    try:
        enter()
    except OSError as error:
        results["network namespace"] = error.strerror or str(error)
    else:
        for name, trial in TRIALS.items():
            try:
                trial()
                results[name] = ""
            except Exception as error:  # pyroute2 has error types of its own; each is an answer here
                results[name] = str(error) or type(error).__name__
    json.dump(results, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
