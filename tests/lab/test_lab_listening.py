"""Keys of a lab while somebody listens: what nodes hold, what comes, what came last; nodes that are away."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import replace
from ipaddress import IPv4Address
from typing import Any

import pytest
from lab_plans import chain

from labctl.configuration import GroupIdentity, GroupMembership
from labctl.door import Call, Connection, DoorError
from labctl.lab import listening
from labctl.lab.keylog import KeyTables
from labctl.lab.listening import KeyListening
from labctl.node.key_listeners import Key, KeyListeners

PLAN = replace(
    chain(),
    nodes=tuple(
        replace(
            node,
            configuration=replace(
                node.configuration,
                memberships=(
                    GroupMembership("G", GroupIdentity(1), (IPv4Address("10.0.0.1"),), "eth0", IPv4Address("10.0.0.2")),
                ),
            ),
        )
        if node.name in ("a", "c")
        else node
        for node in chain().nodes
    ),
)


def key(number: int) -> Key:
    return "exchange", f"{number:032x},sha256,{number:032x},{number:032x}"


class Nodes:
    """The nodes of a door: those that are there serve `keylog` as an agent does."""

    def __init__(self, **held: list[Key]) -> None:
        self.held = held
        self.listeners = {name: KeyListeners() for name in ("a", "b", "c")}
        self.asked: list[str] = []
        self.came = asyncio.Event()
        self.door: Connection | None = None  # held as long as the nodes are

    async def serve(self, call: Call) -> dict[str, Any]:
        name = call.args["name"]
        assert (call.op, call.args["op"]) == ("node", "keylog")
        self.asked.append(name)
        if name not in self.held:
            raise DoorError("unknown-node", f"no node {name}")
        self.came.set()
        return await self.listeners[name].serve(call, self.held[name])


async def listen(nodes: Nodes) -> tuple[KeyListening, KeyTables, list[int], Connection]:
    """A listening that has not begun, its keys, and how many there were at each piece of news."""
    ours, theirs = socket.socketpair()
    nodes.door = await Connection.over(theirs, handler=nodes.serve)
    tables, news = KeyTables(), []
    connection = await Connection.over(ours)
    return KeyListening(connection, PLAN, tables, lambda: news.append(tables.phase1)), tables, news, connection


def test_what_is_held_is_there_at_the_beginning_and_what_came_last_at_the_end() -> None:
    async def main() -> None:
        nodes = Nodes(a=[key(1), key(2)], c=[key(2)])
        listening, tables, news, connection = await listen(nodes)
        await listening.begin()
        assert tables.phase1 == 2 and sorted(nodes.asked) == ["a", "c"], "who is in no group is not asked"
        assert news[-1] == 2
        nodes.listeners["c"].put(*key(3))
        nodes.listeners["a"].put(*key(4))
        await listening.end()
        assert tables.phase1 == 4
        nodes.listeners["a"].put(*key(5))
        assert not tables.add(*key(4)), "once each"
        await connection.close()

    asyncio.run(asyncio.wait_for(main(), 60))


def test_a_node_that_is_away_holds_nobody_up_and_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "AGAIN_SECONDS", 0.01)

    async def main() -> None:
        nodes = Nodes(a=[key(1)])
        heard, tables, _, connection = await listen(nodes)
        await heard.begin()
        assert tables.phase1 == 1
        nodes.came.clear()
        nodes.held["c"] = [key(2)]
        await nodes.came.wait()
        await heard.end()
        assert tables.phase1 == 2
        await connection.close()

    asyncio.run(asyncio.wait_for(main(), 60))


def test_a_lab_that_goes_away_ends_it() -> None:
    async def main() -> None:
        nodes = Nodes(a=[key(1)], c=[])
        heard, tables, _, connection = await listen(nodes)
        await heard.begin()
        await connection.close()
        await heard.end()
        assert tables

    asyncio.run(asyncio.wait_for(main(), 60))
