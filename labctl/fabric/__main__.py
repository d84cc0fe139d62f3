"""`python -m labctl.fabric`: the fabric of a docker lab, its relay, and the supervisor of a namespaces lab.

python -m labctl.fabric --lab NAME [--door PATH]      serve as the fabric container
python -m labctl.fabric --connect [--door PATH]       join stdio to the fabric's door
python -m labctl.fabric --supervise FD --lab NAME --door PATH --logs DIR [--agent MODULE:FUNCTION]
python -m labctl.fabric --probe                       can this machine hold a namespaces lab? JSON on stdout
"""

from __future__ import annotations

import argparse
import socket
import sys
from pathlib import Path

from labctl.kernel.signals import forget_inherited_signals

# Inside the fabric container, on its own tmpfs.
CONTAINER_DOOR = Path("/run/labctl/door.sock")


def main() -> int:
    """Run what the arguments ask for; the exit status."""
    parser = argparse.ArgumentParser(prog="labctl.fabric")
    parser.add_argument("--lab", default="lab")
    parser.add_argument("--door", type=Path, default=CONTAINER_DOOR)
    parser.add_argument("--logs", type=Path)
    parser.add_argument("--agent")
    parser.add_argument("--connect", action="store_true")
    parser.add_argument("--probe", action="store_true")
    parser.add_argument("--supervise", type=int, metavar="FD")
    options = parser.parse_args()
    forget_inherited_signals()
    if options.connect:
        from labctl.fabric.relay import relay

        return relay(options.door)
    if options.probe:
        from labctl.fabric.probe import probe

        return probe()
    if options.supervise is not None:
        from labctl.fabric.supervisor import AGENT, supervise

        control = socket.socket(fileno=options.supervise)
        control.set_inheritable(False)
        supervise(control, options.lab, options.door, options.logs, options.agent or AGENT)
        return 0
    from labctl.fabric.standalone import serve

    return serve(options.lab, options.door)


if __name__ == "__main__":
    sys.exit(main())
