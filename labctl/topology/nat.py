"""`nat:` of a router: what it translates between its inside and its outside, in IOS's words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from ipaddress import IPv4Address, IPv4Network

from labctl.configuration import AddressTranslation, NodeKind, Overload, StaticTranslation
from labctl.configuration.translation import parse_translation
from labctl.configuration.words import WordError, did_you_mean
from labctl.topology.links import is_unicast
from labctl.topology.model import End, Node, Segment
from labctl.topology.problems import Position, Problems
from labctl.topology.raw_node import RawNat, RawNode
from labctl.topology.routing import Routing
from labctl.topology.shape import Shaped

# Of a larger one nobody could say where a check should look.
LARGEST_POOL = 256


def read_translations(
    shaped: Shaped, nodes: tuple[Node, ...], segments: Sequence[Segment], problems: Problems
) -> dict[str, AddressTranslation]:
    """Node -> what it translates; what makes no sense is noted. Places are judged only if the links make sense."""
    routing = None if problems else Routing(nodes, tuple(segments))
    taken: list[tuple[IPv4Network, Position]] = []
    found = {}
    for node in nodes:
        raw = shaped.raw.nodes.get(node.name)
        if not isinstance(raw, RawNode) or raw.nat is None:
            continue
        if not node.kind.forwards:
            problems.add(
                shaped.key_at("nodes", node.name, "nat"),
                f"{node.kind.value} {node.name!r} translates addresses",
                "'nat' belongs to a router: a ce, pe or p",
            )
            continue
        nat = _NatReader(shaped, node, routing, segments, problems, taken).read(raw.nat)
        if nat is not None:
            found[node.name] = nat
    return found


class _NatReader:
    """Reads the `nat:` of one router."""

    def __init__(
        self,
        shaped: Shaped,
        node: Node,
        routing: Routing | None,
        segments: Sequence[Segment],
        problems: Problems,
        taken: list[tuple[IPv4Network, Position]],
    ) -> None:
        self._shaped = shaped
        self._node = node
        self._routing = routing
        self._segments = segments
        self._problems = problems
        # Inside global addresses of the whole lab.
        self._taken = taken
        self._path: tuple[str | int, ...] = ("nodes", node.name, "nat")

    def read(self, raw: RawNat) -> AddressTranslation | None:
        """The translation, or None where too little can be read to judge the rest by."""
        lines = list(self._lines(raw))
        if self._routing is None:
            return None
        sides = self._sides(raw, self._routing)
        if sides is None:
            return None
        inside, outside = sides
        if not raw.inside_source and self._path not in {path[:3] for path in self._shaped.missing}:
            self._problems.add(
                self._shaped.key_at(*self._path), "nothing is translated", "'inside-source: [static LOCAL GLOBAL]'"
            )
        local_at: dict[IPv4Address, int] = {}
        for index, line in lines:
            if isinstance(line, StaticTranslation):
                self._judge_static(line, index, inside, local_at)
            else:
                self._judge_overload(line, index, inside, outside)
        return AddressTranslation(
            inside,
            outside,
            tuple(line for _, line in lines if isinstance(line, StaticTranslation)),
            tuple(line for _, line in lines if isinstance(line, Overload)),
        )

    def _lines(self, raw: RawNat) -> Iterator[tuple[int, StaticTranslation | Overload]]:
        for index, text in enumerate(raw.inside_source):
            try:
                yield index, parse_translation(text)
            except WordError as error:
                at = self._shaped.inside(error.column, *self._path, "inside-source", index)
                self._problems.add(at, error.problem, error.hint)

    def _sides(self, raw: RawNat, routing: Routing) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
        ends = routing.connected(self._node.name)
        names = [end.interface for _, end in ends]
        fine = True
        for key, given in (("inside", raw.inside), ("outside", raw.outside)):
            for index, name in enumerate(given or ()):
                if name not in names:
                    at = self._shaped.at(*self._path, key, index)
                    self._problems.add(at, f"{self._node.name!r} has no interface {name!r}", did_you_mean(name, names))
                    fine = False
                elif key == "outside" and name in (raw.inside or ()):
                    at = self._shaped.at(*self._path, key, index)
                    self._problems.add(at, f"{name!r} is inside and outside", "an interface is on one side")
                    fine = False
        if not fine:
            return None
        outside = raw.outside
        if outside is None and self._node.kind is NodeKind.CE:
            outside = [
                e.interface for n, e in ends if routing.faces_provider(n) and e.interface not in (raw.inside or ())
            ]
        inside = raw.inside
        if inside is None and self._node.kind is NodeKind.CE:
            inside = [
                e.interface for n, e in ends if not routing.faces_provider(n) and e.interface not in (outside or ())
            ]
        for key, value in (("inside", inside), ("outside", outside)):
            if not value:
                hint = f"say which: '{key}: [{names[0]}]'"
                self._problems.add(
                    self._shaped.key_at(*self._path), f"no interface of {self._node.name!r} is {key}", hint
                )
                fine = False
        return (tuple(inside or ()), tuple(outside or ())) if fine else None

    def _judge_static(
        self, line: StaticTranslation, index: int, inside: tuple[str, ...], seen: dict[IPv4Address, int]
    ) -> None:
        at = self._word_at(index, str(line.inside_local))
        if line.inside_local in seen:
            self._problems.add(
                at, f"{line.inside_local} is translated twice", f"entry {seen[line.inside_local] + 1} does it already"
            )
        elif not self._is_inside(IPv4Network(line.inside_local), inside):
            self._not_inside(at, str(line.inside_local), inside)
        seen.setdefault(line.inside_local, index)
        at = self._word_at(index, str(line.inside_global), last=True)
        self._take(IPv4Network(line.inside_global), at)

    def _judge_overload(self, line: Overload, index: int, inside: tuple[str, ...], outside: tuple[str, ...]) -> None:
        at = self._word_at(index, str(line.inside_local))
        own = [end for end in self._ends() if end.interface in outside and end.address is not None]
        caught = next((end for end in own if end.address is not None and end.address.ip in line.inside_local), None)
        if not self._is_inside(line.inside_local, inside):
            self._not_inside(at, str(line.inside_local), inside)
        elif caught is not None and caught.address is not None:
            self._problems.add(
                at,
                f"the outside address {caught.address.ip} of {self._node.name!r} is in {line.inside_local}",
                "what it sends itself, to a key server for example, would be translated: name the LAN's prefix",
            )
        if line.interface is not None and line.interface not in outside:
            at = self._word_at(index, line.interface, last=True)
            hint = did_you_mean(line.interface, outside)
            self._problems.add(at, f"{line.interface!r} is no outside interface of {self._node.name!r}", hint)
        if line.first is not None and line.last is not None:
            at = self._word_at(index, str(line.first))
            size = int(line.last) - int(line.first) + 1
            if size > LARGEST_POOL:
                self._problems.add(at, f"the pool has {size} addresses", f"{LARGEST_POOL} at most")
            else:
                for address in line.pool:
                    if not self._take(IPv4Network(address), at):
                        break

    def _ends(self) -> list[End]:
        assert self._routing is not None
        return [end for _, end in self._routing.connected(self._node.name)]

    def _is_inside(self, local: IPv4Network, inside: tuple[str, ...]) -> bool:
        """True if a link or LAN of these addresses is behind an inside interface."""
        assert self._routing is not None
        own = {number: end.interface for number, end in self._routing.connected(self._node.name)}
        table = self._routing.table(self._node.name)
        for number, segment in enumerate(self._segments):
            if segment.prefix.overlaps(local):
                through = own.get(number) or (table[number].leaving.interface if number in table else None)
                if through in inside:
                    return True
        return False

    def _not_inside(self, at: Position, what: str, inside: tuple[str, ...]) -> None:
        self._problems.add(
            at,
            f"{what} is on no LAN inside of {self._node.name!r}",
            f"inside local addresses are behind {' or '.join(inside)}",
        )

    def _take(self, prefix: IPv4Network, at: Position) -> bool:
        """True if this inside global address is free."""
        address = prefix.network_address
        if not is_unicast(prefix, str(address), at, self._problems):
            return False
        for segment in self._segments:
            if prefix.overlaps(segment.prefix):
                self._problems.add(
                    at,
                    f"{address} is in {segment.prefix}, which is on a link of this lab: packets to it would go there",
                    "take an address outside every link, which is then routed here; "
                    "an interface's own is 'interface NAME overload'",
                )
                return False
        other = next((place for taken, place in self._taken if taken == prefix), None)
        if other is not None:
            self._problems.add(
                at,
                f"{address} is inside global twice",
                f"the first is on line {other.line}: each translation has its own",
            )
            return False
        self._taken.append((prefix, at))
        return True

    def _word_at(self, index: int, word: str, *, last: bool = False) -> Position:
        """Where a word of a line stands; the line itself if the word is written in another way."""
        raw = self._shaped.raw.nodes[self._node.name]
        assert isinstance(raw, RawNode) and raw.nat is not None
        text = raw.nat.inside_source[index]
        place = text.rfind(word) if last else text.find(word)
        return self._shaped.inside(max(place, 0), *self._path, "inside-source", index)
