"""A topology file -> Topology, or everything that is wrong with it."""

from __future__ import annotations

import re
from dataclasses import replace
from ipaddress import IPv4Network
from pathlib import Path

from labctl.configuration import IsakmpSettings, Keepalive, NodeKind
from labctl.configuration.words import did_you_mean
from labctl.topology.addressing import number_segments
from labctl.topology.derived import derive_checks
from labctl.topology.flows import Flows
from labctl.topology.groups import member_name, read_groups
from labctl.topology.ipv6 import number_ipv6, refuse_idle_switch_subnets
from labctl.topology.links import DraftLink, read_links, read_subnet
from labctl.topology.model import Group, MemberOptions, Node, Segment, SegmentKind, Topology
from labctl.topology.nat import read_translations
from labctl.topology.pki_section import read_pki
from labctl.topology.problems import Position, Problem, Problems, TopologyErrors
from labctl.topology.qos import read_markings
from labctl.topology.raw import NODE_NAME, RawIsakmpSettings
from labctl.topology.raw_node import RawNode
from labctl.topology.routing import Routing
from labctl.topology.shape import Shaped, shape
from labctl.topology.source import MAX_OCTETS, parse
from labctl.topology.statements import read_checks
from labctl.topology.tunnel import read_fitting

# Words with a meaning of their own in checks or in every host's name table.
RESERVED_NAMES = ("any", "localhost")


def load(path: Path) -> Topology:
    """The topology in the file at `path`. Raises TopologyErrors."""
    file = str(path)
    try:
        with path.open("rb") as stream:
            octets = stream.read(MAX_OCTETS * 4 + 1)
    except OSError as error:
        hint = (
            "'labctl up' without a name lists the topologies that ship" if isinstance(error, FileNotFoundError) else ""
        )
        raise TopologyErrors([Problem(file, 0, 0, f"cannot be read: {error.strerror}", hint)]) from None
    try:
        text = octets.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        good = octets[: error.start].decode()
        line, column = good.count("\n") + 1, len(good) - (good.rfind("\n") + 1) + 1
        what = f"octet 0x{octets[error.start]:02x} is not UTF-8"
        raise TopologyErrors([Problem(file, line, column, what, "save the file as UTF-8")]) from None
    return read(text, file)


def read(text: str, file: str) -> Topology:
    """The topology that `text` says. Raises TopologyErrors with everything that is wrong."""
    problems = Problems(file)
    tree = parse(text, problems)
    shaped = shape(tree, problems) if tree is not None else None
    topology = _Resolver(shaped, problems).resolve() if shaped is not None else None
    problems.raise_any()
    assert topology is not None
    return topology


