"""`interface`: addresses of the links that end at a node, and what is applied to them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Interface, IPv6Interface

from labctl.configuration import Interface, MssAdjustment, NodeConfiguration
from labctl.ios.grammar.arguments import Address, Integer, InterfaceName, Ipv6Prefix, Mask, Text, Word, ios_interface
from labctl.ios.grammar.command import Command
from labctl.ios.grammar.language import GLOBAL, Tree
from labctl.ios.meaning import Notes, Part
from labctl.ios.running import Section

INTERFACE_MODE = "interface"

MTU = 1500

INTERFACE = Command(
    "interface {name}",
    {"name": InterfaceName()},
    key=("name",),
    mode=INTERFACE_MODE,
    sort=True,
    helps={"interface": "Select an interface to configure"},
)
DESCRIPTION = Command(
    "description {text}",
    {"text": Text("Up to 240 characters describing this interface")},
    helps={"description": "Interface specific description"},
)
_IP = {"ip": "Interface Internet Protocol config commands"}
ADDRESS = Command(
    "ip address {address} {mask}",
    {"address": Address("IP address"), "mask": Mask("IP subnet mask")},
    helps={**_IP, "address": "Set the IP address of an interface"},
)
SECONDARY = Command(
    "ip address {address} {mask} secondary",
    {"address": Address("IP address"), "mask": Mask("IP subnet mask")},
    key=("address",),
    helps={**_IP, "secondary": "Make this IP address a secondary address"},
)
_IPV6 = {"ipv6": "IPv6 interface subcommands"}
IPV6_ADDRESS = Command(
    "ipv6 address {address}",
    {"address": Ipv6Prefix("IPv6 address with the length of its prefix", host_bits=True)},
    key=("address",),
    helps={**_IPV6, "address": "Configure IPv6 address on interface"},
)
INTERFACE_MTU = Command(
    "mtu {octets}",
    {"octets": Integer(68, 9216, "MTU size in bytes")},
    default={"octets": MTU},
    helps={"mtu": "Set the interface Maximum Transmission Unit (MTU)"},
)
CRYPTO_MAP = Command(
    "crypto map {name}",
    {"name": Word("Crypto Map tag")},
    helps={"crypto": "Encryption/Decryption commands", "map": "Assign a Crypto Map"},
)
ADJUST_MSS = Command(
    "ip tcp adjust-mss {octets}",
    {"octets": Integer(500, 1460, "Maximum segment size in bytes")},
    helps={**_IP, "tcp": "TCP interface commands", "adjust-mss": "Adjust the mss of transit packets"},
)
IPV6_CRYPTO_MAP = Command(
    "ipv6 crypto map {name}",
    {"name": Word("Crypto Map tag")},
    helps={**_IPV6, "crypto": "Encryption/Decryption commands", "map": "Assign a Crypto Map"},
)
SHUTDOWN = Command("shutdown", helps={"shutdown": "Shutdown the selected interface"}, unsupported=True)

TREE = Tree(
    {
        GLOBAL: (INTERFACE,),
        INTERFACE_MODE: (
            DESCRIPTION,
            ADDRESS,
            SECONDARY,
            INTERFACE_MTU,
            IPV6_ADDRESS,
            ADJUST_MSS,
            CRYPTO_MAP,
            IPV6_CRYPTO_MAP,
            SHUTDOWN,
        ),
    },
    {INTERFACE_MODE: "config-if"},
)


def write(node: NodeConfiguration) -> Iterator[str]:
    """Its lines; the crypto map's come with it."""
    for interface in node.interfaces:
        yield f"interface {ios_interface(interface.name)}"
        yield f" mtu {interface.mtu}"
        addresses = [item for item in interface.addresses if isinstance(item, IPv4Interface)]
        for number, item in enumerate(addresses):
            yield f" ip address {item.ip} {item.netmask}{' secondary' if number else ''}"
        for own in interface.addresses:
            if isinstance(own, IPv6Interface):
                yield f" ipv6 address {own}"
        for adjustment in node.adjust_mss:
            if adjustment.interface == interface.name:
                yield f" ip tcp adjust-mss {adjustment.size}"


def read(root: Section, node: NodeConfiguration, notes: Notes) -> NodeConfiguration:
    """Addresses of the interfaces that the node has."""
    known = {interface.name for interface in node.interfaces}
    for said in root.all(INTERFACE):
        if said.values["name"] not in known:
            notes.append(f"{said.text}: no link of the lab ends there")
    return replace(
        node,
        interfaces=tuple(_interface(root, interface) for interface in node.interfaces),
        adjust_mss=tuple(_adjustments(root, node)),
    )


PART = Part(TREE, write, read)


def _adjustments(root: Section, node: NodeConfiguration) -> Iterator[MssAdjustment]:
    for interface in node.interfaces:
        section = root.section(INTERFACE, name=interface.name)
        said = None if section is None else section.one(ADJUST_MSS)
        if said is not None:
            yield MssAdjustment(interface.name, said["octets"])


def _interface(root: Section, interface: Interface) -> Interface:
    section = root.section(INTERFACE, name=interface.name)
    if section is None:
        return replace(interface, addresses=(), mtu=MTU)
    said = [values] if (values := section.one(ADDRESS)) is not None else []
    said += [item.values for item in section.all(SECONDARY)]
    addresses = tuple(IPv4Interface((item["address"], item["mask"])) for item in said)
    mtu = section.one(INTERFACE_MTU)
    ipv6 = tuple(item.values["address"] for item in section.all(IPV6_ADDRESS))
    return replace(interface, addresses=addresses + ipv6, mtu=MTU if mtu is None else mtu["octets"])
