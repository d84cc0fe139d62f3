"""Which runtime carries a lab: the one asked for, else docker where it is usable, else namespaces (decision 1)."""

from __future__ import annotations

from labctl.lab.errors import BadRequest, LabError
from labctl.runtime.protocol import Availability, Runtime

AUTO = "auto"
NAMES = ("docker", "namespaces")  # in the order `auto` tries them


def runtime_named(name: str) -> Runtime:
    """The runtime called `name`; imported only now, because the docker client is heavy. Raises BadRequest."""
    if name == "docker":
        from labctl.runtime.docker import DockerRuntime

        return DockerRuntime()
    if name == "namespaces":
        from labctl.runtime.namespaces import NamespacesRuntime

        return NamespacesRuntime()
    raise BadRequest(f"no runtime {name!r}", f"runtimes: {', '.join(NAMES)}")


async def choose(topology_says: str, asked: str | None) -> Runtime:
    """A usable runtime. Raises LabError with every reason and remedy if there is none."""
    wanted = asked or topology_says
    names = NAMES if wanted == AUTO else (wanted,)
    refusals: list[tuple[str, Availability]] = []
    for name in names:
        runtime = runtime_named(name)
        found = await runtime.probe()
        if found.available:
            return runtime
        refusals.append((name, found))
    reasons = "; ".join(f"{name} cannot be used here: {found.reason}" for name, found in refusals)
    remedies = " ".join(found.remedy for _, found in refusals if found.remedy)
    raise LabError(reasons, remedies or "'labctl doctor' tells more")


async def usable() -> list[Runtime]:
    """Every runtime that answers on this machine."""
    runtimes = [runtime_named(name) for name in NAMES]
    return [runtime for runtime in runtimes if (await runtime.probe()).available]
