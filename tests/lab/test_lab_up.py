"""`up` is a transaction, a second `up` converges, `down` is idempotent. The runtime is one in memory."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable, Coroutine
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

import pytest
from lab_plans import chain, make_link, make_node
from lab_runtime import MemoryRuntime

from labctl.configuration import NodeKind, Route
from labctl.lab import down, runtimes, up
from labctl.lab.directory import LabDirectory
from labctl.lab.down import take_down
from labctl.lab.errors import BadRequest, LabBusy, LabError, NotReady, TopologyChanged
from labctl.lab.find import state_of
from labctl.lab.lock import LabLock
from labctl.lab.progress import NodeChanged, Note, ProgressEvent
from labctl.lab.standing import standing_plan
from labctl.lab.up import UpReport, UpRequest, bring_up
from labctl.runtime.protocol import RuntimeFailure
from labctl.topology.pki import Credentials
from labctl.topology.plan import Plan

REQUEST = UpRequest(Path("/topologies/chain.yml"), "name: chain\n", timeout=1)


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> MemoryRuntime:
    made = MemoryRuntime()
    for module in (runtimes, up, down):
        monkeypatch.setattr(module, "runtime_named", lambda name: made)
    return made


def run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(asyncio.wait_for(work, 20))


def bring(
    directory: LabDirectory,
    plan: Plan | None = None,
    request: UpRequest = REQUEST,
    progress: Callable[[ProgressEvent], None] = lambda event: None,
) -> UpReport:
    report = run(bring_up(directory, lambda secret, credentials: plan or chain(), request, progress))
    assert isinstance(report, UpReport)
    return report


def nothing_is_left(directory: LabDirectory, runtime: MemoryRuntime) -> bool:
    return not runtime.running and not directory.exists and list(directory.path.parent.iterdir()) == []


def with_route(plan: Plan, name: str) -> Plan:
    """The plan, with one node changed."""
    route = Route(IPv4Network("10.9.0.0/16"), IPv4Address("10.0.1.1"))
    nodes = tuple(
        replace(node, configuration=replace(node.configuration, routes=(route,))) if node.name == name else node
        for node in plan.nodes
    )
    return replace(plan, nodes=nodes)


def test_up_makes_the_lab_and_keeps_what_down_needs(directory: LabDirectory, runtime: MemoryRuntime) -> None:
    seen: list[ProgressEvent] = []
    report = bring(directory, progress=seen.append)
    assert report.started == ("a", "b", "c")
    assert set(report.phases) == {"start", "create", "build", "ready"}
    assert [event.state for event in seen if isinstance(event, NodeChanged) and event.node == "a"] == [
        "booting",
        "ready",
    ]
    state = state_of(directory)
    assert (state.is_up, state.runtime, state.topology) == (True, "namespaces", REQUEST.topology)
    assert {"kind": "supervisor", "pid": 4711} in state.making
    assert standing_plan(directory) == chain()
    assert not directory.keylog.exists(), "keys are written for who asks"
    assert directory.topology.read_text() == REQUEST.text


def test_the_journal_names_the_runtime_before_anything_is_made(
    directory: LabDirectory, runtime: MemoryRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    known: list[str | None] = []
    start = runtime.start

    async def watched(*arguments: Any, **named: Any) -> Any:
        known.append(state_of(directory).runtime)
        return await start(*arguments, **named)

    monkeypatch.setattr(runtime, "start", watched)
    bring(directory)
    assert known == ["namespaces"]


@pytest.mark.parametrize("step", ["start", "create", "build"])
def test_a_failure_at_any_step_is_rolled_back(directory: LabDirectory, runtime: MemoryRuntime, step: str) -> None:
    runtime.fail = step
    with pytest.raises(Exception) as caught:
        bring(directory)
    assert type(caught.value).__name__ in ("RuntimeFailure", "DoorError")
    assert nothing_is_left(directory, runtime)


def test_a_node_that_fails_rolls_back_and_its_log_is_told_first(
    directory: LabDirectory, runtime: MemoryRuntime
) -> None:
    runtime.broken = {"b"}
    seen: list[ProgressEvent] = []
    with pytest.raises(LabError, match="b: the agent died"):
        bring(directory, progress=seen.append)
    assert "b said so" in " ".join(event.text for event in seen if isinstance(event, Note))
    assert nothing_is_left(directory, runtime)


def test_a_node_that_fails_may_be_kept_to_look_at(directory: LabDirectory, runtime: MemoryRuntime) -> None:
    runtime.broken = {"b"}
    with pytest.raises(LabError, match="b: the agent died"):
        bring(directory, request=replace(REQUEST, rollback=False))
    assert runtime.running
    assert directory.exists
    run(take_down(directory))
    assert nothing_is_left(directory, runtime)


def test_ctrl_c_rolls_back(directory: LabDirectory, runtime: MemoryRuntime) -> None:
    async def interrupted() -> None:
        runtime.hold = asyncio.Event()
        task = asyncio.create_task(
            bring_up(directory, lambda secret, credentials: chain(), REQUEST, lambda event: None)
        )
        await runtime.hold.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(interrupted())
    assert nothing_is_left(directory, runtime)


def test_a_roll_back_that_fails_keeps_the_first_error_and_the_state(
    directory: LabDirectory, runtime: MemoryRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime.fail = "build"

    async def stuck(*arguments: Any) -> Any:
        raise RuntimeFailure("it does not die")

    monkeypatch.setattr(runtime, "destroy", stuck)
    seen: list[ProgressEvent] = []
    with pytest.raises(Exception, match="the kernel refused a link"):
        bring(directory, progress=seen.append)
    assert any("it does not die" in event.text for event in seen if isinstance(event, Note))
    assert directory.exists, "down can finish it"


def test_a_node_that_is_not_ready_in_time_is_named_with_what_it_waits_for(
    directory: LabDirectory, runtime: MemoryRuntime
) -> None:
    runtime.never_ready = {"c"}
    with pytest.raises(NotReady, match=r"c: waits for 10\.0\.0\.1"):
        bring(directory)
    assert runtime.running, "the lab stays, so that one can look"
    runtime.never_ready = set()
    assert bring(directory).was_up


def test_up_again_has_nothing_to_do(directory: LabDirectory, runtime: MemoryRuntime) -> None:
    bring(directory)
    runtime.done.clear()
    report = bring(directory)
    assert report.was_up
    assert report.started == ()
    assert report.changes.nothing
    assert runtime.done == []


def test_a_lab_that_needs_no_key_pair_pays_nothing_for_those_that_do(
    directory: LabDirectory, runtime: MemoryRuntime
) -> None:
    report = bring(directory)
    assert "keys" not in report.phases
    assert not directory.pki.exists()
    imports = "import sys, labctl.cli.up, labctl.lab.up; print(*(name for name in sys.modules if 'crypto' in name))"
    done = subprocess.run([sys.executable, "-c", imports], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_the_secret_is_the_same_for_the_second_up(directory: LabDirectory, runtime: MemoryRuntime) -> None:
    secrets: list[bytes] = []

    def plan(secret: bytes, credentials: Credentials) -> Plan:
        secrets.append(secret)
        return chain()

    run(bring_up(directory, plan, REQUEST, lambda event: None))
    run(bring_up(directory, plan, REQUEST, lambda event: None))
    assert secrets[0] == secrets[1]


def test_a_changed_topology_is_said_and_touched_only_when_asked(
    directory: LabDirectory, runtime: MemoryRuntime
) -> None:
    bring(directory)
    runtime.done.clear()
    with pytest.raises(TopologyChanged, match=r"~ node a \(replaced\)"):
        bring(directory, with_route(chain(), "a"))
    assert runtime.done == []
    report = bring(directory, with_route(chain(), "a"), replace(REQUEST, apply=True))
    assert report.started == ("a",)
    assert runtime.done == ["door-remove a", "remove a", "create a", "build a"]
    assert standing_plan(directory) == with_route(chain(), "a")
    assert bring(directory, with_route(chain(), "a")).changes.nothing


def test_apply_adds_and_removes_nodes(directory: LabDirectory, runtime: MemoryRuntime) -> None:
    bring(directory)
    runtime.done.clear()
    old = chain()
    new = replace(
        old,
        nodes=(*old.nodes[1:], make_node("d", NodeKind.HOST, "10.0.3.2/24")),
        links=(*old.links[1:], make_link("d:eth0", "lan:port2")),
    )
    report = bring(directory, new, replace(REQUEST, apply=True))
    assert report.started == ("b", "d")
    assert runtime.done == ["door-remove a b", "remove a b", "create b d", "build b d"]
    assert set(runtime.states) == {"b", "c", "d"}


def test_what_cannot_be_changed_in_parts_is_replaced_whole(directory: LabDirectory, runtime: MemoryRuntime) -> None:
    bring(directory)
    runtime.done.clear()
    report = bring(directory, replace(chain(), clock_scale=60.0), replace(REQUEST, apply=True))
    assert report.started == ("a", "b", "c")
    assert runtime.done[0].startswith("destroy")
    assert runtime.done[-1] == "build a b c"


def test_some_nodes_first_the_rest_later(directory: LabDirectory, runtime: MemoryRuntime) -> None:
    report = bring(directory, request=replace(REQUEST, nodes=("a", "b")))
    assert report.started == ("a", "b")
    assert set(runtime.states) == {"a", "b"}
    assert bring(directory).started == ("c",)
    assert runtime.done[-1] == "build c"


def test_a_node_that_fell_is_started_again(directory: LabDirectory, runtime: MemoryRuntime) -> None:
    bring(directory)
    runtime.states["b"] = "failed"
    runtime.done.clear()
    assert bring(directory).started == ("b",)
    assert runtime.done == ["door-remove b", "remove b", "create b", "build b"]


def test_an_unknown_node_is_refused_before_anything_is_made(directory: LabDirectory, runtime: MemoryRuntime) -> None:
    with pytest.raises(BadRequest, match="no node 'z'"):
        bring(directory, request=replace(REQUEST, nodes=("z",)))
    assert runtime.done == []
    assert not directory.exists


def test_a_lab_whose_supervisor_died_is_made_anew(directory: LabDirectory, runtime: MemoryRuntime) -> None:
    bring(directory)
    runtime.running = False
    runtime.done.clear()
    seen: list[ProgressEvent] = []
    report = bring(directory, progress=seen.append)
    assert not report.was_up
    assert runtime.done[:2] == ["destroy 4", "start"], "what the journal knows goes first"
    assert any("does not answer" in event.text for event in seen if isinstance(event, Note))


def test_a_keylog_that_was_asked_for_stays_without_the_option(directory: LabDirectory, runtime: MemoryRuntime) -> None:
    bring(directory, request=replace(REQUEST, keylog=True))
    assert all(node.configuration.keylog for node in standing_plan(directory).nodes)
    table = directory.keylog / "ikev1_decryption_table"
    assert table.read_text() == "aa,bb\ncc,dd\n"
    assert table.stat().st_mode & 0o777 == 0o600
    assert bring(directory).changes.nothing


def test_two_ups_do_not_race(directory: LabDirectory, runtime: MemoryRuntime, monkeypatch: pytest.MonkeyPatch) -> None:
    def busy(self: LabLock) -> LabLock:
        raise LabBusy("lab chain is being changed by 'labctl up' (pid 1)")

    monkeypatch.setattr(LabLock, "__enter__", busy)
    with pytest.raises(LabBusy):
        bring(directory)
    assert runtime.done == []


def test_a_runtime_that_cannot_be_used_says_why_and_what_helps(directory: LabDirectory, runtime: MemoryRuntime) -> None:
    runtime.fail = "probe"
    with pytest.raises(LabError) as caught:
        bring(directory, request=replace(REQUEST, runtime="namespaces"))
    assert "no namespaces here" in caught.value.what
    assert "get a kernel" in caught.value.hint
    assert not directory.exists


def test_down_may_be_said_any_number_of_times(directory: LabDirectory, runtime: MemoryRuntime) -> None:
    bring(directory)
    first = run(take_down(directory))
    assert first.was_there
    assert [item.kind for item in first.removed] == ["process"]
    assert nothing_is_left(directory, runtime)
    assert not run(take_down(directory)).was_there


def test_down_finds_a_lab_without_state_by_its_label(directory: LabDirectory, runtime: MemoryRuntime) -> None:
    runtime.running = True
    assert run(take_down(directory)).was_there
    assert not runtime.running


def test_down_that_leaves_something_says_what_and_keeps_the_state(
    directory: LabDirectory, runtime: MemoryRuntime
) -> None:
    bring(directory)
    runtime.fail = "destroy"
    with pytest.raises(LabError, match="process 4711"):
        run(take_down(directory))
    assert directory.exists