class _Resolver:
    """Looks at one part of the file after the other; later parts are judged by what the earlier ones left standing."""

    def __init__(self, shaped: Shaped, problems: Problems) -> None:
        self._shaped = shaped
        self._problems = problems
        self._nodes: dict[str, Node] = {}

    def resolve(self) -> Topology:
        """The topology; without meaning if there are problems."""
        shaped, problems = self._shaped, self._problems
        subnets = self._read_nodes()
        drafts = read_links(shaped, self._nodes, problems)
        self._refuse_unlinked(drafts)
        links, segments = number_segments(drafts, subnets, problems)
        groups = read_groups(shaped, self._nodes, problems)
        groups = self._place_members(groups, segments, drafts)
        refuse_idle_switch_subnets(shaped, problems)
        links, segments = number_ipv6(shaped, self._nodes, drafts, links, segments, groups, problems)
        nodes = tuple(self._nodes.values())
        translations = read_translations(shaped, nodes, segments, problems)
        markings = read_markings(shaped, nodes, segments, problems)
        encrypting = {name for group in groups for name in group.members}
        tunnels, mss_adjustments = read_fitting(shaped, nodes, encrypting, segments, problems)
        routing = Routing(nodes, tuple(segments), translations)
        bare = Topology(
            name=shaped.raw.name,
            runtime=shaped.raw.runtime,
            clock_scale=float(shaped.raw.clock.scale),
            nodes=nodes,
            links=tuple(links),
            segments=tuple(segments),
            groups=tuple(groups),
            pki=read_pki(shaped, self._nodes, groups, problems),
            translations=translations,
            markings=markings,
            tunnels=tunnels,
            mss_adjustments=mss_adjustments,
        )
        if not problems:
            self._check_reachability(bare, routing, drafts)
        flows = None if problems else Flows(bare, routing)
        checks = read_checks(shaped, self._nodes, links, groups, problems, lambda: flows)
        if shaped.raw.checks is None and flows is not None:
            checks = derive_checks(groups, flows)
        return replace(bare, checks=tuple(checks), isakmp=_isakmp_settings(shaped.raw.isakmp))

    def _read_nodes(self) -> dict[str, tuple[IPv4Network, Position]]:
        """Fills the nodes; returns the subnets of switches."""
        subnets: dict[str, tuple[IPv4Network, Position]] = {}
        lowered: dict[str, str] = {}
        if not self._shaped.raw.nodes and not any(path[:1] == ("nodes",) for path in self._shaped.missing):
            self._problems.add(self._shaped.at("nodes"), "the lab has no nodes", "add 'NAME: KIND' lines")
        for name, raw in self._shaped.raw.nodes.items():
            at = self._shaped.key_at("nodes", name)
            self._check_name(name, at)
            if lowered.setdefault(name.lower(), name) != name:
                other = lowered[name.lower()]
                self._problems.add(
                    at, f"{name!r} and {other!r} differ only in case", "host names do not tell case apart"
                )
            kind = raw.kind if isinstance(raw, RawNode) else raw
            self._nodes[name] = Node(name, NodeKind(kind))
            if not isinstance(raw, RawNode) or raw.subnet is None:
                continue
            place = self._shaped.at("nodes", name, "subnet")
            if kind != "switch":
                self._problems.add(
                    self._shaped.key_at("nodes", name, "subnet"),
                    f"{kind} {name!r} has a subnet",
                    "a switch has one; elsewhere it belongs to the link: '{ends: [a, b], subnet: ...}'",
                )
            elif (network := read_subnet(raw.subnet, place, self._problems)) is not None:
                subnets[name] = (network, place)
        return subnets

    def _check_name(self, name: str, at: Position) -> None:
        if name.lower() in RESERVED_NAMES:
            self._problems.add(
                at, f"{name!r} is not a name for a node", "the word has a meaning of its own: take another"
            )
        elif len(name) > 15:
            self._problems.add(at, f"node name {name!r} has {len(name)} characters", "15 at most")
        elif not _is_node_name(name):
            self._problems.add(
                at,
                f"{name!r} is not a name for a node",
                "letters, digits and single '-', a letter first, no '-' at the end",
            )

    def _refuse_unlinked(self, drafts: list[DraftLink]) -> None:
        linked = {end.node.name for draft in drafts for end in draft.ends}
        for name, node in self._nodes.items():
            if name not in linked and _is_node_name(name) and not self._may_be_linked(name, drafts):
                at = self._shaped.key_at("nodes", name)
                hint = f"add '- {name} -- NODE' to 'links', or remove the node"
                self._problems.add(at, f"{node.kind.value} {name!r} has no link", hint)

    def _may_be_linked(self, name: str, drafts: list[DraftLink]) -> bool:
        """True if a link that could not be read, and has a problem of its own, may be the node's."""
        if any(path[:1] == ("links",) for path in self._shaped.missing):
            return True
        if len(drafts) == len(self._shaped.raw.links):
            return False
        word = re.compile(rf"(?<![\w-]){re.escape(name)}(?![\w-])")
        texts = [raw if isinstance(raw, str) else " ".join(raw.ends) for raw in self._shaped.raw.links]
        return any(word.search(text) for text in texts)

    def _place_members(self, groups: list[Group], segments: list[Segment], drafts: list[DraftLink]) -> list[Group]:
        """The groups with the interface on which each member encrypts: a link to the provider."""
        uplinks: dict[str, list[str]] = {}
        for segment in segments:
            kinds = {end.node: self._nodes[end.node].kind for end in segment.ends}
            if segment.kind is SegmentKind.EDGE and NodeKind.PE in kinds.values():
                for end in segment.ends:
                    uplinks.setdefault(end.node, []).append(end.interface)
        placed = []
        for group in groups:
            found = {}
            for name in group.members:
                wanted = group.options.get(name, MemberOptions()).interface
                known = uplinks.get(name, [])
                if not known and not self._may_be_linked(name, drafts):
                    self._problems.add(
                        self._member_at(group, name),
                        f"member {name!r} of group {group.name!r} has no link to a pe",
                        f"a member encrypts on that link: add '- {name} -- pe1'",
                    )
                elif wanted is not None and known and wanted not in known:
                    self._problems.add(
                        self._shaped.at(*self._member_path(group, name), "interface"),
                        f"{name!r} has no link to a pe on {wanted!r}",
                        did_you_mean(wanted, known),
                    )
                elif wanted is None and len(known) > 1:
                    self._problems.add(
                        self._member_at(group, name),
                        f"member {name!r} of group {group.name!r} has {len(known)} links to the provider",
                        f"say on which it encrypts: '{{node: {name}, interface: {known[0]}}}'",
                    )
                elif known:
                    found[name] = wanted or known[0]
            placed.append(replace(group, interfaces=found))
        return placed

    def _member_at(self, group: Group, name: str) -> Position:
        return self._shaped.at(*self._member_path(group, name))

    def _member_path(self, group: Group, name: str) -> tuple[str | int, ...]:
        raw = [member_name(member) for member in self._shaped.raw.groups[group.name].members]
        return ("groups", group.name, "members", raw.index(name))

    def _check_reachability(self, topology: Topology, routing: Routing, drafts: list[DraftLink]) -> None:
        """Every LAN and every control address is reachable before crypto exists (reference/cisco-getvpn.md 1.5)."""
        names = topology.node_names
        everything = range(len(topology.segments))
        reached = {name: sum(routing.reaches(name, number) for number in everything) for name in names}
        inner = [name for name in names if self._nodes[name].kind in (NodeKind.PE, NodeKind.P)]
        centre = max(inner or names, key=lambda name: reached[name], default=None)
        if centre is None:
            return
        at = {link.name: draft.at for link, draft in zip(topology.links, drafts, strict=True)}
        apart = {
            name for name in names if not any(routing.reaches(centre, number) for number, _ in routing.connected(name))
        }
        observers = [centre, *(name for name in names if name not in apart and name != centre)]
        self._check_lans(topology, routing, observers, at)
        self._check_control(topology, routing, apart)
        on_lans = {end.node for segment in topology.segments if segment.kind is SegmentKind.LAN for end in segment.ends}
        said = on_lans | {name for group in topology.groups for name in (*group.members, *group.key_servers)}
        for name in names:
            if name in apart and name not in said:
                self._problems.add(
                    self._shaped.key_at("nodes", name),
                    f"{name!r} has no way to {centre!r} and the rest of the lab",
                    "link it, or remove it",
                )

    def _check_lans(self, topology: Topology, routing: Routing, observers: list[str], at: dict[str, Position]) -> None:
        for number, segment in enumerate(topology.segments):
            if segment.kind is not SegmentKind.LAN:
                continue
            lost = next((name for name in observers if not routing.reaches(name, number)), None)
            if lost is not None:
                routers = [end.node for end in segment.ends if self._nodes[end.node].kind.forwards]
                if not routers:
                    hint = "put a router on it: '- h1 -- ce1'"
                elif topology.are_wired_together(lost, routers[0]):
                    hint = "only ce, pe and p pass packets on, and a ce never from one pe to another"
                else:
                    hint = f"link {routers[0]!r} to the rest of the lab"
                hosts = ", ".join(end.node for end in segment.ends if end.node not in routers)
                self._problems.add(
                    at[segment.links[0]], f"no route of {lost!r} covers the LAN {segment.prefix} of {hosts}", hint
                )

    def _check_control(self, topology: Topology, routing: Routing, apart: set[str]) -> None:
        addresses = topology.control_addresses()
        for group in topology.groups:
            for server in group.key_servers:
                for member in group.members:
                    there = routing.path(member, addresses[server])
                    back = routing.path(server, topology.member_address(group, member))
                    if there is None or back is None:
                        self._problems.add(
                            self._member_at(group, member),
                            f"member {member!r} has no way to key server {server!r} ({addresses[server]})",
                            f"link both to one provider: {server!r} may hang on any pe",
                        )


def _is_node_name(name: str) -> bool:
    return re.fullmatch(NODE_NAME, name) is not None and "--" not in name and name.lower() not in RESERVED_NAMES


def _isakmp_settings(raw: RawIsakmpSettings) -> IsakmpSettings:
    asked = raw.keepalive
    keepalive = None if asked is None else Keepalive(asked.interval, asked.retry, asked.periodic)
    return IsakmpSettings(keepalive, raw.admission_limit)
