"""`up`: a plan becomes a running lab, as a transaction (design decision 11), or a running lab converges to its plan.

A lab that is not there is made; whatever stops that before its end - a failure, Ctrl-C, SIGTERM - is rolled back.
A lab that is there is compared with the topology: nothing to do, nodes to start, or changes for `--apply`. A node that
does not become ready in time ends `up` with NotReady but leaves the lab up, so that one can look why.
"""

from __future__ import annotations

import asyncio
import difflib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labctl.configuration import to_json
from labctl.door import Connection
from labctl.door.connection import EventHandler
from labctl.lab.changes import Changes, compare
from labctl.lab.directory import LabDirectory, write_private
from labctl.lab.down import destroy
from labctl.lab.errors import BadRequest, LabError, NotReady, TopologyChanged
from labctl.lab.find import state_of
from labctl.lab.journal import BEGIN, UP, Journal
from labctl.lab.keylog import collect
from labctl.lab.live import reconfigure
from labctl.lab.lock import LabLock
from labctl.lab.progress import NodeChanged, Note, PhaseBegan, Progress, Timing
from labctl.lab.runtimes import choose, runtime_named
from labctl.lab.standing import keep_plan, standing_plan
from labctl.runtime.protocol import LabNotRunning, Runtime, RuntimeFailure
from labctl.topology.pki import Credentials, PkiPlan
from labctl.topology.plan import Plan
from labctl.topology.planner import NO_CREDENTIALS

if TYPE_CHECKING:
    from labctl.lab.pki.state import LabPki

# A group of 30 members registers in well under a second; a machine that is twenty times slower still makes it.
DEFAULT_TIMEOUT = 60.0

# States in which a node needs no help from `up`.
_ALIVE = ("created", "wired", "booting", "ready")

# Of the log of nodes that failed, told before a roll-back.
LINES_OF_A_FAILURE = 10

# The phase in which key pairs are made.
KEYS = "keys"

MakePlan = Callable[[bytes, Credentials], Plan]


@dataclass(frozen=True, slots=True)
class UpRequest:
    """What `up` was asked. `nodes`: only these; empty is all. `topology` is where `text` was read.

    Without `rollback`, what a failed `up` made stays until `down`, to be looked at.
    """

    topology: Path
    text: str
    nodes: tuple[str, ...] = ()
    runtime: str | None = None
    apply: bool = False
    timeout: float = DEFAULT_TIMEOUT
    keylog: bool = False
    rollback: bool = True


@dataclass(frozen=True, slots=True)
class UpReport:
    """How it went: `changes` of a lab that was there, seconds of each phase, and the states of the nodes asked for."""

    lab: str
    runtime: str
    was_up: bool
    phases: dict[str, float]
    seconds: float
    started: tuple[str, ...]
    changes: Changes = field(default_factory=Changes)


