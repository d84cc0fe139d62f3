"""A rule as people write it, in a topology or on a command line, becomes an Impairment."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from labctl.configuration.impairment import Impairment
from labctl.configuration.words import WordError, did_you_mean
from labctl.impairment import words
from labctl.impairment.packet_filter import compile_filter

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RuleWords:
    """A rule in words; None is what was left out. `sender` is written `from`."""

    sender: str | None = None
    only: str | None = None
    packets: str | None = None
    delay: str | None = None
    jitter: str | None = None
    loss: str | None = None
    burst: float = 1.0
    duplicate: str | None = None
    reorder: str | None = None
    corrupt: str | None = None
    rate: str | None = None
    queue: int = 1000
    seed: int = 0

    @property
    def says_nothing(self) -> bool:
        """True if the rule does nothing to a frame."""
        return not any((self.delay, self.jitter, self.loss, self.duplicate, self.reorder, self.corrupt, self.rate))


@dataclass(frozen=True, slots=True)
class Misfit:
    """What is wrong with the value of `key`."""

    key: str
    problem: str
    hint: str = ""


def read_rule(rule: RuleWords, nodes: Sequence[str]) -> tuple[Impairment, tuple[Misfit, ...]]:
    """The rule for a link between `nodes`; what is wrong with it is read as if it were left out, and returned."""
    misfits: list[Misfit] = []

    def value(key: str, parse: Callable[[str], T], default: T) -> T:
        text = getattr(rule, key)
        if text is None:
            return default
        try:
            return parse(text)
        except WordError as error:
            misfits.append(Misfit(key, error.problem, error.hint))
            return default

    sender = rule.sender
    if sender is not None and sender not in nodes:
        misfits.append(Misfit("from", f"{sender!r} is not on this link", did_you_mean(sender, nodes)))
        sender = None
    read = Impairment(
        sender=sender,
        only=(rule.only or "").strip(),
        program=value("only", compile_filter, ()),
        numbers=value("packets", words.parse_numbers, ()),
        delay=value("delay", words.parse_time, 0.0),
        jitter=value("jitter", words.parse_time, 0.0),
        loss=value("loss", words.parse_share, 0.0),
        burst=rule.burst,
        duplicate=value("duplicate", words.parse_share, 0.0),
        reorder=value("reorder", words.parse_share, 0.0),
        corrupt=value("corrupt", words.parse_share, 0.0),
        rate=value("rate", words.parse_rate, None),
        queue=rule.queue,
        seed=rule.seed,
    )
    known = {misfit.key for misfit in misfits}
    if read.jitter > read.delay and not known & {"delay", "jitter"}:
        hint = "frames cannot come before they were sent: delay them by as much"
        misfits.append(Misfit("jitter", "the jitter is more than the delay", hint))
    if rule.burst > 1 and not read.loss and "loss" not in known:
        misfits.append(Misfit("burst", "bursts of losses, and no losses", "add a loss, for example '1 %'"))
    return read, tuple(misfits)
