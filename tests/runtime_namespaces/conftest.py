"""Labs for the namespaces runtime's tests: a real supervisor, real wires, and the stand-in agent in every node."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from chain import Paths
from running_lab import AGENT, InLab, Lab

from labctl.runtime.namespaces import NamespacesRuntime
from labctl.topology.plan import Plan


@pytest.fixture(autouse=True)
def _agent_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))


@pytest.fixture
def in_lab(tmp_path: Path) -> Iterator[InLab]:
    """Run a coroutine function with a fresh lab; the lab is destroyed after it whatever happens."""

    @asynccontextmanager
    async def fresh() -> AsyncIterator[Lab]:
        paths = Paths("chain", tmp_path)
        runtime = NamespacesRuntime(AGENT)
        try:
            door = await runtime.start(paths, Plan("chain", "namespaces", (), (), (), (), ()), paths.journal.append)
            yield Lab(paths, runtime, door)
            await door.close()
        finally:
            await runtime.destroy(paths, paths.journal)

    def run(body: Callable[[Lab], Awaitable[None]]) -> None:
        async def main() -> None:
            async with fresh() as lab:
                await body(lab)

        asyncio.run(main())

    yield run
