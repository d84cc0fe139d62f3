"""`ce1:eth1 172.16.9.2/30 -- pe1`: who is wired to whom, and through which interface.

Interfaces are `eth0`, `eth1`, ... of each node in the order of the links, ports of a switch `port0`, `port1`, ...; a
name that the user gives is left out of the counting.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Network

from labctl.configuration import Impairment, NodeKind
from labctl.configuration.words import did_you_mean
from labctl.topology.impairments import read_impairments
from labctl.topology.model import Node
from labctl.topology.problems import Position, Problems
from labctl.topology.raw_link import RawLink
from labctl.topology.shape import Shaped

# The agent's halves of a crypto interface are NAME.in and NAME.wire, which leaves ten of IFNAMSIZ's fifteen octets.
_INTERFACE = re.compile(r"[a-z][a-z0-9]{0,9}")
_RESERVED_INTERFACES = re.compile(r"lo|all|default|port[0-9]*")
_FORM = "a link is 'NODE -- NODE', and each end NODE[:INTERFACE] [ADDRESS/LENGTH]"

_PROVIDER = (NodeKind.PE, NodeKind.P)

# RFC 4291 2.5.4, RFC 4193 3.1.
_ROUTED_IPV6 = (IPv6Network("2000::/3"), IPv6Network("fc00::/7"))


@dataclass(frozen=True, slots=True)
class DraftEnd:
    """An end as the user wrote it; `address` without a length is an IPv4Address."""

    node: Node
    interface: str
    address: IPv4Interface | IPv4Address | None
    at: Position
    address_at: Position


@dataclass(frozen=True, slots=True)
class DraftLink:
    """A link whose addresses are still to be planned."""

    ends: tuple[DraftEnd, DraftEnd]
    mtu: int
    subnet: IPv4Network | None
    at: Position
    subnet_at: Position
    impairments: tuple[Impairment, ...] = ()
    subnet6: tuple[IPv6Network, Position] | None = None


def read_links(shaped: Shaped, nodes: dict[str, Node], problems: Problems) -> list[DraftLink]:
    """Every link that can be read, with its interfaces named; the others are noted in `problems`."""
    drafts: list[DraftLink] = []
    for index, raw in enumerate(shaped.raw.links):
        at = shaped.at("links", index)
        reader = _LinkReader(shaped, nodes, problems)
        if isinstance(raw, RawLink):
            path = ("links", index, "ends")
            ends = [reader.end(text, 0, (*path, place)) for place, text in enumerate(raw.ends)]
            mtu, subnet_text, subnet6_text = raw.mtu, raw.subnet, raw.subnet6
            rules = read_impairments(shaped, index, [end.node.name for end in ends if end is not None], problems)
        else:
            ends, mtu, subnet_text, rules = reader.line(raw, ("links", index)), 1500, None, ()
            subnet6_text = None
        subnet_at = shaped.at("links", index, "subnet")
        subnet = read_subnet(subnet_text, subnet_at, problems) if subnet_text is not None else None
        subnet6 = read_subnet6(subnet6_text, shaped.at("links", index, "subnet6"), problems)
        first, second = (*ends, None, None)[:2]
        if first is None or second is None:
            continue
        draft = DraftLink((first, second), mtu, subnet, at, subnet_at, rules, subnet6)
        if _may_be_wired(draft, problems):
            drafts.append(draft)
    _refuse_doubled(drafts, problems)
    return _numbered(drafts)


def read_subnet(text: str, at: Position, problems: Problems) -> IPv4Network | None:
    """A prefix that hosts can live in."""
    hint = "a subnet is A.B.C.D/LENGTH, for example 10.7.0.0/24"
    if ":" in text:
        problems.add(at, f"{text!r} is IPv6", "every link has IPv4; its IPv6 prefix is 'subnet6'")
        return None
    try:
        network = IPv4Network(text, strict=False)
    except ValueError:
        problems.add(at, f"{text!r} is not a subnet", hint)
        return None
    if "/" not in text:
        problems.add(at, f"{text!r} has no prefix length", hint)
        return None
    if str(network) != text:
        problems.add(at, f"{text!r} is an address in a subnet, not the subnet", f"did you mean {str(network)!r}?")
        return None
    if network.prefixlen > 31 or network.prefixlen < 8:
        problems.add(at, f"{text!r} is no subnet for a link", "from /8 to /30, or /31 between two routers")
        return None
    return network if is_unicast(network, text, at, problems) else None


def read_subnet6(text: str | None, at: Position, problems: Problems) -> tuple[IPv6Network, Position] | None:
    """The /64 that a link or switch was given (RFC 4291 2.5.4)."""
    if text is None:
        return None
    hint = "an IPv6 subnet is X:X:X:X::/64, for example 2001:db8:7:1::/64"
    try:
        network = IPv6Network(text, strict=False)
    except ValueError:
        problems.add(at, f"{text!r} is not an IPv6 subnet", hint)
        return None
    if network.prefixlen != 64:
        problems.add(at, f"{text!r} is no IPv6 subnet for a link", hint)
    elif text.partition("/")[0] != str(network.network_address):
        problems.add(at, f"{text!r} is not written as a subnet is", f"did you mean {str(network)!r}?")
    elif not any(network.subnet_of(routed) for routed in _ROUTED_IPV6):
        problems.add(at, f"{text!r} is neither global unicast (2000::/3) nor unique local (fc00::/7)", hint)
    else:
        return network, at
    return None


def is_unicast(network: IPv4Network, text: str, at: Position, problems: Problems) -> bool:
    """True for what a link or a node may have; what it is otherwise is noted."""
    for special, name in (
        ("0.0.0.0/8", "'this network' (RFC 1122)"),
        ("127.0.0.0/8", "loopback (RFC 1122)"),
        ("169.254.0.0/16", "link-local (RFC 3927)"),
        ("224.0.0.0/3", "multicast or reserved (RFC 5771)"),
    ):
        if network.overlaps(IPv4Network(special)):
            problems.add(at, f"{text!r} is {name}", "take a private one, for example 10.7.0.0/24")
            return False
    return True


class _LinkReader:
    """Reads ends of links against the nodes there are."""

    def __init__(self, shaped: Shaped, nodes: dict[str, Node], problems: Problems) -> None:
        self._shaped = shaped
        self._nodes = nodes
        self._problems = problems

    def line(self, text: str, path: tuple[str | int, ...]) -> list[DraftEnd | None]:
        """Both ends of `NODE -- NODE`."""
        cuts = [0, *(place for match in re.finditer(r"(?<=\s)--(?=\s)", text) for place in match.span()), len(text)]
        parts = list(zip(cuts[::2], cuts[1::2], strict=True))
        if len(parts) == 2:
            return [self.end(text[start:stop], start, path) for start, stop in parts]
        found = "has one end" if len(parts) < 2 else f"has {len(parts)} ends"
        hint = _FORM
        if len(parts) < 2 and (joined := re.fullmatch(r"\s*(\S+?)\s*-+>?\s*(\S+)\s*", text)) is not None:
            hint = f"did you mean '{joined[1]} -- {joined[2]}'?"
        self._problems.add(self._shaped.at(*path), f"link {text.strip()!r} {found}", hint)
        return []

    def end(self, text: str, offset: int, path: tuple[str | int, ...]) -> DraftEnd | None:
        """One end, written at `offset` of the text at `path`."""
        words = [(match.group(), match.start() + offset) for match in re.finditer(r"\S+", text)]
        node_words = [item for item in words if not _is_address(item[0])]
        address_words = [item for item in words if _is_address(item[0])]
        at = self._shaped.inside(words[0][1] if words else offset, *path)
        if len(node_words) != 1 or len(address_words) > 1:
            self._problems.add(at, f"{text.strip()!r} is not an end of a link", _FORM)
            return None
        word, start = node_words[0]
        at = self._shaped.inside(start, *path)
        name, colon, interface = word.partition(":")
        node = self._node(name, at)
        address: IPv4Interface | IPv4Address | None = None
        address_at = at
        if address_words:
            address_at = self._shaped.inside(address_words[0][1], *path)
            address = self._address(address_words[0][0], address_at)
            if address is None:
                return None
        if node is None or not self._is_interface(node, interface, bool(colon), at):
            return None
        if node.kind is NodeKind.SWITCH and address is not None:
            self._problems.add(
                address_at, f"switch {name!r} has an address", "a switch has none: give it to a node on it"
            )
            return None
        return DraftEnd(node, interface, address, at, address_at)

    def _node(self, name: str, at: Position) -> Node | None:
        if name in self._nodes:
            return self._nodes[name]
        if ("nodes", name) not in self._shaped.missing:
            self._problems.add(at, f"no node is called {name!r}", did_you_mean(name, self._nodes))
        return None

    def _is_interface(self, node: Node, interface: str, given: bool, at: Position) -> bool:
        if not given:
            return True
        if node.kind is NodeKind.SWITCH:
            self._problems.add(
                at, f"{interface!r} names a port of switch {node.name!r}", "its ports are numbered: leave it out"
            )
            return False
        if not _INTERFACE.fullmatch(interface) or _RESERVED_INTERFACES.fullmatch(interface):
            self._problems.add(
                at,
                f"{interface!r} is no name for an interface",
                "small letters and digits, at most 10, for example eth3 (lo, all, default and portN are taken)",
            )
            return False
        return True

    def _address(self, word: str, at: Position) -> IPv4Interface | IPv4Address | None:
        if ":" in word:
            self._problems.add(at, f"{word!r} is IPv6", "an end's IPv6 address is planned, of the link's 'subnet6'")
            return None
        try:
            address = IPv4Interface(word) if "/" in word else IPv4Address(word)
        except ValueError:
            self._problems.add(at, f"{word!r} is not an IPv4 address", "for example 10.7.0.1/24")
            return None
        if isinstance(address, IPv4Interface):
            network = address.network
            if not 8 <= network.prefixlen <= 31:
                self._problems.add(
                    at, f"{word!r} has no prefix length for a link", "from /8 to /30, or /31 between two routers"
                )
                return None
            if network.prefixlen < 31 and address.ip in (network.network_address, network.broadcast_address):
                which = "network" if address.ip == network.network_address else "broadcast"
                self._problems.add(
                    at, f"{word!r} is the {which} address of its subnet", f"take one between, of {network}"
                )
                return None
        ip = address.ip if isinstance(address, IPv4Interface) else address
        return address if is_unicast(IPv4Network(ip), word, at, self._problems) else None


def _is_address(word: str) -> bool:
    return word[0].isdigit() or word.count(":") > 1


def _may_be_wired(draft: DraftLink, problems: Problems) -> bool:
    one, other = draft.ends
    if one.node.name == other.node.name:
        problems.add(other.at, f"{one.node.name!r} is linked to itself", "a link has two nodes")
        return False
    for here, there in ((one, other), (other, one)):
        if here.node.kind is NodeKind.P and there.node.kind not in (*_PROVIDER, NodeKind.SWITCH):
            problems.add(
                there.at,
                f"{there.node.kind.value} {there.node.name!r} is linked to the core router {here.node.name!r}",
                "customers attach to a pe",
            )
            return False
    given = ("subnet", draft.subnet_at) if draft.subnet is not None else None
    if given is None and draft.subnet6 is not None:
        given = ("subnet6", draft.subnet6[1])
    if given is not None and any(end.node.kind is NodeKind.SWITCH for end in draft.ends):
        key, at = given
        problems.add(
            at,
            "this link leads to a switch, whose links are one subnet",
            f"give it to the switch: 'NAME: {{kind: switch, {key}: ...}}'",
        )
        return False
    return True


def _refuse_doubled(drafts: list[DraftLink], problems: Problems) -> None:
    seen: dict[tuple[str, str], Position] = {}
    for draft in drafts:
        for end in draft.ends:
            if not end.interface:
                continue
            key = (end.node.name, end.interface)
            if key in seen:
                problems.add(
                    end.at,
                    f"{end.node.name}:{end.interface} is on two links",
                    f"the first is on line {seen[key].line}: take another name, or leave it out",
                )
            seen.setdefault(key, end.at)


def _numbered(drafts: list[DraftLink]) -> list[DraftLink]:
    given = {(end.node.name, end.interface) for draft in drafts for end in draft.ends if end.interface}
    next_number: dict[str, int] = {}

    def name(end: DraftEnd) -> DraftEnd:
        if end.interface:
            return end
        stem = "port" if end.node.kind is NodeKind.SWITCH else "eth"
        number = next_number.get(end.node.name, 0)
        while (end.node.name, f"{stem}{number}") in given:
            number += 1
        next_number[end.node.name] = number + 1
        return replace(end, interface=f"{stem}{number}")

    return [replace(draft, ends=(name(draft.ends[0]), name(draft.ends[1]))) for draft in drafts]
