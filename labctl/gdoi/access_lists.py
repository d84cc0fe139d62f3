"""The access lists of a group's `sa ipsec` entries as one policy, and how much of it counts.

reference/cisco-getvpn.md 2.6: appended in the order of their numbers; a hundred permit entries a group, all lists
together, because each makes a pair of SAs.
"""

from __future__ import annotations

from dataclasses import replace

from labctl.configuration import MOST_PERMITS, AccessListEntry, Action, KeyServerGroup, SaIpsec
from labctl.isakmp.errors import LocalError


def check(configuration: KeyServerGroup) -> None:
    """Raises LocalError for `sa ipsec` entries that no group can keep."""
    group = f"group {configuration.name}"
    if any(sa.tek_lifetime <= 0 for sa in configuration.sas):
        raise LocalError(f"{group}: a key's lifetime is at least a second")
    if len({sa.number for sa in configuration.sas}) < len(configuration.sas):
        raise LocalError(f"{group}: two entries 'sa ipsec' have one number")
    version = 6 if configuration.ipv6 else 4
    if any(entry.source.version != version for entry in configuration.policy):
        raise LocalError(f"{group}: an entry of its policy is not IPv{version}, and a group is of one family")
    if not any(entry.action is Action.PERMIT for entry in configuration.policy):
        raise LocalError(f"{group}: the policy permits nothing, so there is nothing to encrypt")


def honoured(configuration: KeyServerGroup) -> tuple[SaIpsec, ...]:
    """What counts of `configuration.sas`, by number: the list up to its hundredth permit, each entry once.

    An entry that stands in the list before, be it under another number, never matches.
    """
    sas: list[SaIpsec] = []
    seen: set[AccessListEntry] = set()
    permits = 0
    for sa in sorted(configuration.sas, key=lambda sa: sa.number):
        kept: list[AccessListEntry] = []
        for entry in sa.policy:
            if entry in seen:
                continue
            permits += entry.action is Action.PERMIT
            if permits > MOST_PERMITS:
                break
            seen.add(entry)
            kept.append(entry)
        sas.append(replace(sa, policy=tuple(kept)))
        if permits > MOST_PERMITS:
            break
    return tuple(sas)


def exceeding(configuration: KeyServerGroup) -> int | None:
    """The number of the `sa ipsec` entry with the first permit that does not count; None where all do."""
    counted = set(permits_of(honoured(configuration)))
    for sa in sorted(configuration.sas, key=lambda sa: sa.number):
        if any(entry not in counted for entry in permits_of((sa,))):
            return sa.number
    return None


def permits_of(sas: tuple[SaIpsec, ...]) -> tuple[AccessListEntry, ...]:
    """Their permit entries."""
    return tuple(entry for sa in sas for entry in sa.policy if entry.action is Action.PERMIT)
