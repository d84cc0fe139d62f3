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

from labctl.configuration import KeyServerGroup, RekeyTransport
from labctl.gdoi.policy import GroupKeys
from labctl.gdoi.timing import Timing
from labctl.isakmp.endpoint import Limits
from labctl.simulation.crossing import protected_packet
from labctl.simulation.parties import Member
from labctl.simulation.scenario import Scenario

# What a registration takes beyond waiting: eight messages with the network's delay, and a key server with much to do.
REGISTRATION_SLACK = 30.0

# A key's remaining life travels in whole seconds, and a rekey may wait for a batch: so much longer may a member keep a
# key, beside the age of the copy that it got.
LATE = 10.0

# Rounding of times.
INSTANT = 1e-6

# Members are compared at every change in groups up to this size; in larger ones at every look.
SMALL = 64


class Invariant(Enum):
    """The sentence that is shown."""

    # Counted at every look: an enumeration's own hash is that of its name, computed anew each time.
    __hash__ = object.__hash__

    DECRYPT = "registered members of one key server decrypt each other"
    REGISTERED = "who reaches a key server is registered in the time the rules give"
    LIFE = "no key is used past its life"
    LENGTH = "no member's key lives longer than the key server made it to"
    NONCE = "no key is used with one sender ID by two members"
    EVICTED = "no evicted member gets a key that was made after its eviction"
    EXCLUDED = "nobody sends under a key that an evicted member still has"
    REPLAY = "no rekey is taken twice"
    CLEAR = "who has a policy keeps it: what it protects never leaves in clear"
    STAYED = "in a group with a key tree nobody registers again on another's account"
    FAIL_CLOSE = "nothing protected leaves a member that fails close in clear, with keys or without"


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
    # The longest life of TEKs that was configured so far.
    longest_tek: float = 0.0
    _owners: dict[tuple[int, bytes, int], tuple[str, int]] = field(default_factory=dict)
    # When each key ends, as its key server made it.
    _made: dict[int, float] = field(default_factory=dict)
    # What the policy protects, for example.
    _packet: bytes | None = None

    def __post_init__(self) -> None:
        self.configured([self.scenario.group])
        self._packet = protected_packet([entry for sa in self.scenario.group.sas for entry in sa.policy])

    @property
    def registration_seconds(self) -> float:
        """How long a member may be without keys that reaches every key server: the longest pause, and every attempt."""
        attempts = (self.scenario.key_servers + 1) * self.limits.give_up
        return 1.2 * self.timing.longest_pause + attempts + REGISTRATION_SLACK

    @property
    def healing_seconds(self) -> float:
        """How long a member may lack a key that others have: until it registers before its own ends."""
        return self.longest_tek + self.copies + self.registration_seconds

    @property
    def copies(self) -> float:
        """How late the last copy of a rekey is."""
        rekey = self.scenario.group.rekey
        return float(rekey.retransmit_interval * rekey.retransmit_count)

    @property
    def _slowest(self) -> float:
        """What the slowest datagram of the network takes."""
        network = self.scenario.network
        return network.delay * (11 if network.reordering else 1) + network.jitter

    @property
    def missing_seconds(self) -> float:
        """How long a member of a key tree takes to register after it has seen a rekey under a KEK that it lacks."""
        return self.timing.strange_kek + self.timing.strange_kek_spread + self.registration_seconds

    # What happens.

    def configured(self, groups: Iterable[KeyServerGroup]) -> None:
        """The policy of the groups is, or will be, this."""
        self.longest_tek = max(self.longest_tek, *(sa.tek_lifetime for group in groups for sa in group.sas))

    def disturbed(self, member: Member, now: float, seconds: float | None = None, *, by_chance: bool = True) -> None:
        """The network or an order got in a member's way; `seconds` is what healing takes, if it is not a whole life.

        Not `by_chance`: it spoke to somebody whom it cannot reach, while it may reach others.
        """
        if seconds is None and by_chance:
            member.disturbed = now
        until = now + (self.healing_seconds if seconds is None else seconds)
        member.healed = max(member.healed, until)

    def made(self, spi: int, expires: float, now: float) -> None:
        """A key server has made a key for a life until then; that it ends it earlier is not told everybody."""
        if self._made.get(spi, now) <= now:  # an SPI may come again once its key has ended
            self._made[spi] = expires

    def sent_until(self, member: Member, now: float) -> None:
        """Until now a member has sent under the keys that it sends under."""
        self.checks[Invariant.LIFE] += 1
        for spi in member.sending:
            if member.ends.get(spi, now) < now - INSTANT:
                self._violated(Invariant.LIFE, now, f"{member.name} sent under {_spis([spi])} until now")

    def evicted(self, member: Member, known: Iterable[int], now: float) -> None:
        """From now on it gets no key but these."""
        member.evicted = True
        member.evicted_at = now
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
        if not member.cut and now >= member.healed and now >= member.called_back:
            self._violated(Invariant.STAYED, now, f"{member.name} did, for no reason of its own")

    def took_rekey(self, member: Member, kek: bytes, sequence: int, now: float) -> None:
        """A member has taken a rekey."""
        self.checks[Invariant.REPLAY] += 1
        if (kek, sequence) in member.taken:
            self._violated(Invariant.REPLAY, now, f"{member.name} took rekey {sequence} of KEK {kek.hex()[:8]} twice")
        member.taken.add((kek, sequence))

    def installed(self, member: Member, now: float) -> None:
        """A member's keys have changed."""
        self.closed(member, now)
        engine = member.member
        keys = None if engine is None else engine.keys
        if engine is None or keys is None:
            return
        member.cleared = False
        self._lengths(member, keys, now)
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

    def _lengths(self, member: Member, keys: GroupKeys, now: float) -> None:
        """No key lives longer than it was made to, but for what nothing could date (docs/simulate.md, limits)."""
        late = self.copies + self._slowest + LATE
        kek = None if keys.kek is None else keys.kek.spi
        undatable = now == member.heard_replay and kek != member.kek
        member.kek = kek
        for spi, tek in keys.teks.items():
            self.checks[Invariant.LENGTH] += 1
            over = tek.expires - self._made.get(spi, tek.expires)
            if over > late and undatable:
                member.undated.add(spi)
            if over > late and spi not in member.undated:
                self._violated(Invariant.LENGTH, now, f"{member.name} keeps {_spis([spi])} for {over:.0f} s too long")

    # What is looked at.

    def look(self, now: float) -> None:
        """Everything that holds at any moment."""
        self.decrypting(now)
        for member in self.members:
            self._in_time(member, now)
            self._alive(member, now)
            self.closed(member, now)
            if member.evicted and now > member.evicted_at + self.healing_seconds:
                self._excluded(member, now)

    def closed(self, member: Member, now: float) -> None:
        """A member that fails close sends nothing in clear, but where the policy itself says so."""
        crossing = member.crossing
        if member.engine is None or not member.traits.fail_close or self._packet is None:
            return
        self.checks[Invariant.FAIL_CLOSE] += 1
        if not crossing.receive_only and crossing.clear(self._packet):
            self._violated(Invariant.FAIL_CLOSE, now, f"{member.name} sends in clear")

    def _excluded(self, evicted: Member, now: float) -> None:
        """After a key's life at the latest, an evicted member reads nobody any more."""
        self.checks[Invariant.EXCLUDED] += 1
        for sender in self.members:
            known = sender.sending & evicted.held
            if known and not sender.evicted and now >= sender.healed and not sender.cut:
                what = f"{sender.name} sends under {_spis(known)}, which {evicted.name} has"
                self._violated(Invariant.EXCLUDED, now, what)

    def decrypting(self, now: float) -> None:
        """Compare what members send under with what the others hold."""
        served: dict[tuple[str, int, str], list[Member]] = {}
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
        if engine is None or member.evicted or member.alone:
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
        forgotten = keys is None or self._in_clear(member)
        if forgotten and member.successes and not member.evicted and not member.cleared:
            self._violated(Invariant.CLEAR, now, f"{member.name} has no policy any more")
            member.cleared = True
        if keys is None:
            return
        self.checks[Invariant.LIFE] += 1
        for spi in member.sending:
            if spi not in keys.teks or keys.teks[spi].expires <= now:
                self._violated(Invariant.LIFE, now, f"{member.name} sends under {_spis([spi])}")

    def _in_clear(self, member: Member) -> bool:
        """A member with a policy lets out what that protects."""
        if self._packet is None or member.traits.fail_close or member.crossing.receive_only:
            return False
        return member.crossing.clear(self._packet)

    def _violated(self, invariant: Invariant, now: float, what: str) -> None:
        self.violations.append(Violation(invariant, now, what))


def _spis(spis: Iterable[int]) -> str:
    return ", ".join(f"SPI {spi:#010x}" for spi in sorted(spis))
