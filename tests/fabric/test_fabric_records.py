"""What a fabric remembers: bounded, numbered, and honest about what a slow reader lost."""

from __future__ import annotations

import asyncio
from pathlib import Path

from labctl.fabric.container import hosts_file
from labctl.fabric.records import Records, Ring, timestamp


def test_a_ring_keeps_the_newest_and_their_numbers() -> None:
    async def body() -> None:
        ring = Ring(3)
        for number in range(5):
            ring.append({"number": number})
        assert [(entry["seq"], entry["number"]) for entry in ring.since(0)] == [(3, 2), (4, 3), (5, 4)]
        assert [entry["seq"] for entry in ring.since(4)] == [5]
        assert ring.since(5) == ring.since(99) == []
        assert ring.last == 5

    asyncio.run(body())


def test_a_follower_is_told_what_it_lost() -> None:
    async def body() -> None:
        ring = Ring(3)
        ring.append({"number": 0})
        follower = ring.follow(0)
        assert (await anext(follower))["number"] == 0
        for number in range(1, 6):
            ring.append({"number": number})
        assert await anext(follower) == {"lost": 2}
        assert [(await anext(follower))["number"] for _ in range(3)] == [3, 4, 5]
        waiting = asyncio.ensure_future(anext(follower))
        await asyncio.sleep(0)
        assert not waiting.done()
        ring.append({"number": 6})
        assert (await waiting)["number"] == 6

    asyncio.run(body())


def test_log_events_become_ios_lines_in_the_nodes_own_file(tmp_path: Path) -> None:
    async def body() -> None:
        records = Records(tmp_path)
        words = {"facility": "GDOI", "severity": 5, "mnemonic": "GM_REGS_COMPL", "text": "Registration complete"}
        records.event("ce1", {"type": "log", "time": 0.25, **words})
        records.event("ce1", {"type": "state", "state": "ready"})
        records.close()
        assert [line["text"] for line in records.lines.since(0)] == ["%GDOI-5-GM_REGS_COMPL: Registration complete"]
        assert [event["type"] for event in records.events.since(0)] == ["log", "state"]

    asyncio.run(body())
    text = (tmp_path / "ce1.log").read_text()
    assert text == "*Jan  1 00:00:00.250: %GDOI-5-GM_REGS_COMPL: Registration complete\n"


def test_timestamps_carry_milliseconds() -> None:
    assert timestamp(86399.0019) == "*Jan  1 23:59:59.001"


def test_every_name_of_the_lab_is_in_the_hosts_file() -> None:
    text = hosts_file("h1", {"h1": "10.0.0.1", "h2": "10.0.0.2"}, {"h1": "2001:db8:1:1::10"})
    assert text == "127.0.0.1 localhost\n10.0.0.1 h1\n10.0.0.2 h2\n::1 localhost\n2001:db8:1:1::10 h1\n"
    assert "127.0.1.1 lonely" in hosts_file("lonely", {}, {})
