"""When a member changes to its next keys, and when it registers again (reference/cisco-getvpn.md 2.4). Pure."""

from __future__ import annotations

from labctl.gdoi.policy import GroupKeys
from labctl.gdoi.timing import Timing


def registration_moment(keys: GroupKeys, timing: Timing, share: float) -> float | None:
    """When to register again, if no rekey comes before; None where nothing ends.

    A point in the window before the newest TEK of the first ending rule ends, or the KEK: `share` of the way, from 0
    to 1.
    """
    youngest = [keys.teks[rule.spis[-1]] for rule in keys.rules if rule.spis]
    ends = [(tek.expires, tek.lifetime) for tek in youngest]
    if keys.kek is not None:
        ends.append((keys.kek.expires, keys.kek.lifetime))
    points = []
    for expires, lifetime in ends:
        earliest, latest = timing.registration_window(lifetime)
        points.append(expires - earliest + share * max(0.0, earliest - latest))
    return min(points, default=None)


def switch_margin(keys: GroupKeys, spis: tuple[int, ...], timing: Timing) -> float:
    """How long before its end a key of a rule with `spis` is sent under no more (seconds)."""
    lives = [keys.teks[spi].lifetime for spi in spis if spi in keys.teks]
    return max((timing.switch_lead(life, keys.deactivation_delay) for life in lives), default=0.0)


def next_change(keys: GroupKeys, timing: Timing, now: float) -> float | None:
    """When a key ends, or sending changes to another, next."""
    moments = [tek.expires for tek in keys.teks.values()]
    for rule in keys.rules:
        margin = switch_margin(keys, rule.spis, timing)
        moments += [keys.teks[spi].expires - margin for spi in rule.spis if spi in keys.teks]
    moments += keys.activations.values()
    return min((moment for moment in moments if moment > now), default=None)
