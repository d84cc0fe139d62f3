"""Sysctls and offloads: what a node's stack is told, and what is then on the wire."""

from __future__ import annotations

import socket
import struct
from ipaddress import IPv4Interface, IPv6Interface
from pathlib import Path

import pytest
from inside_namespace import Inside

from labctl.configuration import Interface, NodeConfiguration, NodeKind
from labctl.kernel import addresses, links
from labctl.kernel.links import VethEnd
from labctl.kernel.namespaces import Clone, in_network_namespace, open_network_namespace, unshare
from labctl.kernel.netlink import RouteSocket
from labctl.kernel.offloads import Offloads
from labctl.kernel.sysctls import node_sysctls, write_sysctls

FOUR = Interface("eth0", "02:00:00:00:00:01", (IPv4Interface("10.0.0.1/24"),))
SIX = Interface("eth0", "02:00:00:00:00:01", (IPv6Interface("2001:db8::1/64"),))


@pytest.mark.parametrize("kind", [kind for kind in NodeKind if kind is not NodeKind.SWITCH])
def test_only_routers_forward(kind: NodeKind) -> None:
    settings = node_sysctls(NodeConfiguration("n", kind, (FOUR,)))
    assert settings["ipv4/ip_forward"] == ("1" if kind.forwards else "0")
    assert settings["ipv4/conf/all/send_redirects"] == settings["ipv4/conf/default/send_redirects"] == "0"


def test_ip_forward_is_written_first_because_it_resets_the_rest() -> None:
    assert next(iter(node_sysctls(NodeConfiguration("n", NodeKind.CE, (FOUR,))))) == "ipv4/ip_forward"


def test_ipv6_is_off_where_nothing_is_addressed_with_it() -> None:
    assert node_sysctls(NodeConfiguration("n", NodeKind.CE, (FOUR,)))["ipv6/conf/all/disable_ipv6"] == "1"
    settings = node_sysctls(NodeConfiguration("n", NodeKind.CE, (SIX,)))
    assert settings["ipv6/conf/all/disable_ipv6"] == "0"
    assert settings["ipv6/conf/default/accept_ra"] == "0"


@pytest.mark.lab
@pytest.mark.parametrize("interface", [FOUR, SIX], ids=["ipv4", "ipv6"])
def test_every_setting_reads_back_and_new_links_are_born_with_them(inside: Inside, interface: Interface) -> None:
    settings = node_sysctls(NodeConfiguration("n", NodeKind.CE, (interface,)))

    def body() -> tuple[dict[str, str], str]:
        write_sysctls(settings)
        found = {name: Path("/proc/sys/net", name).read_text().split() for name in settings}
        here = open_network_namespace()
        with RouteSocket() as route:
            pair = (VethEnd("eth0", "02:00:00:00:00:01", here), VethEnd("eth1", "02:00:00:00:00:02", here))
            route.apply([links.veth(*pair)])
        born = Path("/proc/sys/net/ipv4/conf/eth0/send_redirects").read_text().strip()
        return {name: " ".join(value) for name, value in found.items()}, born

    found, born = inside(body)
    assert found == settings
    assert born == "0"


@pytest.mark.lab
def test_a_setting_that_the_kernel_refuses_is_named(inside: Inside) -> None:
    def body() -> str:
        try:
            write_sysctls({"ipv4/ip_forward": "maybe"})
        except OSError as error:
            return str(error)
        return ""

    assert "net/ipv4/ip_forward" in inside(body)


def internet_checksum(data: bytes) -> int:
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return int(total)


@pytest.mark.lab
@pytest.mark.parametrize("offloads", [False, True], ids=["offloads-on", "offloads-off"])
def test_frames_on_the_wire_are_checksummed_and_no_longer_than_the_mtu(inside: Inside, offloads: bool) -> None:
    """The first case is the proof that the second proves something: by default veth does neither."""

    def body() -> list[bytes]:
        here = open_network_namespace()
        unshare(Clone.NETWORK)
        there = open_network_namespace()
        for place, name, text in ((here, "eth0", "10.0.0.1/24"), (there, "eth1", "10.0.0.2/24")):
            with in_network_namespace(place), RouteSocket() as route:
                if name == "eth0":
                    one = VethEnd("eth0", "02:00:00:00:00:01", here)
                    route.apply([links.veth(one, VethEnd("eth1", "02:00:00:00:00:02", there))])
                if offloads:
                    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ioctl_socket:
                        Offloads().turn_off(ioctl_socket, name)
                index = links.list_links(route)[name].index
                route.apply([links.set_up(name), addresses.address(index, name, IPv4Interface(text))])
        with in_network_namespace(there):
            tap = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0800))
            tap.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
            tap.bind(("eth1", 0x0800))
            server = socket.create_server(("10.0.0.2", 80))
        with in_network_namespace(here):
            client = socket.socket()
        client.settimeout(10)
        client.connect(("10.0.0.2", 80))
        peer, _ = server.accept()
        client.sendall(bytes(60_000))
        received = 0
        while received < 60_000:
            received += len(peer.recv(1 << 16))
        tap.setblocking(False)
        frames: list[bytes] = []
        while True:
            try:
                frame, address = tap.recvfrom(1 << 17)
            except BlockingIOError:
                return frames
            if address[2] == 0:  # PACKET_HOST: what came over the wire, not what we sent
                frames.append(frame)

    good, longest = 0, 0
    frames: list[bytes] = inside(body)
    for frame in frames:
        packet = frame[14 : 14 + struct.unpack_from("!H", frame, 16)[0]]
        pseudo = packet[12:20] + struct.pack("!BBH", 0, packet[9], len(packet) - 20)
        good += internet_checksum(pseudo + packet[20:]) == 0xFFFF
        longest = max(longest, len(packet))
    assert frames
    if offloads:
        assert (good, longest) == (len(frames), 1500)
    else:
        assert good < len(frames)
        assert longest > 1500
