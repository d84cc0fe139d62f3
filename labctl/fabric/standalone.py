"""The fabric container's program: the same fabric over nodes that are containers of their own (design decision 3)."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import tempfile
from pathlib import Path

from labctl.fabric.fabric import Fabric
from labctl.fabric.nodes import ContainerNodes
from labctl.fabric.records import Records
from labctl.fabric.server import listen_at, run
from labctl.kernel.namespaces import Mount, mount

_SECURE = Mount.NO_SUID | Mount.NO_DEV | Mount.NO_EXEC


def serve(lab: str, door: Path) -> int:
    """Serve until shutdown; the exit status."""
    try:
        asyncio.run(_serve(lab, door))
    except OSError as error:
        print(f"labctl fabric: {error}", file=sys.stderr, flush=True)
        return 1
    return 0


async def _serve(lab: str, door: Path) -> None:
    door.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fabric = await Fabric.open(lab, ContainerNodes(), Records(None), writable_proc(door.parent))
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, fabric.shutdown.set)
    await run(fabric, listen_at(door))


def writable_proc(folder: Path) -> str:
    """A /proc whose sysctls can be written. Engines mount /proc/sys read-only; a second mount of ours is not.

    Raises OSError, which says that the container lacks the right to mount (CAP_SYS_ADMIN, no AppArmor profile).
    """
    if os.access("/proc/sys/net/ipv4/ip_forward", os.W_OK):
        return "/proc"
    place = tempfile.mkdtemp(prefix="proc-", dir=folder)
    mount("proc", place, "proc", _SECURE)
    return place
