"""Patterns of a mode's commands as one graph: from each node, the words and arguments that may come next."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from labctl.ios.grammar.arguments import Argument
from labctl.ios.grammar.command import Command
from labctl.ios.grammar.pattern import Choice, Keyword, Optional, Pattern, Sequence, Slot


@dataclass(slots=True, eq=False)
class Node:
    """A place in a command. `ends` is the command that may end here."""

    edges: list[Edge] = field(default_factory=list)
    ends: Command | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Edge:
    """One word: `keyword`, or any that `argument` takes. `name` is what its value is kept under, empty for none."""

    to: Node
    keyword: str = ""
    argument: Argument | None = None
    name: str = ""
    help: str = ""


def graph_of(commands: Iterable[Command], *, negated: bool = False) -> Node:
    """Where lines of these commands begin; `negated`: what may stand behind `no`."""
    start = Node()
    for command in commands:
        begin = Node()
        end = Node(ends=command)
        _connect(begin, command.negation if negated else command.tree, end, command)
        start.edges += begin.edges
        start.ends = start.ends or begin.ends
    return start


def _connect(begin: Node, pattern: Pattern, end: Node, command: Command) -> None:
    """Edges from `begin` such that the pattern leads to `end`. Built from the end: `end` has all of its edges."""
    if isinstance(pattern, Keyword):
        begin.edges.append(Edge(end, pattern.text, None, pattern.kept, command.helps.get(pattern.text, "")))
    elif isinstance(pattern, Slot):
        argument = command.arguments[pattern.name]
        begin.edges.append(Edge(end, "", argument, pattern.name, argument.help))
    elif isinstance(pattern, Choice):
        for branch in pattern.branches:
            _connect(begin, branch, end, command)
    elif isinstance(pattern, Optional):
        _connect(begin, pattern.item, end, command)
        _merge(begin, end)
    else:
        assert isinstance(pattern, Sequence)
        following = end
        for item in reversed(pattern.items[1:]):
            node = Node()
            _connect(node, item, following, command)
            following = node
        if pattern.items:
            _connect(begin, pattern.items[0], following, command)
        else:
            _merge(begin, following)


def _merge(begin: Node, end: Node) -> None:
    """What may follow `end` may follow `begin`."""
    begin.edges += end.edges
    begin.ends = begin.ends or end.ends
