"""What must hold in every run, at every moment, whatever the network does.

A member that the network disturbed (a datagram lost, a cut, a crash) is given the time that the rules need to heal it
before it is judged again: a rekey that got lost with all its copies is made up for by the registration before the keys
end, which takes a key's life at most.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum

from labctl.configuration import RekeyTransport
from labctl.gdoi.timing import Timing
from labctl.isakmp.endpoint import Limits
from labctl.simulation.parties import Member
from labctl.simulation.scenario import Scenario

# What a registration takes beyond waiting: eight messages with the network's delay, and a key server with much to do.
REGISTRATION_SLACK = 30.0

# Members are compared at every change in groups up to this size; in larger ones at every look.
SMALL = 64


class Invariant(Enum):
    """The sentence that is shown."""

    # Counted at every look: an enumeration's own hash is that of its name, computed anew each time.
    __hash__ = object.__hash__

    DECRYPT = "registered members of one key server decrypt each other"
    REGISTERED = "who reaches a key server is registered in the time the rules give"
    LIFE = "no key is used past its life"
    NONCE = "no key is used with one sender ID by two members"
    EVICTED = "no evicted member gets a key that was made after its eviction"
    REPLAY = "no rekey is taken twice"
    CLEAR = "who has a policy keeps it: what it protects never leaves in clear"
    STAYED = "in a group with a key tree nobody registers again on another's account"


@dataclass(frozen=True, slots=True)
class Violation:
    """What did not hold, when (seconds), and with whom."""

    invariant: Invariant
    at: float
    what: str


@dataclass(slots=True)
class Invariants:
    """Looks at the members, and notes what it looked at and what it found."""

    scenario: Scenario
    members: list[Member]
    timing: Timing = field(default_factory=Timing)
    limits: Limits = field(default_factory=Limits)
    checks: Counter[Invariant] = field(default_factory=Counter)
    violations: list[Violation] = field(default_factory=list)
    _owners: dict[tuple[int, bytes, int], tuple[str, int]] = field(default_factory=dict)

    @property
    def registration_seconds(self) -> float:
        """How long a member may be without keys that reaches every key server: the longest pause, and every attempt."""
        attempts = (self.scenario.key_servers + 1) * self.limits.give_up
        return 1.2 * self.timing.longest_pause + attempts + REGISTRATION_SLACK

    @property
    def healing_seconds(self) -> float:
        """How long a member may lack a key that others have: until it registers before its own ends."""
        rekey = self.scenario.group.rekey
        copies = rekey.retransmit_interval * rekey.retransmit_count
        return max(sa.tek_lifetime for sa in self.scenario.group.sas) + copies + self.registration_seconds

    @property
    def missing_seconds(self) -> float:
        """How long a member of a key tree takes to register after it has seen a rekey under a KEK that it lacks."""
        return self.timing.strange_kek + self.timing.strange_kek_spread + self.registration_seconds

    # What happens.

    def disturbed(self, member: Member, now: float, seconds: float | None = None) -> None:
        """The network or an order got in a member's way; `seconds` is what healing takes, if it is not a whole life."""
        if seconds is None:
            member.disturbed = now
        until = now + (self.healing_seconds if seconds is None else seconds)
        member.healed = max(member.healed, until)

    def evicted(self, member: Member, known: Iterable[int]) -> None:
        """From now on it gets no key but these."""
        member.evicted = True
        member.known = (member.held if member.known is None else member.known).union(known)

    def allowed(self, member: Member, now: float) -> None:
        """It may come back."""
        member.evicted = False
        member.known = None
        self.disturbed(member, now)

    def cleared(self, member: Member) -> None:
        """An operator had it forget its policy, until it is registered again."""
        member.cleared = True

    def called_back(self, member: Member, now: float, seconds: float) -> None:
        """It was told to register again, or somebody made it believe so: it does within so many seconds."""
        member.called_back = max(member.called_back, now + seconds)

    def registered_again(self, member: Member, now: float) -> None:
        """A member has new keys by another registration than its first."""
        rekey = self.scenario.group.rekey
        if not rekey.key_tree or (rekey.transport is RekeyTransport.MULTICAST and rekey.address is None):
            return
        self.checks[Invariant.STAYED] += 1
        if self._judged(member, now) and now >= member.called_back:
            self._violated(Invariant.STAYED, now, f"{member.name} did, for no reason of its own")

    def took_rekey(self, member: Member, kek: bytes, sequence: int, now: float) -> None:
        """A member has taken a rekey."""
        self.checks[Invariant.REPLAY] += 1
        if (kek, sequence) in member.taken:
            self._violated(Invariant.REPLAY, now, f"{member.name} took rekey {sequence} of KEK {kek.hex()[:8]} twice")
        member.taken.add((kek, sequence))

    def installed(self, member: Member, now: float) -> None:
        """A member's keys have changed."""
        engine = member.member
        keys = None if engine is None else engine.keys
        if engine is None or keys is None:
            return
        member.cleared = False
        if member.known is not None:
            self.checks[Invariant.EVICTED] += 1
            if new := member.held - member.known:
                self._violated(Invariant.EVICTED, now, f"{member.name} has {_spis(new)}")
        # An SA keeps the sender IDs that it was made with (labctl.node.roles): a later registration brings others.
        member.sender_ids = {spi: member.sender_ids.get(spi, keys.sender_ids) for spi in member.held}
        for spi, sender_ids in member.sender_ids.items() if keys.needs_sender_id else ():
            for sender_id in sender_ids:
                self.checks[Invariant.NONCE] += 1
                key = (spi, keys.teks[spi].encryption_key, sender_id)
                owner = self._owners.setdefault(key, (member.name, member.life))
                if owner != (member.name, member.life):
                    what = f"{member.name} and {owner[0]} have sender ID {sender_id} of SPI {spi:#010x}"
                    self._violated(Invariant.NONCE, now, what)
        if len(self.members) <= SMALL:
            self.decrypting(now)

    # What is looked at.

    def look(self, now: float) -> None:
        """Everything that holds at any moment."""
        self.decrypting(now)
        for member in self.members:
            self._in_time(member, now)
            self._alive(member, now)

    def decrypting(self, now: float) -> None:
        """Compare what members send under with what the others hold."""
        served: dict[tuple[str, int], list[Member]] = {}
        for member in self.members:
            if member.held and now >= member.healed and not member.cut and not member.evicted and member.served_by:
                served.setdefault(member.served_by, []).append(member)
        for members in served.values():
            if len(members) < 2:
                continue
            self.checks[Invariant.DECRYPT] += 1
            common = frozenset.intersection(*{member.held for member in members})
            for sender in members:
                if not sender.sending <= common:
                    missing = sender.sending - common
                    deaf = next(member for member in members if missing - member.held)
                    what = f"{deaf.name} does not hold {_spis(missing)} of {sender.name}"
                    self._violated(Invariant.DECRYPT, now, what)

    def _in_time(self, member: Member, now: float) -> None:
        engine = member.member
        if engine is None or member.evicted or member.cut:
            return
        self.checks[Invariant.REGISTERED] += 1
        since = member.unregistered_since
        if since is not None and now - max(since, member.disturbed) > self.registration_seconds:
            self._violated(Invariant.REGISTERED, now, f"{member.name} since {since:.0f} s: {engine.reason}")
            member.disturbed = now  # said once, not at every look

    def _alive(self, member: Member, now: float) -> None:
        engine = member.member
        if engine is None:
            return
        keys = engine.keys
        self.checks[Invariant.CLEAR] += 1
        if keys is None:
            if member.successes and not member.evicted and not member.cleared:
                self._violated(Invariant.CLEAR, now, f"{member.name} has no policy any more")
                member.cleared = True
            return
        self.checks[Invariant.LIFE] += 1
        for spi in member.sending:
            if spi not in keys.teks or keys.teks[spi].expires <= now:
                self._violated(Invariant.LIFE, now, f"{member.name} sends under {_spis([spi])}")

    def _violated(self, invariant: Invariant, now: float, what: str) -> None:
        self.violations.append(Violation(invariant, now, what))


def _spis(spis: Iterable[int]) -> str:
    return ", ".join(f"SPI {spi:#010x}" for spi in sorted(spis))
