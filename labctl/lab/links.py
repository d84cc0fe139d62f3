"""Which link a word means: its full name, or `a--b` where one link joins a and b."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from labctl.lab.errors import BadRequest
from labctl.topology.plan import Plan, PlannedLink


def link_named(plan: Plan, word: str, what: str = "link") -> PlannedLink:
    """The link that a word means. Raises BadRequest; `what` is what the word could have been."""
    links = [link for link in plan.links if _names(link, word)]
    if len(links) == 1:
        return links[0]
    if links:
        raise BadRequest(f"{word} are several links", f"say which: {', '.join(link.name for link in links)}")
    raise BadRequest(f"lab {plan.lab} has no {what} {word!r}", meant(word, [link.name for link in plan.links]))


def meant(word: str, known: Iterable[str]) -> str:
    """What may have been meant, or what there is."""
    choices = list(known)
    close = difflib.get_close_matches(word, choices, n=1)
    return f"did you mean {close[0]!r}?" if close else f"there are {', '.join(choices)}"


def _names(link: PlannedLink, word: str) -> bool:
    if word == link.name:
        return True
    ends = word.split("--")
    if len(ends) != 2:
        return False
    first, second = link.ends
    return any(
        _is_end(ends[0].strip(), here.node, str(here)) and _is_end(ends[1].strip(), there.node, str(there))
        for here, there in ((first, second), (second, first))
    )


def _is_end(word: str, node: str, end: str) -> bool:
    return word in (node, end)
