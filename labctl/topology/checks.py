"""What a topology can state about its running lab; `checks/` proves or refutes it with real packets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any


class CheckKind(Enum):
    """The statements. Their meaning is described on `CheckSpec`."""

    REACHABLE = "reachable"
    REGISTERED = "registered"
    REFUSED = "refused"
    ENCRYPTED = "encrypted"
    NO_PLAIN_TEXT = "no-plain-text"
    BLOCKED = "blocked"
    LATENCY = "latency"
    LOSS = "loss"


@dataclass(frozen=True, slots=True)
class CheckSpec:
    """One check, resolved.

    - reachable / blocked: every one of `sources` does / does not get an echo from every one of `destinations`.
    - registered: every one of `sources` (group members) is registered with `group`.
    - refused: every one of `sources` (group members) tried, and has no keys of `group`.
    - encrypted: a flow sources[0] -> destinations[0] is seen as ESP with its original addresses and DSCP on `links`.
    - no-plain-text: a marker sent along every (source, destination) pair never appears on `links`.
    - latency: 95th percentile round trip of each pair is at most `bound` (milliseconds).
    - loss: at most `bound` (per cent) of `count` echoes of each pair are lost.

    Packets are IPv4, or IPv6 with `ipv6`. Node names throughout; `links` are `PlannedLink.name`s.
    """

    name: str
    kind: CheckKind
    sources: tuple[str, ...] = ()
    destinations: tuple[str, ...] = ()
    links: tuple[str, ...] = ()
    group: str | None = None
    bound: float | None = None
    count: int = 3
    dscp: int = 0
    ipv6: bool = False


def was_refused(group: Mapping[str, Any]) -> bool:
    """True if a membership, as an agent's status says it, tried at least once, to the end, and has no keys."""
    if group.get("state") == "registered":
        return False
    return bool(group.get("attempts")) and (bool(group.get("reason")) or group["attempts"] > 1)
