"""Namespaces and mounts by their system calls, which Python has only from 3.12 on (os.unshare, os.setns).

Facts: unshare(2), setns(2), mount(2), user_namespaces(7).
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntFlag
from pathlib import Path


class Clone(IntFlag):
    """Kinds of namespaces: CLONE_NEW* of linux/sched.h."""

    MOUNT = 0x00020000
    UTS = 0x04000000
    IPC = 0x08000000
    USER = 0x10000000
    PID = 0x20000000
    NETWORK = 0x40000000


class Mount(IntFlag):
    """MS_* of linux/mount.h."""

    NONE = 0
    READ_ONLY = 1
    NO_SUID = 2
    NO_DEV = 4
    NO_EXEC = 8
    REMOUNT = 32
    BIND = 4096
    RECURSIVE = 16384
    PRIVATE = 1 << 18


# capabilities(7): what a lab needs of the one who starts it, unless a user namespace gives it.
CAP_NET_ADMIN, CAP_NET_RAW, CAP_SYS_ADMIN = 12, 13, 21

# close_range(2) takes the whole range in one call, however few of it are open.
HIGHEST_DESCRIPTOR = 1 << 20

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mount.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p)


def _check(result: int, what: str) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def unshare(kinds: Clone) -> None:
    """Leave namespaces of these kinds for new ones. Raises OSError. USER needs a single-threaded process."""
    _check(_libc.unshare(int(kinds)), f"unshare({_names(kinds)})")


def setns(descriptor: int, kind: Clone) -> None:
    """Move this thread into the namespace that `descriptor` refers to. Raises OSError."""
    _check(_libc.setns(descriptor, int(kind)), f"setns({_names(kind)})")


def mount(source: str, target: str | Path, filesystem: str = "", flags: Mount = Mount.NONE, options: str = "") -> None:
    """mount(2). Raises OSError, which names the target."""
    result = _libc.mount(
        source.encode(), os.fsencode(target), filesystem.encode() or None, int(flags), options.encode() or None
    )
    _check(result, f"mount {filesystem or source} on {target}")


def make_mounts_private() -> None:
    """From here on no mount travels between this mount namespace and any other."""
    mount("none", "/", flags=Mount.RECURSIVE | Mount.PRIVATE)


def map_own_user(user: int, group: int) -> None:
    """In a new user namespace: our user and group become 0 there (user_namespaces(7), one line, ours alone)."""
    # A process without privilege may map its group only after it gave up setgroups(2) for good.
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"0 {user} 1\n")
    Path("/proc/self/gid_map").write_text(f"0 {group} 1\n")


def capabilities() -> int:
    """The effective capabilities of this process, as a bit mask."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return int(line.split()[1], 16)
    return 0


def has_capability(number: int) -> bool:
    """True if this process has the capability in its own user namespace."""
    return bool(capabilities() >> number & 1)


def open_network_namespace(pid: int | str = "thread-self", proc: str = "/proc") -> int:
    """A descriptor of a process's network namespace, our own thread's by default. The caller closes it."""
    return os.open(f"{proc}/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)


@contextmanager
def in_network_namespace(descriptor: int) -> Iterator[None]:
    """Run a block with this thread inside another network namespace. A socket stays where it was opened."""
    home = open_network_namespace()
    try:
        setns(descriptor, Clone.NETWORK)
        try:
            yield
        finally:
            setns(home, Clone.NETWORK)
    finally:
        os.close(home)


def close_all_but(*keep: int) -> None:
    """Close every descriptor of this process except `keep`: nothing of the supervisor leaks into a node."""
    previous = -1
    for descriptor in sorted(keep):
        # An empty range from 0 would reach the kernel as "up to the last".
        if descriptor > previous + 1:
            os.closerange(previous + 1, descriptor)
        previous = descriptor
    os.closerange(previous + 1, HIGHEST_DESCRIPTOR)


def _names(kinds: Clone) -> str:
    return "+".join(kind.name.lower() for kind in Clone if kind & kinds and kind.name)
