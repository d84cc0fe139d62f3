"""Rings and plain sockets on a veth pair, in a namespace of their own, without any privilege outside it."""

from __future__ import annotations

import fcntl
import json
import os
import select
import socket
import struct
import subprocess
import time
import traceback
from collections.abc import Callable
from typing import Any

import pytest

from labctl.dataplane import receive
from labctl.dataplane.memory import stride_for
from labctl.dataplane.packet_socket import PacketSocket
from labctl.dataplane.receive import ReceiveBuffer, Receiver, ReceiveRing
from labctl.dataplane.transmit import Transmitter
from labctl.kernel.namespaces import Clone, map_own_user, unshare

pytestmark = pytest.mark.lab

MTU, BATCH = 1500, 64
PATIENCE_SECONDS = 20.0
SIOCGIFFLAGS, IFF_RUNNING = 0x8913, 0x40
KINDS = pytest.mark.parametrize("ring", [True, False], ids=["ring", "plain"])
MACS = bytes.fromhex("020000000002020000000001")


def in_namespace(main: Callable[[], Any]) -> Any:
    """What `main` returns in a new network namespace, where `here` and `there` are a veth pair that is up."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            user, group = os.geteuid(), os.getegid()
            unshare(Clone.USER | Clone.NETWORK)
            map_own_user(user, group)
            ip("link add here type veth peer name there")
            links_up()
            os.write(writing, json.dumps(main()).encode())
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    os.close(writing)
    with os.fdopen(reading, "rb") as answer:
        text = answer.read()
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0, "see the traceback above"
    return json.loads(text)


def ip(*commands: str) -> None:
    subprocess.run(["ip", "-batch", "-"], input="\n".join(commands), text=True, check=True)


def links_up() -> None:
    """Set both up, and wait until they are: what is sent to a link before has nowhere to go."""
    ip("link set here up", "link set there up")
    deadline = time.monotonic() + PATIENCE_SECONDS
    with socket.socket() as ioctl:
        for name in ("here", "there"):
            request = struct.pack("16sH14x", name.encode(), 0)
            while not struct.unpack("16sH14x", fcntl.ioctl(ioctl, SIOCGIFFLAGS, request))[1] & IFF_RUNNING:
                assert time.monotonic() < deadline, f"{name} does not come up"
                time.sleep(0.001)


def opened(name: str, *, ring: bool) -> tuple[PacketSocket, Receiver]:
    found: list[Receiver] = []

    def prepare(packets: PacketSocket) -> None:
        found.append(ReceiveRing(packets, MTU) if ring else ReceiveBuffer(packets, MTU, BATCH))

    return PacketSocket(name, promiscuous=True, prepare=prepare), found[0]


def taken(receiver: Receiver, expected: int) -> list[bytes]:
    """Our frames among all that come: the kernel says hello to its neighbours by itself. A busy one takes its time."""
    frames: list[bytes] = []
    deadline = time.monotonic() + PATIENCE_SECONDS
    while len(frames) < expected and time.monotonic() < deadline:
        buffer, batch = receiver.take(BATCH)
        frames += [bytes(buffer[start : start + size]) for start, size in batch]
        receiver.release()
        frames = [frame for frame in frames if frame[:12] == MACS]
        if not batch:
            time.sleep(0.001)
    return frames


def sent(sender: Transmitter, frames: list[bytes]) -> int:
    lost = 0
    for begin in range(0, len(frames), BATCH):
        batch = frames[begin : begin + BATCH]
        for number, frame in enumerate(batch):
            assert sender.put(number, frame[:14], frame[14:])
        lost += sender.send(len(batch))
    return lost


def numbered(count: int) -> list[bytes]:
    return [MACS + b"\x88\xb5" + n.to_bytes(4, "big") * (1 + n % 370) for n in range(count)]


@KINDS
def test_batches_of_frames_arrive_whole_and_in_their_order(ring: bool) -> None:
    def main() -> list[Any]:
        _, receiver = opened("there", ring=ring)
        packets, _ = opened("here", ring=False)
        sender, frames, arrived = Transmitter(packets, MTU, BATCH), numbered(3000), []
        lost = 0
        for begin in range(0, len(frames), 100):
            lost += sent(sender, frames[begin : begin + 100])
            arrived += taken(receiver, 100)
        return [lost, receiver.oversize, arrived == frames]

    assert in_namespace(main) == [0, 0, True]


@KINDS
def test_a_vlan_tag_is_still_in_its_frame(ring: bool) -> None:
    def main() -> list[str]:
        _, receiver = opened("there", ring=ring)
        packets, _ = opened("here", ring=False)
        frames = [MACS + bytes.fromhex(tag) + b"tagged" * 10 for tag in ("8100002a88b5", "88a8000788b5")]
        sent(Transmitter(packets, MTU, BATCH), frames)
        return [frame.hex() for frame in taken(receiver, 2)]

    assert in_namespace(main) == [
        (MACS + bytes.fromhex(tag) + b"tagged" * 10).hex() for tag in ("8100002a88b5", "88a8000788b5")
    ]


@KINDS
def test_a_frame_that_does_not_fit_is_counted_and_the_next_one_comes(ring: bool) -> None:
    def main() -> list[Any]:
        _, receiver = opened("there", ring=ring)
        ip("link set here mtu 9000", "link set there mtu 9000")
        packets, _ = opened("here", ring=False)
        frames = [MACS + b"\x88\xb5" + b"x" * size for size in (100, 5000, 200)]
        sent(Transmitter(packets, 9000, BATCH), frames)
        return [[len(frame) for frame in taken(receiver, 2)], receiver.oversize]

    assert in_namespace(main) == [[114, 214], 1]


def test_a_ring_that_runs_over_counts_what_it_had_no_room_for() -> None:
    def main() -> list[Any]:
        listening, receiver = opened("there", ring=True)
        packets, _ = opened("here", ring=False)
        sent(Transmitter(packets, MTU, BATCH), numbered(3000))
        deadline = time.monotonic() + PATIENCE_SECONDS
        while listening.overruns() < 3000 - 1300 and time.monotonic() < deadline:
            time.sleep(0.001)  # until the kernel has delivered all
        held = taken(receiver, receive.RING_OCTETS // stride_for(MTU) - 10)
        while True:
            buffer, batch = receiver.take(BATCH)
            if not batch:
                break
            held += [bytes(buffer[start : start + size]) for start, size in batch]
            receiver.release()
        held = [frame for frame in held if frame[:12] == MACS]
        return [held == numbered(3000)[: len(held)], len(held), listening.overruns(), listening.overruns()]

    in_order, arrived, overruns, again = in_namespace(main)
    assert in_order
    assert overruns == again > 0
    assert arrived >= receive.RING_OCTETS // stride_for(MTU) - 10
    assert arrived + overruns >= 3000


@KINDS
def test_an_interface_that_goes_down_and_comes_back_costs_frames_and_nothing_else(ring: bool) -> None:
    def main() -> list[Any]:
        listening, receiver = opened("there", ring=ring)
        packets, _ = opened("here", ring=False)
        sender = Transmitter(packets, MTU, BATCH)
        poll = select.epoll()
        poll.register(listening.fileno(), select.EPOLLIN)
        ip("link set there down", "link set here down")
        lost = sent(sender, numbered(5))
        told = bool(poll.poll(0))
        listening.clear_error()
        while receiver.take(BATCH)[1]:
            receiver.release()
        told_again = bool(poll.poll(0))
        links_up()
        packets.clear_error()
        return [lost, told, told_again, sent(sender, numbered(7)), taken(receiver, 7) == numbered(7)]

    assert in_namespace(main) == [5, True, False, 0, True]


def test_where_the_kernel_gives_no_ring_frames_come_one_by_one_and_the_log_says_so() -> None:
    from labctl.dataplane.sides import Side

    def main() -> list[Any]:
        receive.RING_OCTETS = 1 << 40
        side = Side("there", is_wire=True)
        packets, _ = opened("here", ring=False)
        sent(Transmitter(packets, MTU, BATCH), numbered(5))
        return [side.remark.partition(" (")[0], taken(side.receiver, 5) == numbered(5)]

    assert in_namespace(main) == ["there has no receive ring", True]
