"""A lab from the inside: builds nodes and wires, keeps the agents, knows the state of everything.

What blocks (stacks.py) runs on one thread, which alone changes namespaces; the event loop never leaves its own.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from labctl.configuration import Impairment, to_json
from labctl.door import DoorError
from labctl.fabric.impairments import Impairments
from labctl.fabric.member import Member
from labctl.fabric.nodes import NodeFailure, NodeSource
from labctl.fabric.records import Records
from labctl.fabric.stacks import Stacks
from labctl.fabric.wires import Wire, Wiring
from labctl.topology.plan import Plan, PlannedNode

T = TypeVar("T")
Report = Callable[[dict[str, Any]], Awaitable[None]]

# Nodes that are being made at one time.
BUILDERS = 16


class Fabric:
    """One lab. `open` makes it; the door's server (server.py) calls the rest."""

    def __init__(self, lab: str, source: NodeSource, records: Records, stacks: Stacks, thread: ThreadPoolExecutor):
        self.lab = lab
        self.source = source
        self.records = records
        self.plan: Plan | None = None
        self.shutdown = asyncio.Event()
        self._stacks = stacks
        self._thread = thread
        self._members: dict[str, Member] = {}
        self._changed = asyncio.Event()
        self._building = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._impairments = Impairments()
        # What the plan says of links; what was said live beside it stays until the plan says something else.
        self._planned_rules: dict[str, tuple[Impairment, ...]] = {}

    @classmethod
    async def open(cls, lab: str, source: NodeSource, records: Records, proc: str = "/proc") -> Fabric:
        """A fabric without nodes, for the network namespace we are in. Raises OSError."""
        thread = ThreadPoolExecutor(1, "wiring")
        stacks = await asyncio.get_running_loop().run_in_executor(thread, Stacks, proc)
        return cls(lab, source, records, stacks, thread)

    async def build(
        self, plan: Plan, names: Sequence[str] | None, pids: Mapping[str, int], report: Report
    ) -> dict[str, Any]:
        """Make the nodes `names` of `plan` (all by default) and their wires; those that stand already are left alone.

        `report` gets one item for every state that a node enters. Returns `{phases: {name: seconds}, nodes}` when every
        agent has its configuration or its node failed.
        """
        known = {node.name: node for node in plan.nodes}
        wanted = list(known) if names is None else list(dict.fromkeys(names))
        if missing := [name for name in wanted if name not in known]:
            raise DoorError("unknown-node", f"the plan has no node {missing[0]}")
        async with self._building:
            self.plan = plan
            wiring = Wiring(plan)
            for name, wire in self._stacks.laid().items():
                if wiring.wires.get(name) != wire:
                    await self._impairments.clear(name)
                    await self._on_thread(self._stacks.cut, name)
            await self._follow_impairments(plan)
            fresh = [known[name] for name in wanted if name not in self._members or self._members[name].handle is None]
            build = _Build(self, wiring, fresh, pids)
            await self._reporting(build.run(), wanted, report)
        return {"phases": build.phases, "nodes": self._states(wanted)}

    async def wait(
        self, names: Sequence[str] | None, seconds: float | None, report: Report, refused: Sequence[str] = ()
    ) -> dict[str, Any]:
        """Until all of `names` are ready, or none that is not can become so any more, or the time is over.

        Those in `refused` count as ready once their groups would not have them, because the topology says so.
        """
        wanted = list(self._members) if names is None else list(names)
        for name in wanted:
            self.member(name)

        async def settled() -> None:
            while not all(self.member(name).is_settled or self._as_refused(name, refused) for name in wanted):
                await self._changed.wait()

        try:
            async with asyncio.timeout(seconds):
                await self._reporting(settled(), wanted, report)
        except TimeoutError:
            pass  # what is not ready is in the answer
        states = self._states(wanted)
        ready = all(state["state"] == "ready" or self._as_refused(name, refused) for name, state in states.items())
        return {"ready": ready, "nodes": states}

    def _as_refused(self, name: str, refused: Sequence[str]) -> bool:
        return name in refused and self.member(name).is_refused

    async def configure(self, plan: Plan, names: Sequence[str]) -> dict[str, list[str]]:
        """Give running nodes their configuration of `plan`; the groups of each that have to be rekeyed then."""
        known = {node.name: node for node in plan.nodes}
        groups = {}
        async with self._building:
            self.plan = plan
            for name in names:
                groups[name] = await self.member(name).configure(known[name])
        return groups

    async def remove(self, names: Sequence[str]) -> None:
        """End nodes. Their neighbours keep their interfaces; a name that is not there is done already."""
        async with self._building:
            for name in names:
                await self._end(name)

    async def status(self) -> dict[str, Any]:
        """The lab, its nodes as their agents describe them, its links."""
        members = list(self._members.values())
        answers = await asyncio.gather(*(member.status() for member in members))
        links = [to_json(link) for link in self.plan.links] if self.plan else []
        laid, rules = self._stacks.laid(), self._impairments.rules()
        return {
            "lab": self.lab,
            "runtime": self.source.runtime,
            "nodes": {member.name: answer for member, answer in zip(members, answers, strict=True)},
            "links": [
                link | {"up": link["name"] in laid, "impairments": to_json(rules.get(link["name"], ()))}
                for link in links
            ],
        }

    async def impair(self, name: str, rules: Sequence[Impairment]) -> None:
        """Have a link's frames go by `rules` from now on; without any it is a bare wire. Raises DoorError."""
        async with self._building:
            wire = self._stacks.laid().get(name)
            if wire is None:
                known = ", ".join(sorted(self._stacks.laid())) or "none"
                raise DoorError("unknown-link", f"no link {name!r} is up", f"links that are: {known}")
            await self._impair(wire, rules)

    async def impairments(self) -> dict[str, Any]:
        """Link -> `rules`, and by sender what they did."""
        counters = await self._impairments.counters()
        return {
            name: {"rules": to_json(rules), "senders": counters.get(name, {})}
            for name, rules in self._impairments.rules().items()
        }

    async def _impair(self, wire: Wire, rules: Sequence[Impairment]) -> None:
        if rules:
            ends = await self._on_thread(self._stacks.tap, wire.name)
            await self._impairments.set(wire, ends, rules)
        else:
            await self._impairments.clear(wire.name)
            await self._on_thread(self._stacks.untap, wire.name)

    async def _follow_impairments(self, plan: Plan) -> None:
        """Wires that are laid follow a plan that says something else of them than the one before."""
        before, laid = self._planned_rules, self._stacks.laid()
        self._planned_rules = {link.name: link.impairments for link in plan.links}
        for name, rules in self._planned_rules.items():
            if name in laid and rules != before.get(name, ()):
                await self._impair(laid[name], rules)

    def member(self, name: str) -> Member:
        """The node called `name`. Raises DoorError."""
        try:
            return self._members[name]
        except KeyError:
            known = ", ".join(sorted(self._members)) or "none"
            raise DoorError("unknown-node", f"no node {name!r} is up", f"nodes that are: {known}") from None

    async def close(self) -> None:
        """Let go of everything. Under namespaces the end of this process is the end of the lab."""
        for task in list(self._tasks):
            task.cancel()
        for member in self._members.values():
            if member.connection is not None:
                await member.connection.close()
        await self._impairments.close()
        await self._on_thread(self._stacks.close)
        self._thread.shutdown()
        self.records.close()

    # The steps of a build, for _Build.

    def stands(self, names: set[str]) -> bool:
        """True if any of these nodes has been made."""
        return any(name in self._members and self._members[name].state != "creating" for name in names)

    async def make(self, planned: PlannedNode, pid: int | None) -> Member:
        """The process or container, its agent's connection, its settings. Raises NodeFailure, OSError."""
        member = Member(planned, on_state=self._state_changed, on_event=self.records.event)
        self._members[planned.name] = member
        handle = await self.source.obtain(planned, pid)
        await member.attach(handle)
        self._watch(member)
        await self._on_thread(self._stacks.add_node, planned.name, os.dup(handle.namespace), planned.configuration)
        member.enter("created")
        return member

    async def lay(self, wire: Wire) -> None:
        """Make a wire or what is missing of it. Raises OSError."""
        await self._on_thread(self._stacks.lay, wire)
        rules = self._planned_rules.get(wire.name)
        if rules and wire.name not in self._impairments.rules():
            await self._impair(wire, rules)

    async def add_routes(self, name: str) -> None:
        """A node's static routes. Raises OSError."""
        await self._on_thread(self._stacks.add_routes, name)

    async def _end(self, name: str) -> None:
        member = self._members.pop(name, None)
        if member is None:
            return
        # The wires are parked first: they would die with the namespace, and with them the neighbours' ends.
        await self._on_thread(self._stacks.remove_node, name)
        if member.handle is not None:
            await self.source.release(member.handle)
            os.close(member.handle.namespace)
        if member.connection is not None:
            await member.connection.close()
        self.records.event(name, {"type": "state", "state": "removed", "reason": "", "groups": []})
        self._wake()

    async def _on_thread(self, work: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)

    def _watch(self, member: Member) -> None:
        async def watch() -> None:
            assert member.connection is not None and member.handle is not None
            await member.connection.wait_closed()
            if self._members.get(member.name) is member:
                reason = await self.source.cause_of_death(member.handle)
                self.fail(member, reason)

        task = asyncio.create_task(watch())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def fail(self, member: Member, reason: str) -> None:
        """A node failed; it stays, with its reason, until it is removed."""
        if member.state != "failed":
            print(f"labctl fabric: {member.name}: {reason}", file=sys.stderr, flush=True)
            self.records.event(member.name, {"type": "state", "state": "failed", "reason": reason, "groups": []})
            member.enter("failed", reason)

    def _state_changed(self, member: Member) -> None:
        if member.state in ("created", "wired"):  # the later ones are events of the agent's own
            self.records.event(member.name, {"type": "state", "state": member.state, "reason": "", "groups": []})
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def _states(self, names: Sequence[str]) -> dict[str, dict[str, Any]]:
        return {name: self._members[name].progress() for name in names if name in self._members}

    async def _reporting(self, work: Awaitable[None], names: Sequence[str], report: Report) -> None:
        """Carry `work` out, reporting every state of `names` meanwhile."""
        told: dict[str, dict[str, Any]] = {}

        async def tell() -> None:
            for name, state in self._states(names).items():
                if told.get(name) != state:
                    told[name] = state
                    await report(state)

        async def keep_telling() -> None:
            while True:
                changed = self._changed
                await tell()
                await changed.wait()

        teller = asyncio.create_task(keep_telling())
        try:
            await work
            await tell()
        finally:
            teller.cancel()


