"""What statements mean: parts, each with its commands, what it reads from them and what it writes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from labctl.configuration import NodeConfiguration
from labctl.ios.grammar.language import Tree
from labctl.ios.running import Section

# Sentences about what was said and has no effect.
Notes = list[str]


@dataclass(frozen=True, slots=True)
class Part:
    """A tree of commands. `write` gives the lines that say its part of a configuration, `read` puts what is said of it
    into one: both see all of it, because parts refer to each other by name. What has no effect, because something is
    missing or labctl does not do it, goes to the notes."""

    tree: Tree
    write: Callable[[NodeConfiguration], Iterable[str]] = lambda _: ()
    read: Callable[[Section, NodeConfiguration, Notes], NodeConfiguration] = lambda _, node, __: node
