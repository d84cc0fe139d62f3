"""Our netlink says to the kernel what was meant: read back by pyroute2 and iproute2, which we did not write."""

from __future__ import annotations

import errno
import json
import os
import subprocess
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Interface
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from inside_namespace import Inside

from labctl.kernel import addresses, links
from labctl.kernel.links import VethEnd
from labctl.kernel.namespaces import Clone, in_network_namespace, open_network_namespace, unshare
from labctl.kernel.netlink import NetlinkError, RouteSocket, attribute, attributes


def ip(*arguments: str) -> Any:
    done = subprocess.run(["ip", "-j", "-d", *arguments], capture_output=True, text=True, check=True)
    return json.loads(done.stdout or "[]")


@given(st.lists(st.tuples(st.integers(0, 0x3FFF), st.binary(max_size=40))))
def test_attributes_read_back_as_they_were_written(items: list[tuple[int, bytes]]) -> None:
    packed = b"".join(attribute(kind, value) for kind, value in items)
    assert list(attributes(packed)) == items


@given(st.binary(max_size=200))
def test_attributes_of_any_octets_stay_within_them(data: bytes) -> None:
    assert sum(4 + len(value) for _, value in attributes(data)) <= len(data)


@pytest.mark.lab
def test_both_ends_of_a_veth_are_born_in_their_namespaces(inside: Inside) -> None:
    def body() -> tuple[Any, Any, Any]:
        home = open_network_namespace()
        places = []
        for _ in range(2):
            unshare(Clone.NETWORK)
            places.append(open_network_namespace())
        with in_network_namespace(home), RouteSocket() as route:
            one = VethEnd("eth0", "02:00:00:00:00:01", places[0], 1400)
            route.apply([links.veth(one, VethEnd("eth7", "02:00:00:00:00:02", places[1], 9000))])
            at_home = ip("link")
        found = [at_home]
        for place in places:
            with in_network_namespace(place):
                found.append(ip("link"))
        return found[0], found[1], found[2]

    home, one, other = inside(body)
    assert [link["ifname"] for link in home if link.get("linkinfo", {}).get("info_kind") == "veth"] == []
    seen = [(link["ifname"], link["address"], link["mtu"]) for link in (*one, *other) if link["ifname"][:3] == "eth"]
    assert seen == [("eth0", "02:00:00:00:00:01", 1400), ("eth7", "02:00:00:00:00:02", 9000)]


@pytest.mark.lab
def test_addresses_and_routes_are_what_was_planned(inside: Inside) -> None:
    def body() -> tuple[Any, Any, Any]:
        here = open_network_namespace()
        with RouteSocket() as route:
            pair = (VethEnd("eth0", "02:00:00:00:00:01", here), VethEnd("eth1", "02:00:00:00:00:02", here))
            route.apply([links.veth(*pair), links.set_up("eth0"), links.set_up("eth1")])
            index = links.list_links(route)["eth0"].index
            given = ("10.1.0.1/24", "10.2.0.0/31")
            route.apply([addresses.address(index, "eth0", IPv4Interface(text)) for text in given])
            route.apply([addresses.address(index, "eth0", IPv6Interface("2001:db8::1/64"))])
            for next_hop in ("10.1.0.9", "10.1.0.8"):  # the second replaces the first
                route.apply([addresses.route(IPv4Network("10.9.0.0/16"), IPv4Address(next_hop), index)])
            route.apply([addresses.route(IPv4Network("0.0.0.0/0"), IPv4Address("10.2.0.1"), index)])
            return ip("addr", "show", "eth0"), ip("route"), ip("-6", "addr", "show", "eth0")

    shown, routes, six = inside(body)
    assert [(item["local"], item["prefixlen"], item.get("broadcast")) for item in shown[0]["addr_info"][:2]] == [
        ("10.1.0.1", 24, "10.1.0.255"),
        ("10.2.0.0", 31, None),
    ]
    ours = {item["dst"]: (item["gateway"], item["protocol"]) for item in routes if "gateway" in item}
    assert ours == {"10.9.0.0/16": ("10.1.0.8", "static"), "default": ("10.2.0.1", "static")}
    planned = [item for item in six[0]["addr_info"] if item["local"] == "2001:db8::1"]
    assert planned
    assert not planned[0].get("tentative")


@pytest.mark.lab
def test_a_bridge_is_a_plain_lan(inside: Inside) -> None:
    def body() -> Any:
        with RouteSocket() as route:
            route.apply([links.bridge("br1", "lan"), links.alias("br1", "lan"), links.set_up("br1")])
        return ip("link", "show", "br1")[0]

    shown = inside(body)
    data = shown["linkinfo"]["info_data"]
    assert (data["stp_state"], data["mcast_snooping"], data["forward_delay"]) == (0, 0, 0)
    assert int(data["group_fwd_mask"], 16) == 0xFFF8
    assert shown["ifalias"] == "lan"


@pytest.mark.lab
def test_a_refused_request_is_named_and_those_around_it_are_done(inside: Inside) -> None:
    def body() -> tuple[int, str, list[str]]:
        with RouteSocket() as route:
            wanted = [links.bridge(f"br{number}", f"lan{number}") for number in (1, 2, 2, 3)]
            try:
                route.apply(wanted)
            except NetlinkError as error:
                return error.errno or 0, str(error), sorted(links.list_links(route))
        return 0, "", []

    number, text, names = inside(body)
    assert number == errno.EEXIST
    assert text.startswith("create the bridge br2 for the switch lan2: File exists")
    assert {"br1", "br2", "br3"} <= set(names)


@pytest.mark.lab
def test_a_batch_may_be_longer_than_a_datagram(inside: Inside) -> None:
    def body() -> int:
        with RouteSocket() as route:
            route.apply([links.set_up("lo")])
            index = links.list_links(route)["lo"].index
            wanted = [IPv4Interface(f"127.1.{number // 200}.{number % 200 + 1}/32") for number in range(1000)]
            route.apply([addresses.address(index, "lo", item) for item in wanted])
        return len(ip("addr", "show", "lo")[0]["addr_info"])

    assert inside(body) >= 1000


@pytest.mark.lab
def test_a_link_moves_with_a_new_name_and_mac_and_arrives_down(inside: Inside) -> None:
    def body() -> Any:
        here = open_network_namespace()
        unshare(Clone.NETWORK)
        there = open_network_namespace()
        with in_network_namespace(here), RouteSocket() as route:
            pair = (VethEnd("one", "02:00:00:00:00:01", here), VethEnd("other", "02:00:00:00:00:02", here))
            route.apply([links.veth(*pair), links.set_up("one", flags=links.IFF_NOARP | links.IFF_PROMISC)])
            index = links.list_links(route)["one"].index
            route.apply([links.move(index, "one", there, "eth0", "02:00:00:00:00:03")])
        moved = ip("link", "show", "eth0")[0]
        os.close(there)
        return moved

    moved = inside(body)
    assert moved["address"] == "02:00:00:00:00:03"
    assert {"UP", "NOARP", "PROMISC"} & set(moved["flags"]) == set()