class _Build:
    """One `build` while it runs: nodes are made side by side, and a wire is laid as soon as both its nodes stand."""

    def __init__(self, fabric: Fabric, wiring: Wiring, nodes: Sequence[PlannedNode], pids: Mapping[str, int]) -> None:
        self.phases: dict[str, float] = {}
        self._fabric = fabric
        self._wiring = wiring
        self._nodes = nodes
        self._pids = pids
        self._pending = {node.name: asyncio.Event() for node in nodes}  # set once a node stands or failed
        self._laying: dict[str, asyncio.Task[None]] = {}
        # Members register as soon as they boot: a first message into a network that is not there yet would cost them
        # the first interval of retransmission.
        self._before_members = {node.name for node in nodes if not node.configuration.memberships}
        self._members_may_boot = asyncio.Event()
        self._done_before_members("")
        self._bounded = asyncio.Semaphore(BUILDERS)
        self._began = time.monotonic()

    async def run(self) -> None:
        await asyncio.gather(*(self._node(node) for node in self._nodes))
        # Wires that are new or changed between nodes that stood before.
        for wire in self._wiring.wires.values():
            if wire.name not in self._laying and self._fabric.stands(wire.nodes):
                await self._fabric.lay(wire)

    async def _node(self, planned: PlannedNode) -> None:
        fabric = self._fabric
        try:
            try:
                async with self._bounded:
                    member = await fabric.make(planned, self._pids.get(planned.name))
            finally:
                self._pending[planned.name].set()
                self._mark("create")
            for wire in self._wiring.of_node(planned.name):
                await self._lay_once(wire)
            await fabric.add_routes(planned.name)
            member.enter("wired")
            self._mark("wire")
            if planned.configuration.memberships:
                await self._members_may_boot.wait()
            await member.boot()
            self._mark("boot")
        except (NodeFailure, OSError, DoorError) as error:
            fabric.fail(fabric.member(planned.name), getattr(error, "message", str(error)))
        finally:
            self._done_before_members(planned.name)

    def _done_before_members(self, name: str) -> None:
        self._before_members.discard(name)
        if not self._before_members:
            self._members_may_boot.set()

    async def _lay_once(self, wire: Wire) -> None:
        if wire.name not in self._laying:
            self._laying[wire.name] = asyncio.create_task(self._lay(wire))
        await self._laying[wire.name]

    async def _lay(self, wire: Wire) -> None:
        for name in wire.nodes & self._pending.keys():
            await self._pending[name].wait()
        await self._fabric.lay(wire)

    def _mark(self, phase: str) -> None:
        self.phases[phase] = round(time.monotonic() - self._began, 4)
