"""`impair:` of a link: the rules that the fabric carries out, with the place of what is wrong with one."""

from __future__ import annotations

from collections.abc import Sequence

from labctl.configuration import Impairment
from labctl.impairment.reading import RuleWords, read_rule
from labctl.topology.problems import Problems
from labctl.topology.raw_link import RawImpairment, RawLink
from labctl.topology.shape import Shaped


def read_impairments(shaped: Shaped, link: int, nodes: Sequence[str], problems: Problems) -> tuple[Impairment, ...]:
    """The rules of the link at this place in the file, whose ends are `nodes`."""
    raw = shaped.raw.links[link]
    assert isinstance(raw, RawLink)
    one = isinstance(raw.impair, RawImpairment)
    rules = [raw.impair] if isinstance(raw.impair, RawImpairment) else raw.impair
    found = []
    for place, rule in enumerate(rules):
        read, misfits = read_rule(RuleWords(**rule.model_dump()), nodes)
        found.append(read)
        path = ("links", link, "impair") if one else ("links", link, "impair", place)
        for misfit in misfits:
            problems.add(shaped.at(*path, misfit.key), misfit.problem, misfit.hint)
    # A link that does nothing to any frame stays a bare wire.
    return tuple(found) if any(rule.does_something for rule in found) else ()
