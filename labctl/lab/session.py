"""A running lab's door, as verbs use it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from labctl.door import Connection
from labctl.lab.directory import LabDirectory
from labctl.lab.errors import LabDead
from labctl.lab.find import state_of
from labctl.lab.runtimes import runtime_named
from labctl.runtime.protocol import LabNotRunning, Runtime


def runtime_of(directory: LabDirectory) -> Runtime:
    """The runtime that carries the lab. Raises LabDead where a killed `up` did not come to choose one."""
    name = state_of(directory).runtime
    if name is None:
        raise LabDead(f"lab {directory.name} was not brought up to its end", "'labctl down' removes what is left")
    return runtime_named(name)


@asynccontextmanager
async def opened(directory: LabDirectory) -> AsyncIterator[Connection]:
    """The lab's door, closed at the end. Raises LabDead if nobody answers."""
    try:
        connection = await runtime_of(directory).connect(directory)
    except LabNotRunning as error:
        raise LabDead(
            f"lab {directory.name} does not answer: {error.message}", "'labctl down' removes what is left of it"
        ) from error
    try:
        yield connection
    finally:
        await connection.close()
