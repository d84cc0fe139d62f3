"""`20 ms`, `1 %`, `10 Mbit/s`, `3-5`: values of impairments as people write them, and back."""

from __future__ import annotations

import re

from labctl.configuration.impairment import Impairment
from labctl.configuration.words import WordError

LONGEST_DELAY = 60.0
SLOWEST, FASTEST = 8_000.0, 100e9
LONGEST_QUEUE = 100_000
LONGEST_BURST = 1000.0

_NUMBER = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*(\S*)\s*")
_TIMES = {"us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0}
_RATES = {"bit": 1.0, "kbit": 1e3, "mbit": 1e6, "gbit": 1e9}


def parse_time(text: str) -> float:
    """`20 ms`, `1.5s`, `300us` in seconds. Raises WordError."""
    hint = "a time has a unit: us, ms or s, for example '20 ms'"
    number, unit = _split(text, "a time", hint)
    if unit not in _TIMES:
        raise WordError(f"{text.strip()!r} is not a time", hint)
    seconds = number * _TIMES[unit]
    if seconds > LONGEST_DELAY:
        raise WordError(f"{text.strip()!r} is longer than a frame may stay on a wire", f"{LONGEST_DELAY:g} s at most")
    return seconds


def parse_share(text: str) -> float:
    """`0.5 %` as a share, 0 to 1. Raises WordError."""
    hint = "a share is in percent, for example '0.5 %'"
    number, unit = _split(text, "a share", hint)
    if unit != "%":
        raise WordError(f"{text.strip()!r} is not a share", hint)
    if number > 100:
        raise WordError(f"{text.strip()!r} is more than all", "100 % at most")
    return number / 100


def parse_rate(text: str) -> float:
    """`10 Mbit/s`, `512 kbit` in bits a second. Raises WordError."""
    hint = "a rate has a unit: kbit/s, Mbit/s or Gbit/s, for example '10 Mbit/s'"
    number, unit = _split(text, "a rate", hint)
    unit = unit.lower().removesuffix("/s").removesuffix("ps")
    if unit not in _RATES:
        raise WordError(f"{text.strip()!r} is not a rate", hint)
    rate = number * _RATES[unit]
    if not SLOWEST <= rate <= FASTEST:
        raise WordError(f"{text.strip()!r} is out of range", "from 8 kbit/s to 100 Gbit/s")
    return rate


def parse_numbers(text: str) -> tuple[tuple[int, int], ...]:
    """`3`, `1-5, 8` as ranges of frames, counted from 1. Raises WordError."""
    ranges = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*([0-9]{1,9})\s*(?:-\s*([0-9]{1,9})\s*)?", part)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
        if not 1 <= first <= last:
            raise WordError(
                f"{part.strip()!r} does not number frames",
                "frames count from 1: '3' is the third, '1-5, 8' six of them",
            )
        ranges.append((first, last))
    return tuple(ranges)


def _split(text: str, what: str, hint: str) -> tuple[float, str]:
    match = _NUMBER.fullmatch(text)
    if match is None:
        raise WordError(f"{text.strip()!r} is not {what}", hint)
    return float(match[1]), match[2]


def describe(rule: Impairment) -> str:
    """A rule in a line, in the words in which it is written."""
    said = []
    if rule.delay:
        said.append(f"delay {_time(rule.delay)}" + (f" ± {_time(rule.jitter)}" if rule.jitter else ""))
    elif rule.jitter:
        said.append(f"jitter {_time(rule.jitter)}")
    if rule.loss:
        said.append(f"loss {_share(rule.loss)}" + (f" in bursts of {rule.burst:g}" if rule.burst > 1 else ""))
    for word in ("duplicate", "reorder", "corrupt"):
        if share := getattr(rule, word):
            said.append(f"{word} {_share(share)}")
    if rule.rate is not None:
        said.append(f"rate {_rate(rule.rate)}, queue {rule.queue}")
    what = ", ".join(said) or "untouched"
    if rule.numbers:
        what += f" for frame {_numbers(rule.numbers)}"
    if rule.only:
        what += f" of '{rule.only}'" if rule.numbers else f" for '{rule.only}'"
    return f"{rule.sender}'s: {what}" if rule.sender else what


def _time(seconds: float) -> str:
    if seconds >= 1:
        return f"{seconds:g} s"
    return f"{seconds * 1e3:g} ms" if seconds >= 1e-3 else f"{seconds * 1e6:g} us"


def _share(share: float) -> str:
    return f"{share * 100:g} %"


def _rate(rate: float) -> str:
    for unit, factor in (("Gbit/s", 1e9), ("Mbit/s", 1e6), ("kbit/s", 1e3)):
        if rate >= factor:
            return f"{rate / factor:g} {unit}"
    return f"{rate:g} bit/s"


def _numbers(ranges: tuple[tuple[int, int], ...]) -> str:
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in ranges)
