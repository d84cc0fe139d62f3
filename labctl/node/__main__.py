"""`python -m labctl.node --listen PATH`: the agent of a container. As process 1 it also reaps orphans.

The fabric connects to the unix socket; one that comes back finds the node as it runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from pathlib import Path

from labctl.node.agent import Agent, _child_watcher


def _listen(path: Path) -> socket.socket:
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    mask = os.umask(0o177)
    try:
        listener.bind(str(path))
    finally:
        os.umask(mask)
    listener.listen(8)
    return listener


async def _serve(listener: socket.socket) -> None:
    agent = Agent()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, agent.stop)
    tasks: set[asyncio.Task[None]] = set()

    async def hold(sock: socket.socket) -> None:
        connection = await agent.attach(sock)
        await connection.wait_closed()
        agent.detach(connection)

    async def accept() -> None:
        while True:
            sock, _ = await loop.sock_accept(listener)
            task = loop.create_task(hold(sock))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    accepting = loop.create_task(accept())
    await agent.stopped.wait()
    accepting.cancel()
    await asyncio.sleep(0)


def _be_agent(path: Path) -> None:
    listener = _listen(path)
    with asyncio.Runner() as runner:
        asyncio.set_event_loop(runner.get_loop())
        asyncio.get_event_loop_policy().set_child_watcher(_child_watcher(runner.get_loop()))
        runner.run(_serve(listener))


def _be_process_one(path: Path) -> int:
    """Run the agent as a child, hand signals on, reap whatever ends; returns the agent's exit status."""
    child = os.fork()
    if child == 0:
        _be_agent(path)
        os._exit(0)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda received, _: os.kill(child, signal.SIGTERM))
    while True:
        pid, status = os.wait()
        if pid == child:
            return os.waitstatus_to_exitcode(status)


def main(arguments: list[str]) -> int:
    """Exit status 2 for a call that makes no sense."""
    if len(arguments) != 2 or arguments[0] != "--listen":
        print("labctl.node: usage: python -m labctl.node --listen PATH", file=sys.stderr)
        return 2
    path = Path(arguments[1])
    if os.getpid() == 1:
        return _be_process_one(path)
    _be_agent(path)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
