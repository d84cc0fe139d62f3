"""What a changed topology would do to the lab that is up. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace

from labctl.configuration import changes_live
from labctl.topology.plan import Plan, PlannedLink


@dataclass(frozen=True, slots=True)
class Changes:
    """Names of nodes and links, in the new plan's order; `replaced` are nodes whose configuration or wires differ.

    `reconfigured` are those whose configuration differs in what a running node can take.
    `impaired` are links that stay, and treat their frames in another way.

    `needs_whole_lab` says why the nodes cannot be changed one by one; empty if they can.
    """

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    replaced: tuple[str, ...] = ()
    reconfigured: tuple[str, ...] = ()
    links_added: tuple[str, ...] = ()
    links_removed: tuple[str, ...] = ()
    impaired: tuple[str, ...] = ()
    needs_whole_lab: str = ""
    checks_changed: bool = False

    @property
    def nothing(self) -> bool:
        """True if the lab is as the topology says; new checks touch nothing that runs."""
        nodes = self.added or self.removed or self.replaced or self.reconfigured
        return not (nodes or self.links_added or self.links_removed or self.impaired or self.needs_whole_lab)

    def lines(self) -> list[str]:
        """For people, one change a line."""
        said = [f"+ node {name}" for name in self.added]
        said += [f"- node {name}" for name in self.removed]
        said += [f"~ node {name} (replaced)" for name in self.replaced]
        said += [f"~ node {name} (as it runs)" for name in self.reconfigured]
        said += [f"+ link {name}" for name in self.links_added]
        said += [f"- link {name}" for name in self.links_removed]
        said += [f"~ link {name} (impairments)" for name in self.impaired]
        if self.needs_whole_lab:
            said.append(f"! the whole lab is replaced: {self.needs_whole_lab}")
        return said


def compare(standing: Plan, wanted: Plan, runtime: str) -> Changes:
    """The way from the plan that stands, carried by `runtime`, to the plan that is wanted."""
    old_nodes = {node.name: node for node in standing.nodes}
    new_nodes = {node.name: node for node in wanted.nodes}
    old_links = {link.name: _bare(link) for link in standing.links}
    new_links = {link.name: _bare(link) for link in wanted.links}
    old_rules = {link.name: link.impairments for link in standing.links}
    links_removed = tuple(name for name, link in old_links.items() if new_links.get(name) != link)
    links_added = tuple(name for name, link in new_links.items() if old_links.get(name) != link)
    rewired = _ends([old_links[name] for name in links_removed] + [new_links[name] for name in links_added])
    changed = [
        name
        for name, node in new_nodes.items()
        if name in old_nodes and (node.digest != old_nodes[name].digest or name in rewired)
    ]
    live = {
        name
        for name in changed
        if name not in rewired and changes_live(old_nodes[name].configuration, new_nodes[name].configuration)
    }
    return Changes(
        added=tuple(name for name in new_nodes if name not in old_nodes),
        removed=tuple(name for name in old_nodes if name not in new_nodes),
        replaced=tuple(name for name in changed if name not in live),
        reconfigured=tuple(name for name in changed if name in live),
        links_added=links_added,
        links_removed=links_removed,
        impaired=tuple(
            link.name
            for link in wanted.links
            if link.name not in links_added and link.impairments != old_rules[link.name]
        ),
        needs_whole_lab=_whole(standing, wanted, runtime),
        checks_changed=standing.checks != wanted.checks,
    )


def _bare(link: PlannedLink) -> PlannedLink:
    return replace(link, impairments=())


def _ends(links: list[PlannedLink]) -> set[str]:
    return {end.node for link in links for end in link.ends}


def _whole(standing: Plan, wanted: Plan, runtime: str) -> str:
    if wanted.runtime not in ("auto", runtime):
        return f"it runs on {runtime}, the topology asks for {wanted.runtime}"
    if standing.clock_scale != wanted.clock_scale:
        return "the clock's scale changed"
    if _trunks(standing) != _trunks(wanted):
        return "links between switches changed"  # wires are laid with the nodes at their ends, and these have none
    return ""


def _trunks(plan: Plan) -> set[PlannedLink]:
    return {_bare(link) for link in plan.links if _ends([link]) <= set(plan.switches)}
