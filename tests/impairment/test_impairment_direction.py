"""What a link does to frames: exactly what its rules say, the same in every run."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labctl.configuration import Impairment
from labctl.impairment.direction import LONGEST_HOLD, ImpairedDirection
from labctl.impairment.packet_filter import compile_filter

MILLISECOND = 0.001


def frame(number: int, size: int = 100) -> bytes:
    return bytes(12) + b"\x88\xb5" + number.to_bytes(4, "big") + bytes(size - 18)


def number_of(data: bytes) -> int:
    return int.from_bytes(data[14:18], "big")


def run(
    *rules: Impairment, count: int, spacing: float = MILLISECOND, size: int = 100, sender: str = "a"
) -> tuple[list[tuple[float, bytes]], ImpairedDirection]:
    """Frames 0, 1, 2... sent at a distance; what left and when."""
    direction = ImpairedDirection(rules, link="a--b", sender=sender)
    left: list[tuple[float, bytes]] = []

    def until(moment: float) -> None:
        while (departure := direction.next_departure()) is not None and departure <= moment:
            left.extend((departure, data) for data in direction.due(departure))

    for number in range(count):
        until(number * spacing)
        direction.offer(frame(number, size), number * spacing)
    until(float("inf"))
    return left, direction


def test_without_rules_for_it_a_frame_leaves_at_once_and_as_it_is() -> None:
    left, direction = run(Impairment(sender="b", loss=1.0), count=50)
    assert [(number * MILLISECOND, frame(number)) for number in range(50)] == left
    assert direction.passed == 50


def test_a_delay_is_the_same_for_every_frame() -> None:
    left, _ = run(Impairment(delay=0.02), count=50)
    assert [moment for moment, _ in left] == pytest.approx([0.02 + number * MILLISECOND for number in range(50)])


def test_a_jitter_varies_the_delay_within_its_bounds_and_lets_no_frame_overtake() -> None:
    left, _ = run(Impairment(delay=0.02, jitter=0.005), count=2000, spacing=0.02)
    delays = [moment - number_of(data) * 0.02 for moment, data in left]
    assert [number_of(data) for _, data in left] == list(range(2000))
    assert 0.015 <= min(delays) < 0.0155 and 0.0245 < max(delays) <= 0.025 + 1e-9
    close, _ = run(Impairment(delay=0.02, jitter=0.02), count=2000, spacing=0.0001)
    assert [number_of(data) for _, data in close] == list(range(2000))
    assert all(earlier <= later for (earlier, _), (later, _) in pairwise(close))


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5])
def test_the_share_that_is_said_is_lost(share: float) -> None:
    left, direction = run(Impairment(loss=share), count=20_000)
    (counts,) = direction.counters()
    assert counts["taken"] == 20_000 and counts["lost"] == 20_000 - len(left)
    assert counts["lost"] / 20_000 == pytest.approx(share, rel=0.15)


def test_losses_come_in_bursts_of_the_mean_length_that_is_said() -> None:
    left, _ = run(Impairment(loss=0.1, burst=8), count=100_000)
    there = {number_of(data) for _, data in left}
    gone = [number not in there for number in range(100_000)]
    starts = sum(now and not before for before, now in pairwise([False, *gone]))
    assert sum(gone) / 100_000 == pytest.approx(0.1, rel=0.15)
    assert sum(gone) / starts == pytest.approx(8, rel=0.15)


def test_everything_can_be_lost() -> None:
    assert run(Impairment(loss=1.0, burst=5), count=100)[0] == []


def test_a_duplicate_follows_its_frame() -> None:
    left, direction = run(Impairment(duplicate=0.25), count=4000)
    numbers = [number_of(data) for _, data in left]
    assert numbers == sorted(numbers)
    assert len(numbers) - 4000 == direction.counters()[0]["duplicated"] == pytest.approx(1000, rel=0.15)


def test_a_reordered_frame_leaves_right_behind_the_next() -> None:
    left, direction = run(Impairment(reorder=0.1, delay=0.01), count=4000)
    numbers = [number_of(data) for _, data in left]
    assert sorted(numbers) == list(range(4000))
    late = [before for before, after in pairwise(numbers) if after == before - 1]
    assert len(late) == direction.counters()[0]["reordered"] == pytest.approx(364, rel=0.2)


def test_a_frame_that_waits_to_be_overtaken_waits_no_longer_than_it_says() -> None:
    left, _ = run(Impairment(reorder=1.0, delay=0.01), count=1)
    ((moment, data),) = left
    assert moment == pytest.approx(0.01 + LONGEST_HOLD) and data == frame(0)


def test_corruption_turns_one_bit_and_none_of_the_ethernet_header() -> None:
    left, direction = run(Impairment(corrupt=0.5), count=2000)
    turned = 0
    for number, (_, data) in enumerate(left):
        difference = int.from_bytes(data, "big") ^ int.from_bytes(frame(number), "big")
        assert data[:14] == frame(number)[:14] and difference.bit_count() <= 1
        turned += difference.bit_count()
    assert turned == direction.counters()[0]["corrupted"] == pytest.approx(1000, rel=0.15)


def test_a_rate_is_kept_and_frames_wait_for_it() -> None:
    # 1000 octets take 8 ms at 1 Mbit/s; they come every millisecond.
    left, _ = run(Impairment(rate=1e6), count=100, size=1000)
    assert [moment for moment, _ in left] == pytest.approx([0.008 * (place + 1) for place in range(100)])


def test_what_does_not_fit_the_queue_is_dropped_at_its_tail() -> None:
    left, direction = run(Impairment(rate=1e6, queue=5), count=100, size=1000)
    (counts,) = direction.counters()
    assert counts["overflowed"] == 100 - len(left) > 50
    assert [number_of(data) for _, data in left][:5] == [0, 1, 2, 3, 4]
    assert all(later - earlier == pytest.approx(0.008) for (earlier, _), (later, _) in pairwise(left))


def test_the_first_rule_that_takes_a_frame_counts() -> None:
    spared = Impairment(only="ether proto 0x88b5 and ether[14:4] < 10", program=compile_filter("ether[14:4] < 10"))
    left, direction = run(spared, Impairment(loss=1.0), count=100)
    assert [number_of(data) for _, data in left] == list(range(10))
    assert [counts["taken"] for counts in direction.counters()] == [10, 90]


def test_frames_are_numbered_among_those_that_the_rule_takes() -> None:
    even = compile_filter("ether[17] & 1 = 0")
    left, _ = run(Impairment(only="even", program=even, numbers=((3, 3), (5, 6)), loss=1.0), count=20)
    assert [number_of(data) for _, data in left] == [n for n in range(20) if n not in (4, 8, 10)]


def test_the_same_seed_is_the_same_course_of_chance_and_another_is_not() -> None:
    rule = Impairment(delay=0.01, jitter=0.005, loss=0.1, duplicate=0.1, reorder=0.1, corrupt=0.1)
    first, again = run(rule, count=500)[0], run(rule, count=500)[0]
    assert first == again
    assert run(Impairment(loss=0.5, seed=1), count=500)[0] != run(Impairment(loss=0.5, seed=2), count=500)[0]
    assert run(Impairment(loss=0.5), count=500)[0] != run(Impairment(loss=0.5), count=500, sender="b")[0]


def test_other_rules_leave_what_is_on_its_way_alone() -> None:
    before = ImpairedDirection([Impairment(delay=0.05, reorder=0.5)], link="a--b", sender="a")
    for number in range(20):
        before.offer(frame(number), 0.0)
    after = ImpairedDirection([Impairment(loss=1.0)], link="a--b", sender="a")
    after.take_over(before)
    after.offer(frame(99), 0.01)
    assert after.due(0.01) == []
    assert sorted(number_of(data) for data in after.due(1.0)) == list(range(20))
    assert after.passed == 20


@given(
    st.builds(
        Impairment,
        delay=st.floats(0.02, 1),
        jitter=st.floats(0, 0.02),
        loss=st.floats(0, 1),
        burst=st.floats(1, 100),
        duplicate=st.floats(0, 1),
        reorder=st.floats(0, 1),
        corrupt=st.floats(0, 1),
        rate=st.none() | st.floats(8_000, 1e9),
        queue=st.integers(1, 50),
        seed=st.integers(0, 1 << 40),
    ),
    st.lists(st.floats(0, 0.1), max_size=60),
)
def test_every_frame_is_accounted_for(rule: Impairment, gaps: list[float]) -> None:
    direction = ImpairedDirection([rule], link="a--b", sender="a")
    now, left = 0.0, 0
    for number, gap in enumerate(gaps):
        now += gap
        left += len(direction.due(now))
        direction.offer(frame(number), now)
    while (departure := direction.next_departure()) is not None:
        left += len(direction.due(departure))
    (counts,) = direction.counters()
    lost = counts.get("lost", 0) + counts.get("overflowed", 0)
    assert left == counts["taken"] - lost + counts.get("duplicated", 0) == direction.passed
    assert counts["taken"] == len(gaps)
