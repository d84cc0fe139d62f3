"""The checks of a topology that names none: what its own nodes, groups and policies promise.

Everybody who can talk does; who the policy cuts off is cut off; every group is registered; one flow from each member is
seen as ESP along its whole way through the provider; and no payload between members shows on any provider link.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from labctl.topology.checks import CheckKind, CheckSpec
from labctl.topology.flows import Fate, Flow, Flows
from labctl.topology.model import Group

# Expedited forwarding (RFC 3246): not the default, so that a DSCP that is kept can be told from one that is not.
EXPEDITED_FORWARDING = 46

# Any-to-any grows with the square; of more stations than this, as many, spread over the file, stand for all.
MOST_STATIONS = 100


def derive_checks(groups: Sequence[Group], flows: Flows) -> list[CheckSpec]:
    """What `labctl test` proves of a lab without `checks:`."""
    # By family, IPv6 or not.
    every = {ipv6: _between_stations(flows, ipv6=ipv6) for ipv6 in (False, True)}
    specs = [spec for ipv6, found in every.items() for spec in _reachability(found, flows, ipv6=ipv6)]
    for group in groups:
        for kind, members in ((CheckKind.REGISTERED, group.registering), (CheckKind.REFUSED, group.refused)):
            if members:
                specs.append(CheckSpec(f"{kind.value}: {group.name}", kind, members, group=group.name))
        specs += _group_checks(group, [flow for flow in every[group.ipv6] if flow.fate is Fate.ENCRYPTED], flows)
    return specs


def _stations(flows: Flows, *, ipv6: bool) -> list[str]:
    stations = flows.stations(ipv6=ipv6)
    if len(stations) > MOST_STATIONS:
        stations = [stations[place * len(stations) // MOST_STATIONS] for place in range(MOST_STATIONS)]
    return stations


def _between_stations(flows: Flows, *, ipv6: bool) -> list[Flow]:
    stations = _stations(flows, ipv6=ipv6)
    return [
        flows.between(source, destination, ipv6=ipv6)
        for source in stations
        for destination in stations
        if source != destination
    ]


def _reachability(every: list[Flow], flows: Flows, *, ipv6: bool) -> list[CheckSpec]:
    stations = _stations(flows, ipv6=ipv6)
    talking = [(flow.source, flow.destination) for flow in every if flow.fate is not Fate.DROPPED]
    silent = [(flow.source, flow.destination) for flow in every if flow.fate is Fate.DROPPED]
    return [
        CheckSpec(_title(_of_family(kind, ipv6), names, others, stations), kind, names, others, ipv6=ipv6)
        for kind, pairs in ((CheckKind.REACHABLE, talking), (CheckKind.BLOCKED, silent))
        for names, others in matrices(pairs)
    ]


def _of_family(kind: CheckKind, ipv6: bool) -> str:
    return f"{kind.value} (IPv6)" if ipv6 else kind.value


def _group_checks(group: Group, encrypted: list[Flow], flows: Flows) -> list[CheckSpec]:
    """One flow a pair of members stands for the pair: hosts behind one member share its crypto map."""
    pairs: dict[tuple[str, str], Flow] = {}
    for flow in encrypted:
        if flow.group == group.name and len(flow.members) == 2:
            pairs.setdefault((flow.members[0], flow.members[1]), flow)
    specs = []
    for member in group.members:
        around = _next_around(member, group.members, pairs)
        if around is not None:
            specs.append(
                CheckSpec(
                    f"{_of_family(CheckKind.ENCRYPTED, group.ipv6)}: {around.source} -> {around.destination}",
                    CheckKind.ENCRYPTED,
                    (around.source,),
                    (around.destination,),
                    links=around.links,
                    dscp=EXPEDITED_FORWARDING,
                    ipv6=group.ipv6,
                )
            )
    shown = [(flow.source, flow.destination) for flow in pairs.values()]
    stations = list(dict.fromkeys(name for pair in shown for name in pair))
    specs += [
        CheckSpec(
            _title(_of_family(CheckKind.NO_PLAIN_TEXT, group.ipv6), sources, destinations, stations),
            CheckKind.NO_PLAIN_TEXT,
            sources,
            destinations,
            links=flows.provider_links,
            ipv6=group.ipv6,
        )
        for sources, destinations in matrices(shown)
    ]
    return specs


def _next_around(member: str, members: Sequence[str], pairs: dict[tuple[str, str], Flow]) -> Flow | None:
    """The flow from a member to the next one in the group, so that each sends once and each receives once."""
    place = members.index(member)
    for other in (*members[place + 1 :], *members[:place]):
        if (member, other) in pairs:
            return pairs[member, other]
    return None


def matrices(pairs: Iterable[tuple[str, str]]) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
    """Pairs as few (sources, destinations): each stands for every pair of theirs but a node with itself."""
    destinations: dict[str, list[str]] = {}
    for source, destination in pairs:
        destinations.setdefault(source, []).append(destination)
    order = list(destinations)
    order += [name for names in destinations.values() for name in names if name not in destinations]
    rank = {name: place for place, name in enumerate(dict.fromkeys(order))}
    grouped: dict[frozenset[str], list[str]] = {}
    for source, names in destinations.items():
        grouped.setdefault(frozenset((*names, source)), []).append(source)
    found: list[tuple[tuple[str, ...], tuple[str, ...]]] = []
    alone: dict[tuple[str, ...], list[str]] = {}
    for everyone, sources in grouped.items():
        if len(sources) > 1:
            found.append((tuple(sources), tuple(sorted(everyone, key=rank.__getitem__))))
        else:
            alone.setdefault(tuple(destinations[sources[0]]), []).append(sources[0])
    return found + [(tuple(sources), names) for names, sources in alone.items()]


def _title(kind: str, sources: Sequence[str], destinations: Sequence[str], stations: Sequence[str]) -> str:
    if len(sources) == len(stations) > 2 and set(sources) == set(destinations):
        return f"{kind}: any" if len(stations) < MOST_STATIONS else f"{kind}: among {len(stations)} nodes"
    if set(sources) == set(destinations):
        return f"{kind}: {' <-> '.join(sources)}" if len(sources) == 2 else f"{kind}: among {', '.join(sources)}"
    return f"{kind}: {', '.join(sources)} -> {', '.join(destinations)}"
