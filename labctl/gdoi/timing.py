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
    # A replacement that is due so soon after another is made with it: one rekey brings both.
    together: float = 5.0
    # A member re-registers at a random point between max(5 %, 60 s) and 60 s before the end.
    register_floor: float = 60.0
    register_share: float = 0.05
    register_clamp: float = 0.50
    register_latest_clamp: float = 0.35
    # A member sends under the new key this long before the old one ends: every member has it by then.
    switch: float = 30.0
    switch_clamp: float = 0.20
    deactivation_share: float = 0.50
    # What unicast rekeys need beyond that: every copy, and these seconds for the last answer.
    unicast_slack: float = 5.0
    # A triggered rekey leaves the old TEK max(floor, share of its lifetime up to the ceiling), if it has that much.
    shorten_floor: float = 90.0
    shorten_share: float = 0.05
    shorten_ceiling: float = 3600.0
    # Unicast copies that leave at once, and the pause before the next batch.
    rekey_batch: int = 100
    rekey_batch_gap: float = 0.05
    # Rekeys in a row that a member may leave unanswered: with the last it is a member no more.
    missed_rekeys: int = 3
    # A replaced KEK opens rekeys this long; members whose keys were wiped come back at random within `wiped`.
    kek_grace: float = 30.0
    wiped: float = 5.0
    # A member of a key tree that hears of a KEK which it was not given waits so long for it, plus a random part of the
    # spread, then registers; and does so for such a reason at most once in the pause. Not in the reference: the wait
    # has room for two copies of a rekey, and leaves half of the shortest life that a triggered rekey leaves a TEK.
    strange_kek: float = 25.0
    strange_kek_spread: float = 10.0
    strange_kek_pause: float = 300.0
    # A key server tells the pseudotime again after so long without a rekey. What a clock gains or loses by itself, at
    # most, is this share of the time.
    time_sync: float = 7200.0
    clock_drift: float = 100e-6
    # After every key server has failed: the first pause, doubled each round up to the longest.
    pause: float = 5.0
    longest_pause: float = 60.0

    def tek_lead(self, lifetime: float, budget: float = 0.0) -> float:
        """How long before a TEK's end the key server makes the next; `budget` is what sending it may take."""
        return min(max(self.tek_floor, self.share * lifetime) + budget, self.clamp * lifetime)

    def kek_lead(self, lifetime: float, budget: float = 0.0) -> float:
        """How long before a KEK's end the key server makes the next."""
        return min(max(self.kek_floor, self.share * lifetime) + budget, self.clamp * lifetime)

    def unicast_budget(self, interval: float, count: int) -> float:
        """What every copy of a unicast rekey takes (reference/cisco-getvpn.md 2.3)."""
        return interval * count + self.unicast_slack

    def shortened(self, remaining: float, lifetime: float) -> float:
        """What a triggered rekey leaves of an old TEK's life (reference/cisco-getvpn.md 2.5)."""
        return min(remaining, max(self.shorten_floor, min(self.shorten_share * lifetime, self.shorten_ceiling)))

    def registration_window(self, lifetime: float) -> tuple[float, float]:
        """The earliest and the latest lead of a member's re-registration."""
        earliest = min(max(self.register_floor, self.register_share * lifetime), self.register_clamp * lifetime)
        latest = min(self.register_floor, self.register_latest_clamp * lifetime)
        return earliest, latest

    def switch_lead(self, lifetime: float, deactivation: float = 0.0) -> float:
        """How long before a TEK's end a member stops sending under it.

        `deactivation`: a rekey left it that much, counted from when it came: half of it is for who had it as a late
        copy, and counts from then.
        """
        lead = min(self.switch, self.switch_clamp * lifetime)
        return self.deactivation_share * deactivation if deactivation else lead

    def pause_after(self, rounds: int) -> float:
        """The pause after the list of key servers has failed `rounds` times."""
        return min(self.longest_pause, self.pause * 2.0 ** min(rounds - 1, 16))
