"""Nodes in network namespaces of their own, around one LAN, for tests of agents with real packets.

One forked process, the world, owns the LAN's bridge and forks the nodes. A node ends when its door closes, the world
when the test lets go of it, and the kernel removes every namespace and link with them: nothing has to be cleaned up.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from labctl.kernel.namespaces import Clone, map_own_user, unshare
from labctl.kernel.offloads import Offloads
from labctl.node.agent import run as run_agent

PR_SET_PDEATHSIG = 1

LAN = "eth0"


@dataclass(frozen=True)
class Place:
    """A node: its addresses on the LAN, whether that interface is split for a crypto map, networks of its own on `lo`.

    `main` is what runs there, given the node's socket.
    """

    name: str
    addresses: Sequence[str]
    split: bool = False
    inside: Sequence[str] = ()
    routes: Sequence[str] = ()
    main: Callable[[socket.socket], None] = run_agent


class World:
    """Use as a context manager: `with World(places) as world: world.door["gm1"]` is the socket to that agent."""

    def __init__(self, places: Sequence[Place]) -> None:
        self._places = places
        self.door: dict[str, socket.socket] = {}
        self.pid: dict[str, int] = {}

    def __enter__(self) -> World:
        pairs = {place.name: socket.socketpair() for place in self._places}
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._process = os.fork()
        if self._process == 0:
            self._control.close()
            for ours, _ in pairs.values():
                ours.close()
            _leave(lambda: _be_world(self._places, {name: pair[1] for name, pair in pairs.items()}, theirs))
        theirs.close()
        for name, (ours, other) in pairs.items():
            other.close()
            self.door[name] = ours
        answer = self._control.recv(65536).decode()
        if not answer.startswith("pids "):
            self.__exit__()
            raise RuntimeError(f"the world did not come to be: {answer or 'see its traceback above'}")
        self.pid = dict(zip(self.door, map(int, answer.split()[1:]), strict=True))
        return self

    def __exit__(self, *_: object) -> None:
        for door in self.door.values():
            with suppress(OSError):
                door.close()
        self._control.close()
        os.waitpid(self._process, 0)


def _leave(main: Callable[[], None]) -> None:
    """Run `main` in a forked process, and end it there."""
    status = 1
    try:
        main()
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _be_world(places: Sequence[Place], doors: dict[str, socket.socket], control: socket.socket) -> None:
    _die_with_parent()
    user, group = os.geteuid(), os.getegid()
    if user:
        unshare(Clone.USER | Clone.NETWORK)
        map_own_user(user, group)
    else:
        unshare(Clone.NETWORK)
    _quiet()
    _ip("link add lan type bridge", "link set lan up")
    pids = {}
    starters = {}
    for place in places:
        starter, ready = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        pid = os.fork()
        if pid == 0:
            starter.close()
            control.close()
            for name, door in doors.items():
                if name != place.name:
                    door.close()
            _leave(lambda place=place, ready=ready: _be_node(place, doors[place.name], ready))  # type: ignore[misc]
        ready.close()
        starter.recv(1)
        pids[place.name], starters[place.name] = pid, starter
    for number, place in enumerate(places):
        wire = f"{LAN}.wire" if place.split else LAN
        _ip(
            f"link add port{number} type veth peer name {wire} netns {pids[place.name]}",
            f"link set port{number} master lan up",
        )
    for number, (place, starter) in enumerate(zip(places, starters.values(), strict=True)):
        Offloads().turn_off(socket.socket(), f"port{number}")
        starter.send(b"links")
        if starter.recv(1) != b"1":
            raise RuntimeError(f"{place.name} could not be made")
    for door in doors.values():
        door.close()
    control.send(("pids " + " ".join(str(pids[place.name]) for place in places)).encode())
    for starter in starters.values():
        starter.close()
    control.recv(1)  # the test lets go
    for pid in pids.values():
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _be_node(place: Place, door: socket.socket, ready: socket.socket) -> None:
    _die_with_parent()
    unshare(Clone.NETWORK)
    _quiet()
    ready.send(b"1")
    ready.recv(16)
    commands = ["link set lo up", *(f"addr add {address} dev lo" for address in place.inside)]
    if place.split:
        commands += [
            f"link add {LAN} type veth peer name {LAN}.in",
            f"link set {LAN}.in arp off promisc on up",
            f"link set {LAN}.wire arp off promisc on up",
        ]
    commands += [f"addr add {address} dev {LAN}" for address in place.addresses]
    _ip(*commands)
    offloads = Offloads()
    with socket.socket() as ioctl:
        for name in (LAN, f"{LAN}.in", f"{LAN}.wire") if place.split else (LAN,):
            offloads.turn_off(ioctl, name)
    _ip(f"link set {LAN} up", *(f"route add {route}" for route in place.routes))
    ready.send(b"1")
    ready.close()
    place.main(door)


def _quiet() -> None:
    """No IPv6, so that captures hold what a test sends, and any port for anybody."""
    with suppress(FileNotFoundError):
        Path("/proc/sys/net/ipv6/conf/all/disable_ipv6").write_text("1")
        Path("/proc/sys/net/ipv6/conf/default/disable_ipv6").write_text("1")


def _ip(*commands: str) -> None:
    if commands:
        subprocess.run(["ip", "-batch", "-"], input="\n".join(commands), text=True, check=True)
