"""`crypto:` and `adjust-mss:` of nodes: how packets fit their way once they are encrypted."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from labctl.configuration import DfBit, Fragmentation, MssAdjustment, NodeKind, TunnelSettings
from labctl.configuration.words import did_you_mean
from labctl.topology.model import Node, Segment, SegmentKind
from labctl.topology.problems import Problems
from labctl.topology.raw_node import RawNode
from labctl.topology.raw_tunnel import RawAdjustMss
from labctl.topology.shape import Shaped


def read_fitting(
    shaped: Shaped,
    nodes: tuple[Node, ...],
    members: Collection[str],
    segments: Sequence[Segment],
    problems: Problems,
) -> tuple[dict[str, TunnelSettings], dict[str, tuple[MssAdjustment, ...]]]:
    """Node -> its settings, and where it adjusts the MSS; what makes no sense is noted."""
    # Members and interfaces are judged only if groups and links make sense.
    sound = not problems
    return (
        _tunnels(shaped, nodes, members, problems, grouped=sound),
        _mss_adjustments(shaped, nodes, segments, problems, wired=sound),
    )


def _tunnels(
    shaped: Shaped, nodes: tuple[Node, ...], members: Collection[str], problems: Problems, *, grouped: bool
) -> dict[str, TunnelSettings]:
    found = {}
    for node in nodes:
        raw = shaped.raw.nodes.get(node.name)
        if not isinstance(raw, RawNode) or raw.crypto is None:
            continue
        if node.kind is not NodeKind.CE or (grouped and node.name not in members):
            what = f"{node.kind.value} {node.name!r} encrypts nothing"
            problems.add(shaped.key_at("nodes", node.name, "crypto"), what, "'crypto' belongs to a member of a group")
            continue
        settings = raw.crypto
        found[node.name] = TunnelSettings(
            Fragmentation(settings.fragmentation), DfBit(settings.df_bit), settings.path_mtu_discovery
        )
    return found


def _mss_adjustments(
    shaped: Shaped, nodes: tuple[Node, ...], segments: Sequence[Segment], problems: Problems, *, wired: bool
) -> dict[str, tuple[MssAdjustment, ...]]:
    found = {}
    for node in nodes:
        raw = shaped.raw.nodes.get(node.name)
        if not isinstance(raw, RawNode) or raw.adjust_mss is None:
            continue
        if not node.kind.forwards:
            what = f"{node.kind.value} {node.name!r} passes no connections on"
            problems.add(shaped.key_at("nodes", node.name, "adjust-mss"), what, "'adjust-mss' belongs to a router")
            continue
        asked = raw.adjust_mss if isinstance(raw.adjust_mss, RawAdjustMss) else RawAdjustMss(size=raw.adjust_mss)
        names = _interfaces(shaped, node, asked, segments, problems, wired=wired)
        found[node.name] = tuple(MssAdjustment(name, asked.size) for name in names)
    return found


def _interfaces(
    shaped: Shaped, node: Node, asked: RawAdjustMss, segments: Sequence[Segment], problems: Problems, *, wired: bool
) -> tuple[str, ...]:
    ends = [(segment.kind, end.interface) for segment in segments for end in segment.ends if end.node == node.name]
    names = [name for _, name in ends]
    if asked.interfaces is None:
        lans = tuple(name for kind, name in ends if kind is SegmentKind.LAN and node.kind is NodeKind.CE)
        if not lans and wired:
            what = f"{node.name!r} has no LAN on which it could adjust the MSS"
            hint = f"say where: 'adjust-mss: {{size: {asked.size}, interfaces: [eth0]}}'"
            problems.add(shaped.key_at("nodes", node.name, "adjust-mss"), what, hint)
        return lans
    for index, name in enumerate(asked.interfaces):
        if name not in names and wired:
            at = shaped.at("nodes", node.name, "adjust-mss", "interfaces", index)
            problems.add(at, f"{node.name!r} has no interface {name!r}", did_you_mean(name, names))
    return tuple(dict.fromkeys(name for name in asked.interfaces if name in names))
