"""`qos:` of a ce: which packets from its LANs are marked with which DSCP, before they are encrypted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from labctl.configuration import Marking, MarkingRule, NodeKind
from labctl.configuration.access_list import parse_access_list_entry
from labctl.configuration.translation import DSCP_NAMES, parse_dscp
from labctl.configuration.words import WordError, did_you_mean
from labctl.topology.model import Node, Segment, SegmentKind
from labctl.topology.problems import Problems
from labctl.topology.raw_node import RawNode, RawQos
from labctl.topology.shape import Shaped


def read_markings(
    shaped: Shaped, nodes: tuple[Node, ...], segments: Sequence[Segment], problems: Problems
) -> dict[str, Marking]:
    """Node -> how it marks; what makes no sense is noted."""
    # Interfaces are judged only if the links make sense.
    wired = not problems
    found = {}
    for node in nodes:
        raw = shaped.raw.nodes.get(node.name)
        if not isinstance(raw, RawNode) or raw.qos is None:
            continue
        path = ("nodes", node.name, "qos")
        if node.kind is not NodeKind.CE:
            problems.add(
                shaped.key_at(*path), f"{node.kind.value} {node.name!r} marks packets", "'qos' belongs to a ce"
            )
            continue
        rules = tuple(_rules(shaped, raw.qos, path, problems))
        interfaces = _interfaces(shaped, node, raw.qos, segments, problems, wired=wired)
        if interfaces:
            found[node.name] = Marking(interfaces, rules)
    return found


def _rules(shaped: Shaped, raw: RawQos, path: tuple[str, ...], problems: Problems) -> Iterator[MarkingRule]:
    if not raw.rules and not any(cut[:3] == path for cut in shaped.missing):
        problems.add(shaped.key_at(*path), "nothing is marked", "'rules: [{match: permit udp any any, set-dscp: ef}]'")
    for index, rule in enumerate(raw.rules):
        place: tuple[str | int, ...] = (*path, "rules", index)
        dscp = parse_dscp(rule.set_dscp)
        if dscp is None:
            hint = did_you_mean(str(rule.set_dscp), DSCP_NAMES, "a number from 0 to 63")
            problems.add(shaped.at(*place, "set-dscp"), f"{rule.set_dscp!r} is not a DSCP", hint)
        try:
            entry = parse_access_list_entry(rule.match, ipv6=rule.ipv6)
        except WordError as error:
            problems.add(shaped.inside(error.column, *place, "match"), error.problem, error.hint)
        else:
            if dscp is not None:
                yield MarkingRule(entry, dscp)


def _interfaces(
    shaped: Shaped, node: Node, raw: RawQos, segments: Sequence[Segment], problems: Problems, *, wired: bool
) -> tuple[str, ...]:
    names = [end.interface for segment in segments for end in segment.ends if end.node == node.name]
    if raw.interfaces is None:
        lans = [segment for segment in segments if segment.kind is SegmentKind.LAN]
        found = tuple(end.interface for segment in lans for end in segment.ends if end.node == node.name)
        if not found and wired:
            problems.add(
                shaped.key_at("nodes", node.name, "qos"),
                f"{node.name!r} has no LAN whose packets it could mark",
                "say where they come in: 'interfaces: [eth1]'",
            )
        return found
    for index, name in enumerate(raw.interfaces):
        if name not in names and wired:
            at = shaped.at("nodes", node.name, "qos", "interfaces", index)
            problems.add(at, f"{node.name!r} has no interface {name!r}", did_you_mean(name, names))
    return tuple(name for name in raw.interfaces if name in names)
