"""When keys are renewed: the formulas of reference/cisco-getvpn.md 2.3-2.4, in one place.

Every value that the reference marks unverified is a field here. Seconds throughout.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Timing:
    """Leads before the end of a key's life."""

    # The key server makes a replacement: max(floor, share of the lifetime), clamped for very short lifetimes.
    tek_floor: float = 90.0
    kek_floor: float = 200.0
    share: float = 0.10
    clamp: float = 0.75
    # A member re-registers at a random point between max(5 %, 60 s) and 60 s before the end.
    register_floor: float = 60.0
    register_share: float = 0.05
    register_clamp: float = 0.50
    register_latest_clamp: float = 0.35
    # A member sends under the new key this long before the old one ends: every member has it by then.
    switch: float = 30.0
    switch_clamp: float = 0.20
    # After every key server has failed: the first pause, doubled each round up to the longest.
    pause: float = 5.0
    longest_pause: float = 60.0

    def tek_lead(self, lifetime: float) -> float:
        """How long before a TEK's end the key server makes the next."""
        return min(max(self.tek_floor, self.share * lifetime), self.clamp * lifetime)

    def kek_lead(self, lifetime: float) -> float:
        """How long before a KEK's end the key server makes the next."""
        return min(max(self.kek_floor, self.share * lifetime), self.clamp * lifetime)

    def registration_window(self, lifetime: float) -> tuple[float, float]:
        """The earliest and the latest lead of a member's re-registration."""
        earliest = min(max(self.register_floor, self.register_share * lifetime), self.register_clamp * lifetime)
        latest = min(self.register_floor, self.register_latest_clamp * lifetime)
        return earliest, latest

    def switch_lead(self, lifetime: float) -> float:
        """How long before a TEK's end a member stops sending under it."""
        return min(self.switch, self.switch_clamp * lifetime)

    def pause_after(self, rounds: int) -> float:
        """The pause after the list of key servers has failed `rounds` times."""
        return min(self.longest_pause, self.pause * 2.0 ** min(rounds - 1, 16))
