"""What a run asks of the lab, and what it saw: plain data between `needs`, `gather` and `judge`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Probe:
    """Echoes from one node to another. Equal probes of two checks are sent once; `marker` makes one a check's own."""

    source: str
    destination: str
    count: int
    dscp: int = 0
    timed: bool = False
    marker: bytes = b""
    ipv6: bool = False


@dataclass(frozen=True, slots=True)
class Tap:
    """A capture on an interface of a node; `side` is wire or inside (docs/internals.md, The agent)."""

    node: str
    interface: str
    side: str = "wire"

    def __str__(self) -> str:
        return f"{self.node}:{self.interface}"


@dataclass(frozen=True, slots=True)
class ProbeOutcome:
    """How a probe went. `failure` says why it could not be sent at all; `errors` counts echoes lost, by word."""

    sent: int = 0
    received: int = 0
    rtts_ms: tuple[float, ...] = ()
    errors: Mapping[str, int] = field(default_factory=dict)
    failure: str = ""
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class TapOutcome:
    """The frames that passed, whole; `dropped` is how many more there were."""

    frames: tuple[bytes, ...] = ()
    dropped: int = 0
    failure: str = ""


@dataclass(frozen=True, slots=True)
class Needs:
    """What one check wants to see. `links` has the tap of each link to watch, by the link's name."""

    probes: tuple[Probe, ...] = ()
    links: Mapping[str, Tap | None] = field(default_factory=dict)
    origins: Mapping[str, Tap] = field(default_factory=dict)
    statuses: tuple[str, ...] = ()

    @property
    def taps(self) -> tuple[Tap, ...]:
        """Every capture, each once."""
        wanted = [*(tap for tap in self.links.values() if tap is not None), *self.origins.values()]
        return tuple(dict.fromkeys(wanted))


@dataclass(frozen=True, slots=True)
class Evidence:
    """What was seen. `statuses` are agents' own words, or a failure."""

    probes: Mapping[Probe, ProbeOutcome] = field(default_factory=dict)
    taps: Mapping[Tap, TapOutcome] = field(default_factory=dict)
    statuses: Mapping[str, Mapping[str, Any] | str] = field(default_factory=dict)
