"""Tries on this machine what a namespaces lab needs, in a process that ends at once and takes all of it along."""

from __future__ import annotations

import json
import os
import sys

from labctl.fabric.supervisor import FoundingFailure, found


def probe() -> int:
    """Print `{"rootless": bool}`, or `{"error", "step", "errno"}` and exit with 1."""
    try:
        rootless = found()
    except FoundingFailure as failure:
        return _fail(failure.step, failure)
    pid = os.fork()  # mounts of /proc and pids are for the pid namespace's own
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    status = _inside(rootless)
    sys.stdout.flush()
    os._exit(status)


def _inside(rootless: bool) -> int:
    from labctl.fabric import container
    from labctl.kernel import links
    from labctl.kernel.links import VethEnd
    from labctl.kernel.namespaces import open_network_namespace
    from labctl.kernel.netlink import RouteSocket

    step = "make a node"
    try:
        container.enter("probe", {}, {})
        here = open_network_namespace()
        with RouteSocket() as route:
            step = "make a veth pair (kernel module veth)"
            ends = (VethEnd(name, f"02:00:00:00:00:0{number}", here) for number, name in enumerate(("one", "other")))
            route.apply([links.veth(*ends)])
            step = "make a bridge (kernel module bridge)"
            route.apply([links.bridge("lan", "lan")])
    except OSError as error:
        return _fail(step, error)
    print(json.dumps({"rootless": rootless}))
    return 0


def _fail(step: str, error: OSError | FoundingFailure) -> int:
    number = error.errno if isinstance(error, OSError) else error.number
    print(json.dumps({"error": str(error), "step": step, "errno": number}))
    return 1
