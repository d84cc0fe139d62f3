"""What the docker runtime makes and removes, whoever is killed, cancelled or in the way. The engine is in memory."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import threading
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from docker.errors import APIError
from engine_in_memory import EngineInMemory

from labctl.configuration import NodeConfiguration, NodeKind
from labctl.runtime.docker import CONCURRENCY, DockerRuntime
from labctl.runtime.docker_containers import FABRIC, Containers
from labctl.runtime.protocol import LabNotRunning, RuntimeFailure
from labctl.topology.plan import Plan, PlannedNode


@dataclass(frozen=True)
class Paths:
    path: Path
    name: str = "net"

    @property
    def door(self) -> Path:
        return self.path / "door.sock"

    @property
    def logs(self) -> Path:
        return self.path / "logs"


def in_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run a test in an event loop, twenty seconds at most."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        asyncio.run(asyncio.wait_for(test(*args, **kwargs), 20))

    return run


def plan(*names: str) -> Plan:
    nodes = tuple(PlannedNode(name, NodeKind.HOST, NodeConfiguration(name, NodeKind.HOST, ())) for name in names)
    return Plan("net", "docker", nodes, (), (), (), ())


@pytest.fixture
def engine() -> EngineInMemory:
    return EngineInMemory()


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    lab = Paths(tmp_path / "state/labs/net")
    lab.path.mkdir(parents=True)
    return lab


def journal(*nodes: str, lab: str = "net") -> list[dict[str, Any]]:
    return [{"kind": "container", "runtime": "docker", "lab": lab, "node": node} for node in nodes]


def with_fabric(engine: EngineInMemory, paths: Paths) -> DockerRuntime:
    Containers(engine).start_fabric(paths, "image")
    engine.began.acquire()
    return DockerRuntime(engine)


@in_loop
async def test_nodes_are_journalled_before_any_is_made_and_their_pids_returned(
    engine: EngineInMemory, paths: Paths
) -> None:
    runtime = with_fabric(engine, paths)
    lines: list[dict[str, Any]] = []

    def record(line: dict[str, Any]) -> None:
        assert engine.nodes() == {FABRIC}
        lines.append(line)

    pids = await runtime.create(paths, plan("a", "b"), ["a", "b"], record)
    assert lines == journal("a", "b")
    made = {item["Labels"]["labctl.node"]: item for item in engine.made.values()}
    assert pids == {name: made[name]["State"]["Pid"] for name in ("a", "b")}
    assert made["a"]["Image"] == "image", "of the fabric's make"


@in_loop
async def test_a_cancelled_create_returns_when_nothing_of_it_runs_any_more(
    engine: EngineInMemory, paths: Paths
) -> None:
    runtime = with_fabric(engine, paths)
    names = [f"n{number}" for number in range(CONCURRENCY + 5)]
    for name in names:
        engine.hold(f"labctl-net-{name}")
    creating = asyncio.ensure_future(runtime.create(paths, plan(*names), names, lambda _: None))
    for _ in range(CONCURRENCY):
        await asyncio.to_thread(engine.began.acquire)
    creating.cancel()
    assert not (await asyncio.wait({creating}, timeout=0.05))[0], "requests are under way"
    for name in names:
        engine.release(f"labctl-net-{name}")
    with pytest.raises(asyncio.CancelledError):
        await creating
    assert len(engine.made) == 1 + CONCURRENCY, "those that had not begun never begin"
    await runtime.destroy(paths, journal(FABRIC, *names))
    assert not engine.made


@in_loop
async def test_the_first_failure_is_told_and_what_was_made_is_removed(engine: EngineInMemory, paths: Paths) -> None:
    runtime = with_fabric(engine, paths)
    engine.refusals["labctl-net-b"] = APIError("500", explanation="write /x: no space left on device")
    with pytest.raises(RuntimeFailure) as caught:
        await runtime.create(paths, plan("a", "b"), ["a", "b"], lambda _: None)
    assert caught.value.message == "make the container of b in lab net: write /x: no space left on device"
    assert "docker system df" in caught.value.hint
    del engine.refusals["labctl-net-b"]
    await runtime.destroy(paths, journal(FABRIC, "a", "b"))
    assert not engine.made


@in_loop
async def test_destroy_waits_for_a_request_that_a_killed_up_left_in_the_engine(
    engine: EngineInMemory, paths: Paths
) -> None:
    engine.hold("labctl-net-a")

    def killed_up() -> None:
        # What destroy removes first cannot be started any more; with a real engine nobody hears of that.
        with contextlib.suppress(RuntimeFailure):
            Containers(engine).start_node(paths, plan("a").nodes[0], "image")

    killed = threading.Thread(target=killed_up)
    killed.start()
    await asyncio.to_thread(engine.began.acquire)
    destroying = asyncio.ensure_future(DockerRuntime(engine).destroy(paths, journal(FABRIC, "a")))
    assert not (await asyncio.wait({destroying}, timeout=0.2))[0], "its name is taken: something is under way"
    engine.release("labctl-net-a")
    await destroying
    killed.join()
    assert not engine.made


@in_loop
async def test_destroy_twice_finds_nothing_the_second_time(engine: EngineInMemory, paths: Paths) -> None:
    runtime = with_fabric(engine, paths)
    await runtime.create(paths, plan("a"), ["a"], lambda _: None)
    lines = journal(FABRIC, "a")
    assert len(await runtime.leftovers(paths, lines)) == 2
    assert [item.identity.split()[0] for item in await runtime.destroy(paths, lines)] == [FABRIC, "a"]
    assert await runtime.destroy(paths, lines) == []
    assert await runtime.leftovers(paths, lines) == []
    assert not engine.names


@in_loop
async def test_without_an_image_nothing_can_be_under_way(engine: EngineInMemory, paths: Paths) -> None:
    engine.has_image = False
    assert await DockerRuntime(engine).destroy(paths, journal(FABRIC, "a")) == []


@in_loop
async def test_a_lab_of_the_same_name_in_another_state_folder_is_refused_and_left_alone(
    engine: EngineInMemory, paths: Paths, tmp_path: Path
) -> None:
    runtime = with_fabric(engine, paths)
    other = Paths(tmp_path / "other/labs/net")
    with pytest.raises(RuntimeFailure) as caught:
        await runtime.start(other, plan("a"), lambda _: None)
    assert str(paths.path) in caught.value.message
    assert f"LABCTL_STATE={tmp_path / 'state'} labctl down net" in caught.value.hint
    for there in (False, True):
        if there:
            other.path.mkdir(parents=True)
        assert await runtime.destroy(other, journal(FABRIC)) == []
        with pytest.raises(LabNotRunning):
            await runtime.connect(other)
    assert engine.nodes() == {FABRIC}


@in_loop
async def test_containers_whose_state_folder_is_lost_go_by_the_labs_name(
    engine: EngineInMemory, paths: Paths, tmp_path: Path
) -> None:
    runtime = with_fabric(engine, paths)
    paths.path.rmdir()
    with pytest.raises(RuntimeFailure, match="has a lab net already") as caught:
        await runtime.start(Paths(tmp_path / "other/labs/net"), plan("a"), lambda _: None)
    assert "'labctl down net' removes it" in caught.value.hint
    assert len(await runtime.destroy(Paths(tmp_path / "elsewhere/labs/net"), [])) == 1
    assert not engine.made


@in_loop
async def test_a_container_that_ends_at_once_is_told_with_its_last_words(
    engine: EngineInMemory, paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = with_fabric(engine, paths)
    monkeypatch.setattr(engine, "start", lambda _: None)
    monkeypatch.setattr(engine, "logs", lambda identity, tail: b"no room for an agent\n", raising=False)
    with pytest.raises(RuntimeFailure) as caught:
        await runtime.create(paths, plan("a"), ["a"], lambda _: None)
    assert caught.value.message == "the container of a in lab net ended with status 0"
    assert caught.value.hint == "no room for an agent"
