"""What makes a forked process a node of a namespaces lab: namespaces, a host name, private files (decision 2)."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from labctl.kernel.namespaces import Clone, Mount, mount, unshare

_SECURE = Mount.NO_SUID | Mount.NO_DEV

# A lab is private: asking a name server of the host's could only time out.
_NO_NAME_SERVER = "# A lab has no name server; its names are in /etc/hosts.\n"


def enter(name: str, hosts: Mapping[str, str], hosts6: Mapping[str, str]) -> None:
    """Turn this process into the node `name`. `hosts`, `hosts6` map names to addresses. Raises OSError."""
    unshare(Clone.NETWORK | Clone.UTS | Clone.MOUNT | Clone.IPC)
    socket.sethostname(name)
    mount("tmpfs", "/run", "tmpfs", _SECURE, "mode=755,size=16m")
    files = Path("/run/labctl")
    files.mkdir()
    _private_file(files / "hosts", hosts_file(name, hosts, hosts6), "/etc/hosts")
    _private_file(files / "resolv.conf", _NO_NAME_SERVER, "/etc/resolv.conf")
    # /sys shows the links of the namespace in which it was mounted. Where the host hides parts of its own /sys, a
    # kernel refuses a fresh one to a user namespace; nothing of ours reads it.
    with suppress(OSError):
        mount("sysfs", "/sys", "sysfs", _SECURE | Mount.NO_EXEC | Mount.READ_ONLY)


def hosts_file(name: str, hosts: Mapping[str, str], hosts6: Mapping[str, str]) -> str:
    """The text of /etc/hosts: the loopback names, then one line a name of the lab."""
    lines = ["127.0.0.1 localhost", f"127.0.1.1 {name}"] if name not in hosts else ["127.0.0.1 localhost"]
    lines += [f"{address} {host}" for host, address in hosts.items()]
    lines += ["::1 localhost"] if hosts6 else []
    lines += [f"{address} {host}" for host, address in hosts6.items()]
    return "\n".join(lines) + "\n"


def _private_file(path: Path, text: str, target: str) -> None:
    path.write_text(text)
    path.chmod(0o644)
    real = os.path.realpath(target)
    # A target that does not exist, or pointed into the host's /run, needs no cover.
    if Path(real).is_file():
        mount(str(path), real, flags=Mount.BIND)
