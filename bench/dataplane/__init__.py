"""What a pair of group members carries between two hosts, beside others of their kind in the same run.

Hosts, gateways and the wire between these are network namespaces of this benchmark's own: nothing of it outlives it.
"""

from __future__ import annotations

import os
import subprocess
import sys


def dataplane(_: object) -> None:
    """Packets/s, TCP, added latency and CPU of a pair of members, of strongSwan's, of WireGuard's, of none."""
    isolate = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    if os.geteuid():
        isolate += ["--user", "--map-root-user"]
    subprocess.run([*isolate, sys.executable, "-m", "bench.dataplane"], check=False)


__all__ = ["dataplane"]
