"""Why a kernel refuses an ordinary user a lab, and what to do: one remedy a known cause.

Facts: user_namespaces(7). kernel.unprivileged_userns_clone is Debian's, apparmor_restrict_unprivileged_userns Ubuntu's.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

Sysctl = Callable[[str], str | None]


def read_sysctl(name: str) -> str | None:
    """The value of a setting such as `user.max_user_namespaces`; None where this kernel has none of that name."""
    try:
        return Path("/proc/sys", *name.split(".")).read_text().strip()
    except OSError:
        return None


def remedy(step: str, number: int | None, sysctl: Sysctl = read_sysctl) -> str:
    """What the user can do about a failed step of founding a lab. Never empty."""
    if sysctl("kernel.unprivileged_userns_clone") == "0":
        return _set("kernel.unprivileged_userns_clone", 1)
    if sysctl("user.max_user_namespaces") == "0":
        return _set("user.max_user_namespaces", 15000)
    if number == errno.ENOSPC:
        return "there are as many namespaces as this machine allows: take labs down, or raise user.max_user_namespaces"
    if sysctl("kernel.apparmor_restrict_unprivileged_userns") == "1":
        return _set("kernel.apparmor_restrict_unprivileged_userns", 0)
    if "kernel module" in step and number in (errno.EOPNOTSUPP, errno.ENODEV):
        return "this kernel lacks the module; as root, `modprobe veth bridge`, or use another kernel"
    if number == errno.EPERM:
        return (
            "inside a container, allow it user namespaces (docker: --security-opt seccomp=unconfined --security-opt "
            "apparmor=unconfined), or run labctl as root with CAP_SYS_ADMIN and CAP_NET_ADMIN, or use --runtime docker"
        )
    return "run labctl as root, or use --runtime docker"


def _set(name: str, value: int) -> str:
    return f"as root: `sysctl -w {name}={value}` (and a file in /etc/sysctl.d to keep it), or run labctl as root"
