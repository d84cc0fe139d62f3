"""A program for test_namespaces_life.py: one lab as whoever runs this, and what it saw as JSON."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

from chain import Paths, chain, execute

from labctl.configuration import to_json
from labctl.runtime.namespaces import NamespacesRuntime


async def main(directory: Path) -> None:
    paths, runtime = Paths("rootless", directory), NamespacesRuntime("standin_agent:run")
    plan = chain(3)
    try:
        door = await runtime.start(paths, plan, paths.journal.append)
        await door.call("build", plan=to_json(plan))
        ping, _ = await execute(door, "n0", "ping", "-c", "1", "-W", "5", "n2")
        _, user_map = await execute(door, "n1", "cat", "/proc/self/uid_map")
        await door.close()
    finally:
        await runtime.destroy(paths, paths.journal)
    left = await runtime.leftovers(paths, paths.journal)
    print(json.dumps({"ping": ping, "user_map": user_map, "uid": os.getuid(), "left": [item.kind for item in left]}))


asyncio.run(main(Path(sys.argv[1])))
