"""`python -m labctl.node --listen PATH`: the agent of a container, as its PID 1.

The fabric connects to the unix socket; one that comes back finds the node as it runs. SIGTERM ends the agent.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from pathlib import Path

from labctl.kernel.signals import forget_inherited_signals
from labctl.node.agent import Agent

USAGE = "usage: python -m labctl.node --listen PATH"


def main(arguments: list[str]) -> int:
    """The exit status: 2 for a call that makes no sense, 1 where the socket cannot be made."""
    if len(arguments) != 2 or arguments[0] != "--listen":
        print(f"labctl.node: {USAGE}", file=sys.stderr)
        return 2
    try:
        listener = listen(Path(arguments[1]))
    except OSError as error:
        print(f"labctl.node: cannot listen on {arguments[1]}: {error.strerror}", file=sys.stderr)
        return 1
    forget_inherited_signals()
    asyncio.run(serve(listener))
    Path(arguments[1]).unlink(missing_ok=True)
    return 0


def listen(path: Path) -> socket.socket:
    """A listening unix socket, mode 0600 from its first moment, in place of one that an older agent left."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    mask = os.umask(0o177)
    try:
        listener.bind(str(path))
        listener.listen(8)
    except OSError:
        listener.close()
        raise
    finally:
        os.umask(mask)
    return listener


async def serve(listener: socket.socket) -> None:
    """Attend to every connection, several at a time or one after another, until SIGTERM or `shutdown`."""
    agent = Agent()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, agent.stopped.set)
    if os.getpid() == 1:
        loop.add_signal_handler(signal.SIGCHLD, agent.children.reap_orphans)
    attending: set[asyncio.Task[None]] = set()

    async def accept() -> None:
        while True:
            sock, _ = await loop.sock_accept(listener)
            task = asyncio.create_task(agent.attend(sock))
            attending.add(task)
            task.add_done_callback(attending.discard)

    accepting = asyncio.create_task(accept())
    await agent.stopped.wait()
    accepting.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await accepting
    listener.close()
    await agent.close()
    await asyncio.gather(*attending, return_exceptions=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
