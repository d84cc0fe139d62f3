"""One direction of a link: what happens to each frame, and when it leaves. Sans-IO: frames and `now` in, frames out.

A frame meets the first rule that takes it, and then, in this order: loss, corruption, the rate with its queue, the
delay, reordering, duplication. A wire keeps order, so a jitter stretches and squeezes the distances between frames and
lets none overtake; `reorder` holds a frame back until the next has passed it. Losses in bursts follow the two-state
model of Gilbert (Bell System Technical Journal 39, 1960): a good state that loses nothing, a bad one that loses all.

Chance comes from one generator a rule, seeded by the rule's seed, the link and the direction, so the n-th frame that a
rule takes has the same fate in every run.
"""

from __future__ import annotations

import heapq
import random
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from labctl.configuration.impairment import Impairment
from labctl.impairment.packet_filter import check_program, matches

ETHERNET = 14

# A frame that is held back for the next to overtake waits no longer than this, in seconds, for one to come.
LONGEST_HOLD = 0.05

# Frames on the way, whatever the rules say: a minute's delay of a fast link would take all memory.
MOST_ON_THE_WAY = 100_000


@dataclass(slots=True)
class _Rule:
    """A rule at work."""

    impairment: Impairment
    chance: random.Random
    taken: int = 0
    losing: bool = False
    # When the bits of the last frame are out, and when those that wait have theirs.
    busy_until: float = 0.0
    waiting: deque[float] = field(default_factory=deque)
    last_departure: float = 0.0
    held: tuple[float, bytes] | None = None
    counts: Counter[str] = field(default_factory=Counter)


class ImpairedDirection:
    """`offer` frames, take those that are `due`; `next_departure` is the moment to ask again (None: nothing waits)."""

    def __init__(self, rules: Sequence[Impairment], *, link: str, sender: str) -> None:
        self.passed = 0
        self.overrun = 0
        self._rules = [
            # The generator of `random` decides fates of test traffic; nothing here is a secret.
            _Rule(rule, random.Random(f"{rule.seed}/{link}/{sender}/{place}"))
            for place, rule in enumerate(rules)
            if rule.sender in (None, sender)
        ]
        for rule in self._rules:
            if rule.impairment.only:
                check_program(rule.impairment.program)
        self._queue: list[tuple[float, int, bytes]] = []
        self._order = 0

    def offer(self, frame: bytes, now: float) -> None:
        """A frame came in."""
        for rule in self._rules:
            wanted = rule.impairment
            if wanted.only and not matches(wanted.program, frame):
                continue
            rule.taken += 1
            if wanted.numbers and not any(first <= rule.taken <= last for first, last in wanted.numbers):
                continue
            self._meet(rule, frame, now)
            return
        self._send(now, frame)

    def due(self, now: float) -> list[bytes]:
        """Frames whose time has come, in order."""
        for rule in self._rules:
            if rule.held is not None and rule.held[0] <= now:
                self._release(rule, rule.held[0])
        out = []
        while self._queue and self._queue[0][0] <= now:
            out.append(heapq.heappop(self._queue)[2])
        self.passed += len(out)
        return out

    def next_departure(self) -> float | None:
        """When `due` has something."""
        moments = [rule.held[0] for rule in self._rules if rule.held is not None]
        if self._queue:
            moments.append(self._queue[0][0])
        return min(moments, default=None)

    def take_over(self, before: ImpairedDirection) -> None:
        """Carry on for another set of rules: what is on its way leaves when it was to, and stays counted."""
        for rule in before._rules:
            if rule.held is not None:
                before._release(rule, rule.held[0])
        for departure, _, frame in sorted(before._queue):
            self._send(departure, frame)
        self.passed += before.passed
        self.overrun += before.overrun

    def counters(self) -> list[dict[str, int]]:
        """Per rule: frames `taken`, and of them `lost`, `corrupted`, `overflowed`, `reordered`, `duplicated`."""
        return [{"taken": rule.taken, **rule.counts} for rule in self._rules]

    def _meet(self, rule: _Rule, frame: bytes, now: float) -> None:
        wanted, chance = rule.impairment, rule.chance
        if wanted.loss and self._is_lost(rule):
            rule.counts["lost"] += 1
            return
        if wanted.corrupt and chance.random() < wanted.corrupt and len(frame) > ETHERNET:
            bit = chance.randrange(ETHERNET * 8, len(frame) * 8)
            broken = bytearray(frame)
            broken[bit // 8] ^= 1 << (bit % 8)
            frame = bytes(broken)
            rule.counts["corrupted"] += 1
        departure = now
        if wanted.rate is not None:
            while rule.waiting and rule.waiting[0] <= now:
                rule.waiting.popleft()
            if len(rule.waiting) >= wanted.queue:
                rule.counts["overflowed"] += 1
                return
            rule.busy_until = max(rule.busy_until, now) + len(frame) * 8 / wanted.rate
            rule.waiting.append(rule.busy_until)
            departure = rule.busy_until
        if wanted.delay or wanted.jitter:
            departure += max(0.0, wanted.delay + wanted.jitter * chance.uniform(-1.0, 1.0))
        departure = rule.last_departure = max(departure, rule.last_departure)
        if wanted.reorder and rule.held is None and chance.random() < wanted.reorder:
            rule.counts["reordered"] += 1
            rule.held = (departure + LONGEST_HOLD, frame)
            return
        self._send(departure, frame)
        if rule.held is not None:
            self._release(rule, departure)
        if wanted.duplicate and chance.random() < wanted.duplicate:
            rule.counts["duplicated"] += 1
            self._send(departure, frame)

    def _is_lost(self, rule: _Rule) -> bool:
        wanted, chance = rule.impairment, rule.chance
        if wanted.burst <= 1 or wanted.loss >= 1:
            return chance.random() < wanted.loss
        # The bad state ends with probability 1/burst; it begins as often as makes the share of losses come out.
        ends = 1 / wanted.burst
        begins = min(1.0, ends * wanted.loss / (1 - wanted.loss))
        rule.losing = chance.random() >= ends if rule.losing else chance.random() < begins
        return rule.losing

    def _release(self, rule: _Rule, departure: float) -> None:
        assert rule.held is not None
        frame, rule.held = rule.held[1], None
        self._send(departure, frame)

    def _send(self, departure: float, frame: bytes) -> None:
        if len(self._queue) >= MOST_ON_THE_WAY:
            self.overrun += 1
            return
        self._order += 1
        heapq.heappush(self._queue, (departure, self._order, frame))