async def bring_up(directory: LabDirectory, make_plan: MakePlan, request: UpRequest, progress: Progress) -> UpReport:
    """Carry the plan out. Raises LabError, RuntimeFailure or DoorError; then nothing new is left (but see NotReady)."""
    with LabLock(directory.lock, "up"):
        wanted = await _wanted(directory, make_plan, request, progress)
        if directory.exists:
            converged = await _converge_if_up(directory, wanted, request, progress)
            if converged is not None:
                return converged
            await destroy(directory)
            wanted = _begun_anew(wanted, make_plan, request)
        return await _make(directory, wanted, request, progress)


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What shall stand, and what it derives from. `pki` is None where nothing has a key pair of its own."""

    plan: Plan
    secret: bytes
    pki: LabPki | None = None
    seconds: float = 0.0  # that key pairs took

    def keep(self, directory: LabDirectory) -> None:
        """Write the plan and the key pairs."""
        if self.pki is not None:
            from labctl.lab.pki.state import keep_pki

            keep_pki(directory, self.pki)
        keep_plan(directory, self.plan)


async def _wanted(directory: LabDirectory, make_plan: MakePlan, request: UpRequest, progress: Progress) -> _Wanted:
    """Plan; where the plan asks for key pairs, make those that the lab lacks, and plan again (docs/internals.md)."""
    secret = directory.secret()
    plan = _with_keylog(make_plan(secret, NO_CREDENTIALS), request.keylog)
    _refuse_unknown(plan, request.nodes)
    if plan.pki == PkiPlan() and not directory.pki.exists():
        return _Wanted(plan, secret)
    from labctl.lab.pki.making import complete, covers
    from labctl.lab.pki.state import load_pki

    kept = load_pki(directory)
    if not covers(kept, plan.pki):
        progress(PhaseBegan(KEYS))
    begin = time.monotonic()
    nodes = [node.name for node in plan.nodes]
    pki = await asyncio.to_thread(complete, kept, plan.pki, nodes, float(int(time.time())))
    return _planned_with(_Wanted(plan, secret, seconds=time.monotonic() - begin), pki, make_plan, request)


def _begun_anew(wanted: _Wanted, make_plan: MakePlan, request: UpRequest) -> _Wanted:
    """The same for a lab whose clock starts again."""
    if wanted.pki is None:
        return wanted
    from labctl.lab.pki.making import begin_anew

    return _planned_with(wanted, begin_anew(wanted.pki, float(int(time.time()))), make_plan, request)


def _planned_with(wanted: _Wanted, pki: LabPki, make_plan: MakePlan, request: UpRequest) -> _Wanted:
    from labctl.lab.pki.credentials import credentials_of

    plan = _with_keylog(make_plan(wanted.secret, credentials_of(pki)), request.keylog)
    return replace(wanted, plan=plan, pki=pki)


async def _make(directory: LabDirectory, wanted: _Wanted, request: UpRequest, progress: Progress) -> UpReport:
    """A lab from nothing; rolled back unless it gets to its end."""
    plan = wanted.plan
    runtime = await choose(plan.runtime, request.runtime)
    journal = Journal(directory.journal)
    directory.create()
    try:
        journal.append(BEGIN, lab=plan.lab, runtime=runtime.name, topology=str(request.topology.absolute()))
        directory.keep_secret(wanted.secret)
        write_private(directory.topology, request.text)
        wanted.keep(directory)
        timing = Timing(journal, progress, before=wanted.seconds)
        if wanted.pki is not None:
            timing.add(KEYS, wanted.seconds)
        with timing.phase("start"):
            connection = await runtime.start(directory, plan, journal.record, on_event=_notes(progress))
        try:
            names = request.nodes or tuple(node.name for node in plan.nodes)
            await _build(connection, runtime, directory, plan, names, timing, progress)
            journal.append(UP)
            ready = await _wait(connection, plan, names, request.timeout, timing, progress)
            await _keys(connection, directory, plan)
        finally:
            await connection.close()
    except BaseException as error:
        if request.rollback:
            await _roll_back(directory, error, progress)
        raise
    report = UpReport(plan.lab, runtime.name, False, timing.phases, timing.total, names)
    _insist(ready, plan, report)
    return report


async def _roll_back(directory: LabDirectory, error: BaseException, progress: Progress) -> None:
    progress(Note("Stopped: rolling back." if isinstance(error, asyncio.CancelledError) else "Failed: rolling back."))
    try:
        await destroy(directory)
    except (LabError, RuntimeFailure) as worse:
        # The first error is the one to report; state is kept, so `down` can finish this.
        progress(Note(f"Rolling back failed as well: {worse}. 'labctl down' removes the rest."))


async def _converge_if_up(
    directory: LabDirectory, wanted: _Wanted, request: UpRequest, progress: Progress
) -> UpReport | None:
    """Bring a lab that is up to what the topology says; None if it must be made anew."""
    state, plan = state_of(directory), wanted.plan
    if not state.is_up or state.runtime is None:
        progress(Note(f"An 'up' of {plan.lab} did not come to its end: removing what it left."))
        return None
    runtime = runtime_named(state.runtime)
    if request.runtime not in (None, "auto", runtime.name):
        raise BadRequest(
            f"lab {plan.lab} is up on {runtime.name}, not on {request.runtime}", "'labctl down' first, to change that"
        )
    try:
        connection = await runtime.connect(directory)
    except LabNotRunning:
        progress(Note(f"Lab {plan.lab} does not answer: removing what is left of it, and starting anew."))
        return None
    try:
        return await _converge(connection, runtime, directory, wanted, request, progress)
    finally:
        await connection.close()


async def _converge(
    connection: Connection,
    runtime: Runtime,
    directory: LabDirectory,
    wanted: _Wanted,
    request: UpRequest,
    progress: Progress,
) -> UpReport | None:
    status = await connection.call("status")
    states = {name: str(facts.get("state")) for name, facts in status["nodes"].items()}
    standing = standing_plan(directory)
    # A key log that was asked for at the first `up` stays until `down`; leaving the option out is no change.
    plan = _with_keylog(wanted.plan, any(node.configuration.keylog for node in standing.nodes))
    changes = compare(standing, plan, runtime.name)
    names = request.nodes or tuple(node.name for node in plan.nodes)
    if not changes.nothing:
        _may_apply(changes, request)
        if changes.needs_whole_lab:
            progress(Note(f"The whole lab is replaced: {changes.needs_whole_lab}."))
            return None
    leaving = [name for name in (*changes.removed, *changes.replaced) if name in states]
    fallen = [name for name in names if name in states and states[name] not in _ALIVE and name not in leaving]
    starting = tuple(name for name in names if name not in states or name in changes.replaced or name in fallen)
    journal = Journal(directory.journal)
    timing = Timing(journal, progress)
    if leaving or fallen:
        with timing.phase("remove"):
            await connection.call("remove", nodes=[*leaving, *fallen])
            await runtime.remove(directory, [*leaving, *fallen])
    write_private(directory.topology, request.text)
    replace(wanted, plan=plan).keep(directory)
    live = [name for name in changes.reconfigured if name not in starting]
    if live:
        with timing.phase("configure"):
            await reconfigure(connection, plan, live, progress)
    if starting or changes.impaired:
        await _build(connection, runtime, directory, plan, starting, timing, progress)
    ready = await _wait(connection, plan, names, request.timeout, timing, progress)
    await _keys(connection, directory, plan)
    report = UpReport(plan.lab, runtime.name, True, timing.phases, timing.total, starting, changes)
    _insist(ready, plan, report)
    return report


async def _build(
    connection: Connection,
    runtime: Runtime,
    directory: LabDirectory,
    plan: Plan,
    names: Sequence[str],
    timing: Timing,
    progress: Progress,
) -> None:
    journal = Journal(directory.journal)
    with timing.phase("create"):
        pids = await runtime.create(directory, plan, names, journal.record)
    with timing.phase("build"):
        call = await connection.open("build", plan=to_json(plan), nodes=list(names), pids=pids)
        async for item in call:
            progress(_node_changed(item))
        built = await call.result()
    failed = {name: facts.get("reason") for name, facts in built["nodes"].items() if facts.get("state") == "failed"}
    if failed:
        await _tell_logs(connection, directory, list(failed), progress)
        raise NotReady("; ".join(f"{name}: {reason}" for name, reason in failed.items()))


async def _tell_logs(connection: Connection, directory: LabDirectory, names: Sequence[str], progress: Progress) -> None:
    """What failed nodes said last: a roll-back takes their logs along."""
    for name in names:
        file = directory.logs / f"{name}.log"
        if file.exists():  # on this machine (namespaces), and with what the agent said while it fell
            lines = file.read_text(errors="replace").splitlines()[-LINES_OF_A_FAILURE:]
        else:
            call = await connection.open("logs", nodes=[name], lines=LINES_OF_A_FAILURE)
            lines = [item["text"] async for item in call if "text" in item]
            await call.result()
        for line in lines:
            progress(Note(f"{name}: {line}"))


async def _wait(
    connection: Connection, plan: Plan, names: Sequence[str], seconds: float, timing: Timing, progress: Progress
) -> dict[str, Any]:
    with timing.phase("ready"):
        call = await connection.open("wait", nodes=list(names), timeout=seconds, refused=_refused(plan))
        async for item in call:
            progress(_node_changed(item))
        return await call.result()


async def _keys(connection: Connection, directory: LabDirectory, plan: Plan) -> None:
    if any(node.configuration.keylog for node in plan.nodes):
        await collect(connection, directory)


def _notes(progress: Progress) -> EventHandler:
    """A runtime that takes long, because it builds an image, says what it does."""

    def note(event: dict[str, Any]) -> None:
        if event.get("type") == "progress":
            progress(Note(str(event["text"])))

    return note


def _node_changed(item: dict[str, Any]) -> NodeChanged:
    return NodeChanged(item["node"], item["state"], item.get("reason") or "", float(item.get("elapsed") or 0.0))


def _refused(plan: Plan) -> list[str]:
    """The members that are to get no keys."""
    return [name for group in plan.groups for name in group.refused]


def _insist(result: dict[str, Any], plan: Plan, report: UpReport) -> None:
    """Raise NotReady, with what each node waits for, unless every node is ready."""
    if result["ready"]:
        return
    expected = _refused(plan)
    waiting = {name: facts for name, facts in result["nodes"].items() if facts.get("state") != "ready"}
    # Of those that are to be refused only who failed is worth a word, unless there is nobody else.
    unexpected = {n: facts for n, facts in waiting.items() if n not in expected or facts.get("state") == "failed"}
    waiting = unexpected or waiting
    said = "; ".join(f"{name}: {facts.get('reason') or facts.get('state')}" for name, facts in waiting.items())
    raise NotReady(
        f"lab {report.lab} is up, but not ready after {report.seconds:.1f} s: {said}",
        f"'labctl logs {next(iter(waiting), '')}' tells more; the lab stays up until 'labctl down'",
    )


def _may_apply(changes: Changes, request: UpRequest) -> None:
    if not request.apply:
        raise TopologyChanged(
            "the topology changed since 'up':\n"
            + "\n".join(f"  {line}" for line in changes.lines())
            + "\nnothing was done",
            "'labctl up --apply' does it",
        )
    if request.nodes:
        raise BadRequest("--apply brings the whole lab to its topology", "leave the node names out")


def _refuse_unknown(plan: Plan, names: Sequence[str]) -> None:
    known = [node.name for node in plan.nodes]
    for name in names:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"nodes: {', '.join(known)}"
            raise BadRequest(f"lab {plan.lab} has no node {name!r}", hint)


def _with_keylog(plan: Plan, keylog: bool) -> Plan:
    if not keylog:
        return plan
    nodes = tuple(replace(node, configuration=replace(node.configuration, keylog=True)) for node in plan.nodes)
    return replace(plan, nodes=nodes)
