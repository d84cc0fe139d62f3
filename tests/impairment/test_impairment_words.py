"""Values of impairments: what people write, what is refused and why, and a rule said back in their words."""

from __future__ import annotations

from typing import Any

import pytest

from labctl.configuration import Impairment
from labctl.configuration.words import WordError
from labctl.impairment.reading import RuleWords, read_rule
from labctl.impairment.words import describe, parse_numbers, parse_rate, parse_share, parse_time


@pytest.mark.parametrize(
    ("parse", "text", "value"),
    [
        (parse_time, "20 ms", 0.02),
        (parse_time, "1.5s", 1.5),
        (parse_time, "300 us", 0.0003),
        (parse_share, "0.5 %", 0.005),
        (parse_share, "100%", 1.0),
        (parse_rate, "10 Mbit/s", 10e6),
        (parse_rate, "512kbit", 512e3),
        (parse_rate, "2 Gbitps", 2e9),
        (parse_rate, "1 gbit/s", 1e9),
        (parse_numbers, "3", ((3, 3),)),
        (parse_numbers, "1-5, 8", ((1, 5), (8, 8))),
    ],
)
def test_a_value_means_what_it_says(parse: Any, text: str, value: Any) -> None:
    assert parse(text) == (pytest.approx(value) if isinstance(value, float) else value)


@pytest.mark.parametrize(
    ("parse", "text", "problem", "hint"),
    [
        (parse_time, "20", "'20' is not a time", "a time has a unit: us, ms or s, for example '20 ms'"),
        (parse_time, "-1 ms", "'-1 ms' is not a time", "a time has a unit: us, ms or s, for example '20 ms'"),
        (parse_time, "61 s", "'61 s' is longer than a frame may stay on a wire", "60 s at most"),
        (parse_share, "0.5", "'0.5' is not a share", "a share is in percent, for example '0.5 %'"),
        (parse_share, "101 %", "'101 %' is more than all", "100 % at most"),
        (
            parse_rate,
            "10 MB/s",
            "'10 MB/s' is not a rate",
            "a rate has a unit: kbit/s, Mbit/s or Gbit/s, for example '10 Mbit/s'",
        ),
        (parse_rate, "1 kbit/s", "'1 kbit/s' is out of range", "from 8 kbit/s to 100 Gbit/s"),
        (
            parse_numbers,
            "0",
            "'0' does not number frames",
            "frames count from 1: '3' is the third, '1-5, 8' six of them",
        ),
        (
            parse_numbers,
            "5-3",
            "'5-3' does not number frames",
            "frames count from 1: '3' is the third, '1-5, 8' six of them",
        ),
    ],
)
def test_a_value_that_is_none_is_refused_with_a_hint(parse: Any, text: str, problem: str, hint: str) -> None:
    with pytest.raises(WordError) as caught:
        parse(text)
    assert (caught.value.problem, caught.value.hint) == (problem, hint)


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        (Impairment(delay=0.02, jitter=0.005, loss=0.005), "delay 20 ms ± 5 ms, loss 0.5 %"),
        (Impairment(sender="pe1", loss=0.1, burst=4), "pe1's: loss 10 % in bursts of 4"),
        (Impairment(rate=10e6, queue=50, corrupt=0.01), "corrupt 1 %, rate 10 Mbit/s, queue 50"),
        (Impairment(only="esp", numbers=((3, 3), (5, 9)), loss=1.0), "loss 100 % for frame 3, 5-9 of 'esp'"),
        (Impairment(only="esp"), "untouched for 'esp'"),
        (Impairment(delay=2.0, duplicate=0.01, reorder=0.02), "delay 2 s, duplicate 1 %, reorder 2 %"),
    ],
)
def test_a_rule_is_said_in_the_words_it_is_written_in(rule: Impairment, said: str) -> None:
    assert describe(rule) == said


def test_everything_that_is_wrong_with_a_rule_is_said_at_once() -> None:
    rule = RuleWords(sender="pe3", only="udp prt 1", delay="5", loss="2", burst=3, jitter="1 ms")
    read, misfits = read_rule(rule, ("pe1", "pe2"))
    assert [misfit.key for misfit in misfits] == ["from", "only", "delay", "loss"]
    assert misfits[0].hint == "did you mean 'pe2'?"
    assert read.sender is None and read.program == ()


def test_values_that_do_not_fit_each_other_are_refused() -> None:
    keys = [misfit.key for misfit in read_rule(RuleWords(delay="1 ms", jitter="2 ms", burst=2), ("a", "b"))[1]]
    assert keys == ["jitter", "burst"]
