"""Deadlines by key, and memory that follows the timers that run, not those that ever ran."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from labctl.isakmp.timers import Timers


def test_timers_come_due_in_their_order_and_once() -> None:
    timers: Timers[str] = Timers()
    timers.set("late", 3.0)
    timers.set("early", 1.0)
    assert timers.next_deadline() == 1.0
    assert timers.pop_due(0.9) is None
    assert [timers.pop_due(5.0), timers.pop_due(5.0), timers.pop_due(5.0)] == ["early", "late", None]
    assert timers.next_deadline() is None


def test_setting_again_replaces_and_cancelling_stops() -> None:
    timers: Timers[str] = Timers()
    timers.set("moved", 1.0)
    timers.set("moved", 9.0)
    timers.set("stopped", 2.0)
    timers.cancel("stopped")
    timers.cancel("never set")
    assert timers.next_deadline() == 9.0
    assert timers.pop_due(8.9) is None
    assert timers.pop_due(9.0) == "moved"


def test_timers_that_were_replaced_or_cancelled_leave_no_memory_behind() -> None:
    """A server's associations end long before the lifetime they were given."""
    timers: Timers[int] = Timers()
    # The next one due stands in front of all that follow, so that none of them comes to the front to be dropped.
    timers.set(-1, 5.0)
    for number in range(20_000):
        timers.set(number, 1e9)
        timers.cancel(number)
        timers.set(-2, 2e9 - number)
        assert timers.next_deadline() == 5.0
    assert timers.kept < 200
    assert (timers.pop_due(3e9), timers.pop_due(3e9), timers.pop_due(3e9)) == (-1, -2, None)


@given(st.lists(st.tuples(st.sampled_from("abcdefgh"), st.none() | st.integers(0, 50)), max_size=200))
def test_any_sequence_of_settings_behaves_as_a_table_would(steps: list[tuple[str, int | None]]) -> None:
    timers: Timers[str] = Timers()
    table: dict[str, int] = {}
    for key, deadline in steps:
        if deadline is None:
            timers.cancel(key)
            table.pop(key, None)
        else:
            timers.set(key, deadline)
            table[key] = deadline
        assert timers.next_deadline() == (min(table.values()) if table else None)
    due = list(iter(lambda: timers.pop_due(50), None))
    assert sorted(due) == sorted(table)
    assert [table[key] for key in due] == sorted(table.values())
