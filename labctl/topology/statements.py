"""`checks:` of a topology -> CheckSpecs."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

from labctl.configuration import NodeKind
from labctl.configuration.words import did_you_mean
from labctl.topology.checks import CheckKind, CheckSpec
from labctl.topology.derived import matrices
from labctl.topology.flows import Flows
from labctl.topology.model import Group, Link, Node
from labctl.topology.problems import Problems
from labctl.topology.raw_check import RawCheck
from labctl.topology.shape import Shaped

_FORM = "a flow is 'any', 'h1 -> h2', 'h1, h2 -> h3' or 'h1 <-> h2'"
_DEFAULT_COUNT = {CheckKind.LATENCY: 20, CheckKind.LOSS: 100}

# Which keys go beside which statement.
_BESIDE: dict[CheckKind, set[str]] = {
    CheckKind.REACHABLE: {"count", "dscp", "ipv6"},
    CheckKind.BLOCKED: {"count", "dscp", "ipv6"},
    CheckKind.REGISTERED: set(),
    CheckKind.REFUSED: set(),
    CheckKind.ENCRYPTED: {"links", "count", "dscp", "ipv6"},
    CheckKind.NO_PLAIN_TEXT: {"links", "count", "dscp", "ipv6"},
    CheckKind.LATENCY: {"at-most", "count", "dscp", "ipv6"},
    CheckKind.LOSS: {"at-most", "count", "dscp", "ipv6"},
}
Pairs = tuple[tuple[str, str], ...]


def read_checks(
    shaped: Shaped,
    nodes: dict[str, Node],
    links: list[Link],
    groups: list[Group],
    problems: Problems,
    flows: Callable[[], Flows | None],
) -> list[CheckSpec]:
    """Every check that can be read. `flows` follows packets, if the lab makes enough sense for that."""
    specs: list[CheckSpec] = []
    names: dict[str, int] = {}
    for index, raw in enumerate(shaped.raw.checks or []):
        reader = _CheckReader(shaped, nodes, links, groups, problems, index, raw)
        for spec in reader.read(flows):
            first = names.setdefault(spec.name, index)
            if first != index and raw.name is not None:
                at = shaped.at("checks", index, "name")
                problems.add(at, f"two checks are called {spec.name!r}", "give each its own name")
            specs.append(spec)
    return _told_apart(specs)


def _told_apart(specs: list[CheckSpec]) -> list[CheckSpec]:
    counts: dict[str, int] = {}
    told: list[CheckSpec] = []
    for spec in specs:
        counts[spec.name] = counts.get(spec.name, 0) + 1
        told.append(spec if counts[spec.name] == 1 else replace(spec, name=f"{spec.name} ({counts[spec.name]})"))
    return told


class _CheckReader:
    """Reads one check."""

    def __init__(
        self,
        shaped: Shaped,
        nodes: dict[str, Node],
        links: list[Link],
        groups: list[Group],
        problems: Problems,
        index: int,
        raw: RawCheck,
    ) -> None:
        self._shaped = shaped
        self._nodes = nodes
        self._links = links
        self._groups = groups
        self._problems = problems
        self._index = index
        self._raw = raw

    def read(self, flows: Callable[[], Flows | None]) -> list[CheckSpec]:
        """The specs of this check: one, or one for each pair where the kind takes one flow."""
        statement = self._statement()
        if statement is None:
            return []
        kind, text = statement
        self._check_keys_beside(kind)
        title = f"{kind.value} (IPv6)" if self._raw.ipv6 else kind.value
        spec = CheckSpec(
            name=self._raw.name or f"{title}: {' '.join(text.split())}",
            kind=kind,
            bound=self._raw.at_most,
            count=self._raw.count or _DEFAULT_COUNT.get(kind, 3),
            dscp=self._raw.dscp or 0,
            ipv6=self._raw.ipv6,
        )
        if kind in (CheckKind.REGISTERED, CheckKind.REFUSED):
            return self._of_group(spec, text)
        pairs = self._pairs(kind, text)
        links = self._watched()
        if pairs is None or links is None:
            return []
        if spec.ipv6 and not self._all_speak_ipv6(pairs, flows()):
            return []
        if kind in (CheckKind.ENCRYPTED, CheckKind.NO_PLAIN_TEXT):
            following = flows()
            if following is None:
                return []  # the lab has problems of its own, which are said
            return self._on_links(replace(spec, links=links), pairs, following)
        return _split(spec, pairs)

    def _all_speak_ipv6(self, pairs: Pairs, flows: Flows | None) -> bool:
        """Without flows the lab has problems of its own, which are said."""
        names = dict.fromkeys(name for pair in pairs for name in pair)
        without = [name for name in names if flows is not None and not flows.have(name, ipv6=True)]
        if without:
            at = self._shaped.key_at("checks", self._index, "ipv6")
            hint = "a lab has IPv6 where a group says 'ipv6: true' or a link 'subnet6', and key servers never have"
            self._problems.add(at, f"{without[0]!r} does not speak IPv6", hint)
        return flows is not None and not without

    def _statement(self) -> tuple[CheckKind, str] | None:
        said = [
            (kind, text) for kind in CheckKind if (text := getattr(self._raw, kind.value.replace("-", "_"))) is not None
        ]
        if len(said) == 1:
            return said[0]
        at = self._shaped.at("checks", self._index)
        if ("checks", self._index) in {path[:2] for path in self._shaped.missing}:
            return None
        if said:
            kinds = " and ".join(repr(kind.value) for kind, _ in said)
            self._problems.add(at, f"one check states {kinds}", "a check states one thing: make each its own")
        else:
            kinds = ", ".join(kind.value for kind in CheckKind)
            self._problems.add(at, "a check states nothing", f"add one of: {kinds}")
        return None

    def _check_keys_beside(self, kind: CheckKind) -> None:
        given = {
            "links": self._raw.links,
            "at-most": self._raw.at_most,
            "count": self._raw.count,
            "dscp": self._raw.dscp,
            "ipv6": self._raw.ipv6 or None,
        }
        for key, value in given.items():
            if value is not None and key not in _BESIDE[kind]:
                takes = ", ".join(sorted(_BESIDE[kind])) or "no other key but 'name'"
                at = self._shaped.key_at("checks", self._index, key)
                self._problems.add(at, f"{key!r} means nothing for {kind.value!r}", f"it takes {takes}")
        if "at-most" in _BESIDE[kind] and self._raw.at_most is None:
            unit = "milliseconds" if kind is CheckKind.LATENCY else "per cent"
            at = self._shaped.at("checks", self._index)
            if ("checks", self._index, "at-most") not in self._shaped.missing:
                self._problems.add(at, f"{kind.value!r} has no bound", f"add 'at-most: 50', in {unit}")

    def _of_group(self, spec: CheckSpec, name: str) -> list[CheckSpec]:
        group = next((group for group in self._groups if group.name == name), None)
        at = self._shaped.at("checks", self._index, spec.kind.value)
        if group is not None:
            members = group.refused if spec.kind is CheckKind.REFUSED else group.registering
            if not members:
                which = "no refused member" if spec.kind is CheckKind.REFUSED else "only refused members"
                hint = "members are refused where 'members' says so: '{node: ce1, refused: true}'"
                self._problems.add(at, f"group {name!r} has {which}", hint)
                return []
            return [replace(spec, sources=members, group=name)]
        if ("groups", name) not in self._shaped.missing:
            self._problems.add(at, f"no group is called {name!r}", did_you_mean(name, [g.name for g in self._groups]))
        return []

    def _pairs(self, kind: CheckKind, text: str) -> Pairs | None:
        """Who talks to whom."""
        path = ("checks", self._index, kind.value)
        hosts = tuple(node.name for node in self._nodes.values() if node.kind is NodeKind.HOST)
        if text.strip() == "any":
            if len(hosts) < 2:
                self._problems.add(self._shaped.at(*path), "'any' means every pair of hosts, and there is none", _FORM)
                return None
            return _product(hosts, hosts)
        match = re.fullmatch(r"(?P<left>[^<>]+?)\s*(?P<arrow><->|->)\s*(?P<right>[^<>]+)", text)
        if match is None:
            self._problems.add(self._shaped.at(*path), f"{text!r} is not a flow", _FORM)
            return None
        sides = []
        for side in ("left", "right"):
            names = self._names(match[side], match.start(side), path, hosts)
            if names is None:
                return None
            sides.append(names)
        left, right = sides
        if left == right and len(left) == 1:
            self._problems.add(self._shaped.at(*path), f"{left[0]!r} talks to itself", "name two nodes")
            return None
        back = _product(right, left) if match["arrow"] == "<->" else ()
        return tuple(dict.fromkeys((*_product(left, right), *back)))

    def _names(
        self, text: str, offset: int, path: tuple[str | int, ...], hosts: tuple[str, ...]
    ) -> tuple[str, ...] | None:
        names: list[str] = []
        fine = True
        for match in re.finditer(r"[^,\s]+", text):
            name = match.group()
            if name == "any":
                names += hosts
                continue
            node = self._nodes.get(name)
            at = self._shaped.inside(offset + match.start(), *path)
            if node is None:
                fine = False
                if ("nodes", name) not in self._shaped.missing:
                    self._problems.add(at, f"no node is called {name!r}", did_you_mean(name, self._nodes))
            elif node.kind is NodeKind.SWITCH:
                fine = False
                self._problems.add(at, f"{name!r} is a switch, which sends nothing itself", "name a node on it")
            else:
                names.append(name)
        return tuple(dict.fromkeys(names)) if fine and names else None

    def _watched(self) -> tuple[str, ...] | None:
        """The links of `links`; empty means that they are derived."""
        found: list[str] = []
        for index, text in enumerate(self._raw.links or []):
            at = self._shaped.at("checks", self._index, "links", index)
            parts = [part.strip() for part in re.split(r"\s--\s|--", text.strip())]
            matching = [link for link in self._links if len(parts) == 2 and _joins(link, parts[0], parts[1])]
            if not matching:
                known = [" -- ".join(names) for link in self._links for names in _both_ways(link)]
                close = did_you_mean(text, known)
                hint = close if close.endswith("?") else "name the nodes at both ends, as in 'links'"
                self._problems.add(at, f"no link is {text!r}", hint)
                return None
            if all(self._nodes[end.node].kind is NodeKind.SWITCH for link in matching for end in link.ends):
                self._problems.add(at, f"{text!r} joins two switches, where nobody can listen", "name a link of a node")
                return None
            found += [link.name for link in matching]
        return tuple(dict.fromkeys(found))

    def _on_links(self, spec: CheckSpec, pairs: Pairs, flows: Flows) -> list[CheckSpec]:
        """The check on the links that each flow crosses."""
        at = self._shaped.at("checks", self._index, spec.kind.value)
        specs: list[CheckSpec] = []
        crossing: list[tuple[str, str]] = []
        for source, destination in pairs:
            crossed = flows.between(source, destination, ipv6=spec.ipv6).links
            if spec.links or crossed:
                crossing.append((source, destination))
            if spec.kind is CheckKind.ENCRYPTED and (spec.links or crossed):
                title = f"{spec.kind.value} (IPv6)" if spec.ipv6 else spec.kind.value
                name = f"{title}: {source} -> {destination}" if self._raw.name is None else spec.name
                links = spec.links or crossed
                specs.append(replace(spec, name=name, sources=(source,), destinations=(destination,), links=links))
        if not crossing:
            self._problems.add(
                at, "this flow crosses no link of the provider", "name links to watch: 'links: [ce1 -- pe1]'"
            )
        if spec.kind is CheckKind.ENCRYPTED:
            return specs
        return _split(replace(spec, links=spec.links or flows.provider_links), tuple(crossing))


def _product(sources: tuple[str, ...], destinations: tuple[str, ...]) -> Pairs:
    return tuple((source, destination) for source in sources for destination in destinations if source != destination)


def _split(spec: CheckSpec, pairs: Pairs) -> list[CheckSpec]:
    """The check for these pairs: one, or one a matrix where the pairs are no single one."""
    parts = matrices(pairs)
    if len(parts) == 1:
        return [replace(spec, sources=parts[0][0], destinations=parts[0][1])]
    return [
        replace(
            spec,
            name=f"{spec.name} ({', '.join(sources)} -> {', '.join(destinations)})",
            sources=sources,
            destinations=destinations,
        )
        for sources, destinations in parts
    ]


def _both_ways(link: Link) -> tuple[tuple[str, str], tuple[str, str]]:
    one, other = link.ends
    return (one.node, other.node), (other.node, one.node)


def _joins(link: Link, one: str, other: str) -> bool:
    def names(text: str, which: int) -> bool:
        return text in (link.ends[which].node, str(link.ends[which]))

    return (names(one, 0) and names(other, 1)) or (names(one, 1) and names(other, 0))
